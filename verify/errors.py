"""What is raised when the function under test, or the call about it, is wrong."""

from __future__ import annotations


class SubjectError(ValueError):
    """The function to be judged, the file it is in or the options of the call are wrong.

    Its message is one sentence: what is wrong and how to mend it. The command line prints it and exits with status 3.
    """
