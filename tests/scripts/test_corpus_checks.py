"""scripts/corpus_checks.py: every fault of a corpus is one sentence that says where it is."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import corpus_checks  # noqa: E402

GOOD = b"one\ntwo\nthree\n"


@pytest.fixture
def corpus(tmp_path):
    """A function that writes both sides as bytes and returns the arguments of the command."""

    def write(source=GOOD, target=GOOD):
        for language, content in (("en", source), ("de", target)):
            if content is not None:
                (tmp_path / f"train.{language}").write_bytes(content)
        return [str(tmp_path / "train"), "en", "de"]

    return write


def failure(arguments, capsys) -> str:
    """The error message of a run that must fail."""
    assert corpus_checks.main(arguments) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def test_good_corpus_passes_without_warning(corpus, capsys):
    assert corpus_checks.main(corpus()) == 0
    output = capsys.readouterr()
    assert "3 pairs" in output.out and not output.err


@pytest.mark.parametrize("side", ["en", "de"])
def test_missing_file_is_named(corpus, capsys, side):
    contents = {"en": GOOD, "de": GOOD, side: None}
    message = failure(corpus(contents["en"], contents["de"]), capsys)
    assert "no such file" in message and f"train.{side}" in message


def test_directory_instead_of_file_is_named(corpus, capsys, tmp_path):
    (tmp_path / "train.de").mkdir()
    assert "not a file" in failure(corpus(target=None), capsys)


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b" \n\t\n \n"])
def test_file_without_text_is_empty(corpus, capsys, content):
    message = failure(corpus(target=content), capsys)
    assert "train.de is empty" in message


def test_unequal_line_counts_show_both_numbers(corpus, capsys):
    message = failure(corpus(target=GOOD + b"four\n"), capsys)
    assert "train.en has 3 lines" in message and "train.de has 4" in message


@pytest.mark.parametrize("line, byte", [("Stra\u00dfe".encode("latin-1"), "0xDF"), (b"\xff\xfeo", "0xFF")])
def test_wrong_encoding_names_line_and_byte(corpus, capsys, line, byte):
    message = failure(corpus(target=b"eins\n" + line + b"\ndrei\n"), capsys)
    assert "not UTF-8" in message and "line 2" in message and byte in message


def test_carriage_return_inside_a_line_is_refused(corpus, capsys):
    # fairseq-preprocess would count four lines here.
    assert "line 2" in failure(corpus(target=b"one\ntw\ro\nthree\n"), capsys)


def test_empty_lines_are_counted_and_allowed(corpus, capsys):
    assert corpus_checks.main(corpus(source=b"one\n\nthree\n  \n", target=GOOD + b"four")) == 0
    output = capsys.readouterr()
    assert "warning: 2 empty lines" in output.err and "first is line 2" in output.err
    assert "4 pairs" in output.out


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("a\u2028b\u0085c\x0bd\x0ce\r\nlast, without line feed".encode())
    assert corpus_checks.read_lines(path) == ["a\u2028b\u0085c\x0bd\x0ce", "last, without line feed"]
    assert corpus_checks.check_file(path).lines == 2
