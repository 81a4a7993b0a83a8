"""scripts/lib/env.sh: how .venv is made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Makes environments that hold itself, and notes what pip is asked for.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*) echo "$*" >>"$PIP_NOTES" ;;
    *sysconfig*) echo "$SITE_PACKAGES" ;;
esac
"""


@pytest.mark.parametrize("bytecode, compiled", [({}, False), ({"PYTHONDONTWRITEBYTECODE": "1"}, True)])
def test_packages_are_compiled_where_python_would_compile_them_at_every_start(tmp_path, bytecode, compiled):
    shutil.copytree(ROOT / "scripts" / "lib", tmp_path / "scripts" / "lib")
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    python, notes = tmp_path / "bin" / "python3.11", tmp_path / "notes"
    python.parent.mkdir()
    (tmp_path / "site-packages").mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CONVTEXT_", "PYTHON"))}
    environment.update(PATH=f"{python.parent}:{os.environ['PATH']}", PIP_NOTES=str(notes), **bytecode)
    environment["SITE_PACKAGES"] = str(tmp_path / "site-packages")
    command = ["bash", "-ec", f'source {tmp_path}/scripts/lib/env.sh && echo "$PYTHON"']
    for _ in range(2):  # it is made once
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path}/.venv/bin/python\n"
        (asked,) = notes.read_text().splitlines()
    assert asked.startswith("-m pip install") and ("--no-compile" in asked) != compiled
