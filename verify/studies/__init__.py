"""One file a study; the file's name is its name on the command line, and its ``run(budget)`` returns a Study."""
