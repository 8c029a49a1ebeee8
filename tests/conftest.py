"""What all tests share."""

import torch

pytest_plugins = ["pytester"]

torch.set_num_threads(1)
