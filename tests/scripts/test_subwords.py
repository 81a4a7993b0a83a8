import subprocess
import sys
from pathlib import Path

import sentencepiece

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments):
    command = [sys.executable, ROOT / "scripts" / "subwords.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def make_texts(folder):
    english = [f"the {a} {b} runs\u2028 home" for a in ("red", "big", "old") for b in ("dog", "cat", "fox")]
    (folder / "train.en").write_text("\n".join(english * 5) + "\n\n", encoding="utf-8")
    (folder / "train.de").write_text("der rote hund läuft heim\n" * 46, encoding="utf-8")


def test_lines_stay_lines_and_decode_to_themselves(tmp_path):
    make_texts(tmp_path)
    model, texts = tmp_path / "m.model", [tmp_path / "train.en", tmp_path / "train.de"]
    assert run("train", "--model", model, "--vocabulary", 60, *texts).returncode == 0
    assert run("encode", "--model", model, "--out", tmp_path / "pieces", *texts).returncode == 0
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    raw = (tmp_path / "train.de").read_text(encoding="utf-8").split("\n")
    pieces = (tmp_path / "pieces" / "train.de").read_text(encoding="utf-8").split("\n")
    assert [processor.decode(line.split(" ")) if line else "" for line in pieces] == raw
    english = (tmp_path / "pieces" / "train.en").read_text(encoding="utf-8").split("\n")
    assert len(english) == 47 and english[45] == ""


def test_a_model_that_exists_is_kept(tmp_path):
    make_texts(tmp_path)
    model = tmp_path / "m.model"
    model.write_bytes(b"mine")
    assert run("train", "--model", model, tmp_path / "train.en").returncode == 0
    assert model.read_bytes() == b"mine"


def test_a_vocabulary_too_large_for_the_text_is_one_line(tmp_path):
    make_texts(tmp_path)
    result = run("train", "--model", tmp_path / "m.model", "--vocabulary", 9000, tmp_path / "train.en")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "--vocabulary 9000" in last and "Traceback" not in result.stderr
    assert not (tmp_path / "m.model").exists()
