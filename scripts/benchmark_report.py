"""What the benchmarks print: a table, and the line that says what they ran on."""

import argparse
import platform
import sys
from pathlib import Path
from typing import List, Optional, Sequence


def progress(message: str) -> None:
    """To standard error, so that standard output holds the report only."""
    print(message, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """A whole number from 1 up, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; found {number}")
    return number


def device_problem(device: str) -> Optional[str]:
    """One sentence if --device cannot be used."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "this torch finds no CUDA device: use --device cpu"
    return None


def hardware(device: str) -> str:
    """Such as ``AMD EPYC, 2 threads, torch 2.13.0+cpu``; call it where --threads has been set."""
    # The benchmark of the loss measures memory in processes whose parent must not have loaded torch.
    import torch

    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"


def processor() -> str:
    """The model of the CPU, or its kind where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of equal length, the first the heading, in aligned columns.

    Args:
        rows: cells.
        left: this many columns are aligned to the left, the others to the right.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines: List[str] = []
    for row in rows:
        cells = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
