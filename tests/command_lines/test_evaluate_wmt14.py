"""scripts/evaluate_wmt14.sh on the synthetic language: tuned, translated, scored, and nothing done twice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_lines.conftest import SENTENCES, make_sentences, translate

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate_wmt14.sh"


def evaluate(*arguments):
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        env={**os.environ, "CONVTEXT_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def data(corpus, tmp_path_factory):
    """The folders that scripts/prepare_wmt14_en_de.sh makes, in the language of the other tests."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "bin").symlink_to(corpus)
    (folder / "spm.model").touch()
    for kind in ("reference", "pieces"):
        (folder / kind).mkdir()
        for seed, (split, count) in enumerate(SENTENCES.items()):
            sources = make_sentences(count, seed)
            for language, lines in (("d", sources), ("l", map(translate, sources))):
                # The subwords of this language have no marks, so its text is their string without blanks.
                lines = [line if kind == "pieces" else line.replace(" ", "") for line in lines]
                (folder / kind / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_a_parallel_model_is_tuned_translated_and_scored_once(data, checkpoints, tmp_path):
    (tmp_path / "settings").write_text("row=bytenet_deconv arch=small\n")
    (tmp_path / "checkpoint_average.pt").write_bytes(checkpoints("ctc").read_bytes())
    first = evaluate("--data", data, "--run", tmp_path, "--beam", 4, "--cpu")
    assert first.returncode == 0, first.stderr[-2000:]
    for name in ("greedy", "search-4-lm"):
        assert len(re.findall("^H-", (tmp_path / name / "test.gen").read_text(), re.MULTILINE)) == SENTENCES["test"]
        assert re.search(rf"^{name}\n(.*\n)*?sacreBLEU +\d", first.stdout, re.MULTILINE)
    chrf = [float(score) for score in re.findall(r"^chrF +([\d.]+)", first.stdout, re.MULTILINE)]
    assert len(chrf) == 2 and min(chrf) > 90
    again = evaluate("--data", data, "--run", tmp_path, "--beam", 4, "--cpu")
    assert again.stdout == first.stdout and "+ fairseq-generate" not in again.stderr
    # Other data under the same name: their scores would be those of the first.
    (tmp_path / "greedy" / "settings").write_text("data=/other\n")
    other = evaluate("--data", data, "--run", tmp_path, "--beam", 4, "--cpu")
    assert other.returncode == 1 and "was made with other settings (data=/other; now data=" in other.stderr


def test_what_is_missing_is_named(data, tmp_path):
    for arguments, sentence in (
        (["--data", data], "--run is missing"),
        (["--data", tmp_path, "--run", tmp_path], "expected what scripts/prepare_wmt14_en_de.sh makes"),
        (["--data", data, "--run", tmp_path], "train with scripts/train_wmt14_en_de.sh first"),
        (["--data", data, "--run", tmp_path, "--beam", 1], "--beam must be a number from 2 on; found 1"),
    ):
        found = evaluate(*arguments)
        assert found.returncode in (1, 2) and sentence in found.stderr and len(found.stderr.splitlines()) == 1
