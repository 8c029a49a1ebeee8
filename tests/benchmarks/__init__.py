"""What the verdicts cost, and what they see for it: `make bench`."""
