"""fairseq's commands in a process of their own, for what only the end of a process shows."""

import os
import subprocess
import sys
from pathlib import Path


def start(command: str, *arguments: object, folder: Path) -> "subprocess.Popen[str]":
    """``fairseq-COMMAND ARGUMENTS``, started in ``folder``; standard output and errors are pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", f"fairseq_cli.{command}", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
