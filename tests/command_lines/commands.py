"""fairseq's commands, run in this process as a user would type them."""

import contextlib
import io
import re
import sys
from importlib import import_module
from typing import Dict, List
from unittest import mock

from fairseq import checkpoint_utils


def run(command: str, *arguments: object, stdin: str = "") -> str:
    """What ``fairseq-COMMAND ARGUMENTS`` writes to standard output.

    Args:
        command: train, preprocess, generate, interactive or validate.
        stdin: what the command reads.
    """
    module = import_module(f"fairseq_cli.{command}")
    # fairseq keeps the best score of a process's earlier training here, and would save no better checkpoint.
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    argv = [f"fairseq-{command}", *map(str, arguments)]
    output = io.StringIO()
    with mock.patch.object(sys, "argv", argv), mock.patch.object(sys, "stdin", io.StringIO(stdin)):
        with contextlib.redirect_stdout(output):
            module.cli_main()
    return output.getvalue()


def lines(output: str, kind: str) -> Dict[int, List[str]]:
    """The fields of fairseq's output lines of one kind, such as H, by sentence id; n-best in order."""
    found: Dict[int, List[str]] = {}
    for match in re.finditer(rf"^{kind}-(\d+)\t(.*)$", output, re.MULTILINE):
        found.setdefault(int(match.group(1)), []).append(match.group(2))
    return found
