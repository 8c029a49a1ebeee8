"""Published figures against what holds without any model: acceptance, draft length and speed-up bound one another."""
