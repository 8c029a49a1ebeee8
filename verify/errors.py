"""What is raised when the function under test, or the call about it, is wrong."""

from __future__ import annotations

from typing import Any


class SubjectError(ValueError):
    """The function to be judged, the file it is in or the options of the call are wrong.

    Its message is one sentence: what is wrong and how to mend it. The command line prints it and exits with status 3.
    """


def raised(error: BaseException, where: str) -> SubjectError:
    """The sentence for a function that raised ``error`` on the problem described by ``where``."""
    if isinstance(error, SubjectError):
        return SubjectError(f"{error} [{where}]")
    if not isinstance(error, Exception):  # a symbol of an enumeration, met outside of it
        return SubjectError("the function keeps a draw of one call and uses it in another; draw anew in each call")
    text = ": ".join(filter(None, (f"{type(error).__name__} on {where}", " ".join(str(error).split())[:200])))
    return SubjectError(f"the function raised {text}; mend it, or run it there")


def article(item: Any) -> str:
    """The type of something, to go into a sentence."""
    name = type(item).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def name_of(fn: Any) -> str:
    """What to call a function in a report."""
    return getattr(fn, "__qualname__", None) or type(fn).__name__
