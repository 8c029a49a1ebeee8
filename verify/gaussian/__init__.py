"""Two Gaussians: the line between their means, masses and caps on it, and couplings of a draw of each."""
