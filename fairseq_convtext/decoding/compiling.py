"""How functions that loop over single numbers are compiled."""

from typing import Any, Callable

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled by numba at its first call; kept on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return numba.njit(nogil=True)(function)
