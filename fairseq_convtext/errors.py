"""The error that a user can cause and mend."""

import sys
from types import TracebackType
from typing import Optional, Type


class ConvTextError(ValueError):
    """A mistake of the caller: a wrong option, an unfit corpus, an unfit checkpoint.

    The message is one sentence that names what was found, what was expected, and the flag or file to change.
    """


def print_one_line(kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    """A ``sys.excepthook``: a ConvTextError that nobody caught is its sentence, without the traceback."""
    if isinstance(error, ConvTextError):
        sys.stderr.write(f"error: {error}\n")
    else:
        sys.__excepthook__(kind, error, trace)


def print_user_errors_as_one_line() -> None:
    """Set the hook, unless somebody else has set one already."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = print_one_line
