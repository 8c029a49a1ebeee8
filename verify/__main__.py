"""``python -m verify``: the command line, also without an installed script."""

import sys

from verify.cli import main

sys.exit(main())
