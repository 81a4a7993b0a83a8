import os
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


def test_a_model_that_exists_is_kept_if_it_is_what_was_asked_for(tmp_path):
    make_texts(tmp_path)
    model, command = tmp_path / "m.model", ["train", "--model", tmp_path / "m.model", tmp_path / "train.de"]
    assert run(*command, "--vocabulary", 30).returncode == 0
    before = model.stat()
    again = run(*command, "--vocabulary", 30)
    assert again.returncode == 0 and "is kept" in again.stdout and model.stat().st_mtime_ns == before.st_mtime_ns
    other = run(*command, "--vocabulary", 31)
    assert other.returncode == 1 and "has 30 pieces, not 31 (--vocabulary): remove it" in other.stderr
    model.write_bytes(b"mine")
    for words in (command, ["encode", "--model", model, "--out", tmp_path / "pieces", tmp_path / "train.de"]):
        wrong = run(*words)
        assert wrong.returncode == 1 and wrong.stderr == f"error: {model} is no sentencepiece model\n"


def test_subwords_are_made_anew_when_their_text_is_younger_and_else_kept(tmp_path):
    make_texts(tmp_path)
    model, text, pieces = tmp_path / "m.model", tmp_path / "train.de", tmp_path / "pieces" / "train.de"
    assert run("train", "--model", model, "--vocabulary", 30, text).returncode == 0
    encode = ["encode", "--model", model, "--out", pieces.parent, text]
    assert run(*encode).returncode == 0
    before = pieces.stat()
    assert f"{pieces} exists and is kept" in run(*encode).stderr and pieces.stat().st_mtime_ns == before.st_mtime_ns
    text.write_text("heim\n")
    os.utime(text, (before.st_mtime + 5, before.st_mtime + 5))
    assert run(*encode).returncode == 0
    assert pieces.read_text().replace(" ", "").strip("\n▁") == "heim"


def test_texts_of_one_name_are_refused_before_one_overwrites_the_other(tmp_path):
    make_texts(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.de").write_text("heim\n")
    model, texts = tmp_path / "m.model", [tmp_path / "train.de", tmp_path / "other" / "train.de"]
    assert run("train", "--model", model, "--vocabulary", 30, texts[0]).returncode == 0
    result = run("encode", "--model", model, "--out", tmp_path / "pieces", *texts)
    assert result.returncode == 1 and "two texts are called train.de" in result.stderr
    assert not (tmp_path / "pieces").exists()


def test_a_vocabulary_too_large_for_the_text_is_one_line(tmp_path):
    make_texts(tmp_path)
    result = run("train", "--model", tmp_path / "m.model", "--vocabulary", 9000, tmp_path / "train.en")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "--vocabulary 9000" in last and "Traceback" not in result.stderr
    assert not (tmp_path / "m.model").exists()


def test_a_text_is_never_overwritten_by_its_subwords(tmp_path):
    make_texts(tmp_path)
    model, text = tmp_path / "m.model", tmp_path / "train.de"
    before = text.read_bytes()
    assert run("train", "--model", model, "--vocabulary", 30, text).returncode == 0
    result = run("encode", "--model", model, "--out", tmp_path, text)
    assert result.returncode == 1 and "which its subwords would overwrite" in result.stderr
    assert text.read_bytes() == before
