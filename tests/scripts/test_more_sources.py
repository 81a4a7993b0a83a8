"""scripts/more_sources.py: which sentences a corpus has afterwards, and in which order."""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("fairseq")
from fairseq.data import indexed_dataset  # noqa: E402

from tests.small_model import make_dictionary  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import more_sources as script  # noqa: E402


@pytest.fixture
def corpus(tmp_path):
    """Two binarised sentences, their dictionary, and a text of two more."""
    dictionary = make_dictionary(9)
    dictionary.save(str(tmp_path / "dict.en.txt"))
    for language, lines in (("en", ["w1 w2", "w3"]), ("de", ["w4", "w5 w6 w7"])):
        prefix = tmp_path / f"train.{language}"
        builder = indexed_dataset.make_builder(f"{prefix}.bin", "mmap", vocab_size=len(dictionary))
        for line in lines:
            builder.add_item(dictionary.encode_line(line, add_if_not_exist=False).long())
        builder.finalize(f"{prefix}.idx")
    (tmp_path / "more.en").write_text("w8 w8\nw2 w1 w0\n", encoding="utf-8")
    return tmp_path, dictionary


def call(folder, *flags):
    more = ["--more", folder / "more.en", "--dictionary", folder / "dict.en.txt", "--out", folder / "out"]
    return script.main([str(argument) for argument in (folder / "train.en", *more, *flags)])


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_the_text_follows_as_many_copies_of_the_corpus_as_are_asked_for(corpus, copies, capsys):
    folder, dictionary = corpus
    targets = ["--targets", folder / "train.de", "--target-dictionary", folder / "dict.en.txt"]
    assert call(folder, "--copies", copies, *targets, "--target-text", folder / "targets") == 0
    made = indexed_dataset.make_dataset(str(folder / "out"), "mmap")
    expected = ["w1 w2", "w3"] * copies + ["w8 w8", "w2 w1 w0"]
    assert [dictionary.string(ids) for ids in made] == expected
    assert all(int(ids[-1]) == dictionary.eos() for ids in made)
    assert (folder / "targets").read_text().splitlines() == ["w4", "w5 w6 w7"] * copies
    assert capsys.readouterr().out == f"{len(expected)}\n"


def test_without_a_text_the_sentences_are_counted_and_nothing_is_written(corpus, capsys):
    folder, _ = corpus
    before = sorted(folder.iterdir())
    assert script.main([str(folder / "train.en")]) == 0
    assert capsys.readouterr().out == "2\n" and sorted(folder.iterdir()) == before


def test_a_text_in_other_subwords_is_refused(corpus, capsys):
    folder, _ = corpus
    (folder / "more.en").write_text("these are plain w1\n", encoding="utf-8")
    assert call(folder) == 1
    found = capsys.readouterr().err
    # EOS is the fifth token.
    assert re.search("^error: 3 of 5 tokens of .*more.en are not in .*dict.en.txt: give", found, re.MULTILINE)


def test_an_empty_line_is_refused(corpus, capsys):
    folder, _ = corpus
    (folder / "more.en").write_text("w1\n\n", encoding="utf-8")
    assert call(folder) == 1 and "line 2 of" in capsys.readouterr().err
