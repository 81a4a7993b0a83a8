"""What all tests share."""

from pathlib import Path
from typing import List

import pytest
import torch


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """The longest files first: of several processes none is left with one of them when the others have finished."""
    longest = ["test_demo.py", "command_lines", "scripts"]

    def place(item: pytest.Item) -> int:
        names = {item.path.name, item.path.parent.name}
        return next((number for number, name in enumerate(longest) if name in names), len(longest))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def user_dir() -> Path:
    """What fairseq's commands take as --user-dir."""
    return Path(__file__).resolve().parent.parent / "fairseq_convtext"
