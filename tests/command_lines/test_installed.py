"""An installed project does without --user-dir where a checkpoint names the model, and is in nobody's way."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fairseq_convtext
from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import ALIGNMENTS
from tests.command_lines.processes import start

PACKAGE = Path(fairseq_convtext.__file__).parent
PROJECT = PACKAGE.parent
PLUGIN = PACKAGE / "hydra_plugin" / "__init__.py"
BATCHES = ["--batch-size", 64, "--required-batch-size-multiple", 1, "--num-workers", 0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that pip installed the project into; built from a copy, as pip writes into what it builds."""
    for needed in ("pip", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    if int(importlib.metadata.version("setuptools").split(".")[0]) <= 70 and importlib.util.find_spec("wheel") is None:
        pytest.skip("wheel, which setuptools needs before version 71, is not installed")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(PROJECT / name, source)
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / "fairseq_convtext", ignore=without_caches)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", target, source], check=True)
    return target


@pytest.fixture(scope="module")
def checkpoint(train, tmp_path_factory):
    """The checkpoint of one update."""
    folder = tmp_path_factory.mktemp("untrained")
    train(folder, 1, *ALIGNMENTS["ctc"])
    return folder / "checkpoint_last.pt"


@pytest.fixture
def run_installed(installed, tmp_path, monkeypatch):
    """``run_installed(command, *arguments)``: what the command writes to standard output, the project being there."""
    monkeypatch.setenv("PYTHONPATH", str(installed))

    def call(command, *arguments):
        process = start(command, *arguments, folder=tmp_path)
        output, errors = process.communicate()
        assert process.returncode == 0, f"exit code {process.returncode}: {errors}"
        assert "Hydra plugin" not in errors and "Error importing" not in errors
        return output

    return call


def test_the_plugin_shares_hydra_s_namespace_with_other_plugins(installed):
    assert [path.name for path in (installed / "hydra_plugins").iterdir()] == ["fairseq_convtext_autoload"]
    assert not (installed / "fairseq_convtext" / "hydra_plugin").exists()


@pytest.mark.parametrize("with_user_dir", [False, True])
def test_generating_needs_no_user_dir_and_takes_that_of_a_checkout(
    run_installed, corpus, user_dir, checkpoint, with_user_dir
):
    flags = [corpus, "--path", checkpoint, "--gen-subset", "valid", *BATCHES]
    wanted = lines(run("generate", *flags, "--user-dir", user_dir), "H")
    assert len(wanted) == 61
    found = run_installed("generate", *flags, *(["--user-dir", user_dir] if with_user_dir else []))
    assert lines(found, "H") == wanted


def test_interactive_and_validate_need_no_user_dir(run_installed, corpus, checkpoint, tmp_path):
    (tmp_path / "input").write_text("1 2 3\n4 5\n", encoding="utf-8")
    output = run_installed("interactive", corpus, "--path", checkpoint, "--input", tmp_path / "input")
    assert list(lines(output, "H")) == [0, 1]
    run_installed("validate", corpus, "--path", checkpoint, "--task", "translation", *BATCHES)


def test_training_takes_the_user_dir_of_a_checkout(run_installed, corpus, user_dir, tmp_path):
    flags = ["--arch", "bytenet_deconv_tiny", "--encoder-channels", 16, "--encoder-layers", 1, *ALIGNMENTS["ctc"]]
    # A whole epoch: a normal exit from the middle of one often aborts, when fairseq's threads are in torch.
    flags += ["--decoder-layers", 1, "--optimizer", "adam", "--max-epoch", 1, "--no-save", "--save-dir", tmp_path]
    run_installed("train", corpus, "--user-dir", user_dir, *flags, *BATCHES)


@pytest.mark.parametrize("with_user_dir", [False, True])
def test_the_environment_of_the_scripts_needs_no_user_dir_either(
    corpus, user_dir, checkpoint, tmp_path, monkeypatch, with_user_dir
):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    bash = f'source {PROJECT}/scripts/lib/env.sh && convtext_point_to_checkout "$1"'
    environment = {**os.environ, "CONVTEXT_PYTHON": sys.executable}
    subprocess.run(["bash", "-c", bash, "bash", tmp_path / "venv"], check=True, env=environment)
    # What the environment would hold besides: the packages of the one that runs this.
    monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    flags = [corpus, "--path", checkpoint, "--gen-subset", "valid", *BATCHES]
    process = start("generate", *flags, *(["--user-dir", user_dir] if with_user_dir else []), folder=tmp_path)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(lines(output, "H")) == 61


@pytest.fixture
def run_plugin(tmp_path, monkeypatch):
    """``run_plugin(program)``: whether the plugin imports, in that program, a package that only claims our name."""
    package = tmp_path / "fairseq_convtext"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fairseq_convtext")

    def call(program):
        monkeypatch.setattr(sys, "argv", [program])
        spec = importlib.util.spec_from_file_location("plugin", PLUGIN)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return "fairseq_convtext" in sys.modules

    return call


@pytest.mark.parametrize(
    "program", ["bin/fairseq-generate", "fairseq-interactive.exe", "bin/fairseq-validate", "fairseq_cli/generate.py"]
)
def test_the_plugin_imports_the_package_in_a_command_that_loads_checkpoints(run_plugin, program):
    assert run_plugin(program)


# fairseq-hydra-train reads its user dir only after Hydra looked for plugins: another copy would be refused then.
@pytest.mark.parametrize("program", ["", "train.py", "bin/fairseq-hydra-train", "fairseq_cli/hydra_validate.py"])
def test_the_plugin_does_nothing_in_another_program(run_plugin, program):
    assert not run_plugin(program)


def test_the_plugin_does_nothing_without_fairseq(run_plugin, monkeypatch):
    monkeypatch.delitem(sys.modules, "fairseq")
    assert not run_plugin("bin/fairseq-generate")


def test_the_plugin_leaves_a_user_dir_alone_that_is_being_imported(run_plugin, monkeypatch):
    half = type(sys)("fairseq_convtext")
    monkeypatch.setitem(sys.modules, "fairseq_convtext", half)
    run_plugin("bin/fairseq-generate")
    assert sys.modules["fairseq_convtext"] is half


@pytest.mark.parametrize("error", ["ImportError", "ValueError"])
def test_a_package_that_cannot_be_imported_breaks_no_command(run_plugin, tmp_path, capfd, error):
    (tmp_path / "fairseq_convtext" / "__init__.py").write_text(f"raise {error}('no torch')", encoding="utf-8")
    assert not run_plugin("bin/fairseq-generate")
    assert capfd.readouterr() == ("", "")
