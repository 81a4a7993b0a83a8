"""Importing the plugin in an unfit environment, and loading checkpoints with torch's safe loader."""

import argparse
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest
import torch
from fairseq.distributed.utils import _TensorPlaceholder

from fairseq_convtext.compat import allow_safe_globals

GOOD_TORCH = "__version__ = '2.1.0+cpu'"


def import_plugin(user_dir: Path, folder: Path, **packages: str) -> str:
    """Import the plugin where nothing is installed but stub packages of the given names with the given code.

    Returns:
        The message of the ImportError, after seeing that it is one line and stands alone.
    """
    for name, code in packages.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code + "\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(user_dir.parent)])}
    # -S leaves site-packages out of the path.
    command = [sys.executable, "-S", "-c", "import fairseq_convtext"]
    result = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert result.stderr.count("Traceback") == 1, result.stderr
    assert "During handling" not in result.stderr
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: "), result.stderr
    return last_line


def test_missing_torch_gives_one_sentence(user_dir: Path, tmp_path: Path) -> None:
    assert "torch, which is not installed" in import_plugin(user_dir, tmp_path)


@pytest.mark.parametrize("version", ["1.13.1", "2.0.1+cu118"])
def test_old_torch_gives_one_sentence_with_both_versions(
    user_dir: Path, tmp_path: Path, version: str
) -> None:
    message = import_plugin(user_dir, tmp_path, torch=f"__version__ = '{version}'", fairseq="")
    assert "torch>=2.1" in message and f"found torch {version}" in message


def test_missing_or_unfit_numba_gives_one_sentence(user_dir: Path, tmp_path: Path) -> None:
    message = import_plugin(user_dir, tmp_path, torch=GOOD_TORCH, fairseq="")
    assert "needs numba" in message and "pip install" in message
    (tmp_path / "unfit").mkdir()
    unfit = {"torch": GOOD_TORCH, "fairseq": "", "numba": "raise ImportError('Numba needs NumPy 2.3 or less')"}
    assert "Numba needs NumPy 2.3 or less" in import_plugin(user_dir, tmp_path / "unfit", **unfit)


def test_missing_fairseq_gives_one_sentence_with_the_install_command(user_dir: Path, tmp_path: Path) -> None:
    message = import_plugin(user_dir, tmp_path, torch=GOOD_TORCH)
    assert "fairseq, which is not installed" in message
    assert ("ve-fairseq==0.12.3" if sys.version_info >= (3, 11) else "fairseq==0.12.2") in message


def test_fairseq_without_a_package_it_needs_names_that_package(user_dir: Path, tmp_path: Path) -> None:
    message = import_plugin(user_dir, tmp_path, torch=GOOD_TORCH, fairseq="import sklearn")
    assert "No module named 'sklearn'" in message


def test_fairseq_that_cannot_run_on_this_python_gives_one_sentence(user_dir: Path, tmp_path: Path) -> None:
    # How `import fairseq` ends with 0.12.2 on Python 3.11 and newer.
    failing = "raise ValueError(\"mutable default <class 'CommonConfig'> for field common is not allowed\")"
    message = import_plugin(user_dir, tmp_path, torch=GOOD_TORCH, fairseq=failing)
    assert f"does not run on Python {sys.version_info[0]}.{sys.version_info[1]}" in message
    assert "pip uninstall fairseq" in message


def test_folder_named_fairseq_is_not_taken_for_fairseq(user_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "fairseq").mkdir()
    message = import_plugin(user_dir, tmp_path, torch=GOOD_TORCH)
    assert f"The folder {tmp_path / 'fairseq'} is named fairseq" in message


@pytest.fixture
def default_safe_globals() -> Iterator[None]:
    """torch's own list of safe globals during the test, the list from before afterwards."""
    pytest.importorskip("torch", minversion="2.6", reason="older torch loads everything by default")
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def rename_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Replace a module name in a file of torch.save, as if written where the module has that name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(old, new) if name.endswith("/data.pkl") else data)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_checkpoint_content_of_either_numpy_loads_safely(
    default_safe_globals: None, tmp_path: Path, module: str
) -> None:
    content = {
        # What --eval-bleu leaves in the saved metrics.
        "counts": np.array([4, 3, 2, 1]),
        "numbers": [np.float64(0.5), np.float32(0.25), np.int64(7), np.bool_(True)],
        "args": argparse.Namespace(arch="bytenet_deconv", lr=[0.25]),
        "placeholder": _TensorPlaceholder(index=3),
        "weight": torch.ones(2),
    }
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    written = np.ndarray((0,)).__reduce__()[0].__module__.encode()
    rename_in_pickle(path, written, module.encode())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)

    allow_safe_globals()
    loaded = torch.load(path, weights_only=True)

    np.testing.assert_array_equal(loaded["counts"], content["counts"])
    assert loaded["counts"].dtype == content["counts"].dtype
    assert loaded["numbers"] == content["numbers"]
    assert [type(number) for number in loaded["numbers"]] == [type(number) for number in content["numbers"]]
    assert loaded["args"] == content["args"] and loaded["placeholder"] == content["placeholder"]


def test_what_is_not_listed_stays_refused(default_safe_globals: None, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"command": subprocess.Popen}, path)
    allow_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_importing_the_plugin_allows_the_safe_globals(user_dir: Path) -> None:
    pytest.importorskip("torch", minversion="2.6", reason="older torch loads everything by default")
    code = (
        "import argparse, torch, fairseq_convtext\n"
        "assert argparse.Namespace in torch.serialization.get_safe_globals()"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=user_dir.parent, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_scripts_ask_an_environment_that_none_has_asked_yet(user_dir: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    python = str(tmp_path / "bin" / "python")
    command = ["bash", "-c", f"source {user_dir.parent}/scripts/lib/env.sh && echo it will do"]

    def source(**checked: str) -> "subprocess.CompletedProcess[str]":
        env = {name: value for name, value in os.environ.items() if name not in ("CONVTEXT_CHECKED", "PYTHONPATH")}
        env.update(CONVTEXT_PYTHON=python, **checked)
        return subprocess.run(command, env=env, capture_output=True, text=True)

    for checked in ({}, {"CONVTEXT_CHECKED": sys.executable}):
        done = source(**checked)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith("error: CONVTEXT_PYTHON: fairseq_convtext needs torch, which is not installed")
    assert source(CONVTEXT_CHECKED=python).stdout == "it will do\n"
