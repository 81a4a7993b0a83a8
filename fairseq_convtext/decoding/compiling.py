"""How functions that loop over single numbers are compiled."""

import logging
from typing import Any, Callable

import numba

# At DEBUG, where some set the root logger, a compilation logs tens of thousands of lines.
logging.getLogger("numba").setLevel(logging.WARNING)


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled by numba at its first call; kept on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return numba.njit(nogil=True)(function)
