"""Laws, sequence models, and the tape they are drawn with."""

__version__ = "0.1.0"
