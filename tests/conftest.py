"""What all tests share."""

from pathlib import Path
from typing import List

import pytest
import torch


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Command lines first: of several processes none is left with the longest files when the others have finished."""
    items.sort(key=lambda item: item.path.parent.name not in ("command_lines", "scripts"))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def user_dir() -> Path:
    """What fairseq's commands take as --user-dir."""
    return Path(__file__).resolve().parent.parent / "fairseq_convtext"
