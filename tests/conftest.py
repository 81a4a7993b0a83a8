"""What all tests share."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def user_dir() -> Path:
    """What fairseq's commands take as --user-dir."""
    return Path(__file__).resolve().parent.parent / "fairseq_convtext"
