"""The error that a user can cause and mend."""

import logging
import multiprocessing
import os
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Optional, Type


class ConvTextError(ValueError, RuntimeError):
    """A mistake of the caller: a wrong option, an unfit corpus, an unfit checkpoint.

    The message is one sentence that names what was found, what was expected, and the flag or file to change. A
    RuntimeError because fairseq's trainer saves a whole checkpoint, crash.pt, for every other error of its first batch.
    """


def user_error(error: Optional[BaseException]) -> Optional[ConvTextError]:
    """The ConvTextError that ``error`` is or replaced: fairseq has its own for all that happens while it resumes."""
    while error is not None and not isinstance(error, ConvTextError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


def too_long(error: BaseException) -> Optional[ConvTextError]:
    """What fairseq's stock tasks raise, a bare Exception, for a sentence beyond the limits; as a ConvTextError."""
    # NumPy 2 writes np.int32(8) where NumPy 1 writes 8.
    text = re.sub(r"np\.\w+\((\d+)\)", r"\1", str(error))
    match = re.match(r"Size of sample #(\d+) is invalid \(=(.+)\) since max_positions=(.+), skip", text)
    if type(error) is not Exception or not match:
        return None
    number, found, limits = match.groups()
    return ConvTextError(
        f"sentence {number} (counted from 0; by fairseq-interactive within each buffer) has the (source, target) "
        f"lengths {found} in tokens, EOS included; the limits are {limits}, the smaller of those here and of those "
        "that the model was trained with: shorten it, raise --max-source-positions or --max-target-positions, or "
        "leave such sentences out with --skip-invalid-size-inputs-valid-test."
    )


def print_one_line(kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    """A ``sys.excepthook``: a user's mistake that nobody caught is its sentence, without the traceback."""
    mistake = user_error(error) or too_long(error)
    if mistake is None:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: {mistake}\n")
    if not (hasattr(sys, "ps1") or sys.flags.interactive):
        exit_at_once()


def exit_at_once() -> None:
    """Exit with code 1.

    A normal exit from the middle of an epoch often aborts (SIGABRT and a message after ours): the thread with
    which fairseq reads batches ahead is then inside torch.
    """
    for worker in multiprocessing.active_children():
        worker.terminate()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def print_user_errors_as_one_line() -> None:
    """Set the hook where a command of fairseq runs, unless somebody has set one; other programs keep theirs."""
    program = Path(sys.argv[0] if sys.argv else "")
    if sys.excepthook is sys.__excepthook__ and (
        program.name.startswith("fairseq-") or program.parent.name == "fairseq_cli"
    ):
        sys.excepthook = print_one_line
