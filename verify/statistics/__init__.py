"""What checks count, on which samples, and by which laws they judge it: shared by several checks each."""
