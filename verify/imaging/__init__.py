"""Decoding images with the models that ship: by any rule on paths, with what was kept and what it cost."""
