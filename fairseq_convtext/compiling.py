"""How functions that loop over single numbers are compiled."""

import hashlib
import logging
from pathlib import Path
from typing import Any, Callable

import numba

# At DEBUG, where some set the root logger, a compilation logs tens of thousands of lines.
logging.getLogger("numba").setLevel(logging.WARNING)


# A division by zero gives infinity: a check for it keeps loops from becoming vector instructions.
NJIT_OPTIONS = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled by numba into what calls it."""
    return numba.njit(**NJIT_OPTIONS)(function)


def compiled_once(function: Callable[..., Any]) -> Any:
    """Compiled by numba at its first call, with all that it calls, and kept on disk where there is a place for it.

    What is kept is used again for as long as the function's own file and the values that it closes over are the same.
    numba does not look at the files of what it calls: let it close over their ``digest``. Nor does it look at
    NJIT_OPTIONS: who changes them removes what is kept (``__pycache__``).
    """
    try:
        return numba.njit(cache=True, **NJIT_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return compiled(function)


def digest(folder: Path) -> int:
    """A number that is another one when a Python file of the folder is another one."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return int.from_bytes(found.digest()[:7], "big")
