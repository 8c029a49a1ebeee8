"""One file a member; the file's name is its name on the command line."""
