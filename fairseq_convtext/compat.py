"""What differs between the versions of torch, NumPy and fairseq, and nothing else.

The file must work where torch or fairseq is missing, so at the top it imports the standard library only.
"""

import argparse
import importlib
import re
import sys
from typing import Any, List, Tuple

OLDEST_TORCH = (2, 1)
# From this version on torch.load refuses classes that are not on its list of safe globals.
TORCH_WITH_SAFE_LOADING = (2, 6)


def check_environment() -> None:
    """Sees that torch, numba and fairseq are there and usable.

    Raises:
        ImportError: one sentence that says what was found and what to install.
    """
    problem = _torch_problem() or _fairseq_problem() or _numba_problem()
    if problem:
        raise ImportError(problem)


def allow_safe_globals() -> None:
    """Lets torch.load read what fairseq writes into checkpoints, with ``weights_only=True`` left on.

    With --eval-bleu a checkpoint holds NumPy arrays and numbers, with a legacy model or criterion an
    ``argparse.Namespace``; resuming on several processes sends placeholders for tensors. NumPy 1 and 2 name
    the same functions differently, and a file written under one may be read under the other. Does nothing
    where torch.load still reads everything by default.
    """
    import torch

    if _version_pair(torch.__version__) < TORCH_WITH_SAFE_LOADING:
        return

    import numpy as np
    from fairseq.distributed.utils import _TensorPlaceholder

    # The private module that pickles arrays: numpy.core.multiarray in NumPy 1, numpy._core.multiarray in 2.
    multiarray = importlib.import_module(np.ndarray((0,)).__reduce__()[0].__module__)
    safe: List[Any] = [argparse.Namespace, _TensorPlaceholder, np.ndarray, np.dtype]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        safe.append((multiarray._reconstruct, f"{module}._reconstruct"))
        safe.append((multiarray.scalar, f"{module}.scalar"))
    for letter in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?":
        safe.append(type(np.dtype(letter)))
    torch.serialization.add_safe_globals(safe)


def _torch_problem() -> str:
    """One sentence if torch cannot be used, else an empty string."""
    wanted = "torch>={}.{}".format(*OLDEST_TORCH)
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return f"fairseq_convtext needs torch, which is not installed: pip install '{wanted}'."
    if _version_pair(torch.__version__) < OLDEST_TORCH:
        return f"fairseq_convtext needs {wanted} but found torch {torch.__version__}: pip install '{wanted}'."
    return ""


def _numba_problem() -> str:
    """One sentence if numba cannot be used, else an empty string."""
    try:
        import numba  # noqa: F401
    except ImportError as error:  # also for a NumPy that it does not know
        return f"fairseq_convtext needs numba, which cannot be used here ({error}): pip install --upgrade numba."
    return ""


def _fairseq_problem() -> str:
    """One sentence if fairseq cannot be used, else an empty string."""
    try:
        import fairseq
    except ModuleNotFoundError as error:
        if error.name == "fairseq":
            return f"fairseq_convtext needs fairseq, which is not installed: {_fairseq_remedy()}."
        return f"The installed fairseq lacks a package that it needs ({error}): {_fairseq_remedy()}."
    except ValueError as error:
        if "mutable default" not in str(error):
            raise
        return (
            f"The installed fairseq does not run on Python {_python_version()} "
            f"(0.12.2 needs Python 3.10 or older): pip uninstall fairseq, then {_fairseq_remedy()}."
        )
    if getattr(fairseq, "__file__", None) is None:
        return (
            f"The folder {list(fairseq.__path__)[0]} is named fairseq but is not the package fairseq: "
            f"work from another folder, or {_fairseq_remedy()}."
        )
    return ""


def _fairseq_remedy() -> str:
    """What to type, on this Python, to get a fairseq that works."""
    if sys.version_info < (3, 11):
        return "pip install 'pip<24.1' and then pip install fairseq==0.12.2"
    if sys.version_info < (3, 13):
        return "pip install ve-fairseq==0.12.3 hydra-core==1.3.2 omegaconf==2.3.0"
    return f"use Python 3.11 or 3.12 instead of {_python_version()}, with ve-fairseq==0.12.3"


def _python_version() -> str:
    """Such as 3.11."""
    return "{}.{}".format(*sys.version_info[:2])


def _version_pair(version: str) -> Tuple[int, ...]:
    """(2, 13) for "2.13.0+cpu"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
