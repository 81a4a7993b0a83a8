"""scripts/length_bound_coverage.py: shares counted by hand, for all alignments."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("fairseq")
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import length_bound_coverage as script  # noqa: E402

# Source tokens with EOS: 2, 3, 4. Needed by position: 2, 5, 4; by ctc: 1, 6, 3; by dag: 3, 6, 5.
SOURCE = ["a", "a b", "a b c"]
TARGET = ["x", "x x y y", "x y x"]


@pytest.fixture
def corpus(tmp_path):
    for language, lines in (("en", SOURCE), ("de", TARGET)):
        (tmp_path / f"train.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def grids(output: str) -> dict:
    """The printed tables: {first word of the title: {a: [cells]}}."""
    tables, rows = {}, None
    for line in output.split("\n"):
        words = line.split()
        if words and words[0].rstrip(":") in ("position", "ctc", "dag", "cost"):
            rows = tables.setdefault(words[0].rstrip(":"), {})
        elif words and rows is not None and words[0] != "a":
            rows[float(words[0])] = words[1:]
    return tables


def test_shares_by_hand(corpus, capsys):
    assert script.main([str(corpus / "train"), "en", "de", "--a", "1,1.5,2", "--b", "0,2"]) == 0
    tables = grids(capsys.readouterr().out)
    assert tables["position"] == {1.0: ["66.667", "all"], 1.5: ["all", "all"], 2.0: ["all", "all"]}
    assert tables["ctc"] == {1.0: ["66.667", "66.667"], 1.5: ["66.667", "all"], 2.0: ["all", "all"]}
    assert tables["cost"][1.0] == [f"{9 / 8:.2f}", f"{15 / 8:.2f}"]


def test_a_graph_has_an_upper_limit_too(corpus, capsys):
    # With jumps of up to 2 a path of one token ends within 5 positions, of four within 11, of three within 9.
    arguments = [str(corpus / "train"), "en", "de", "--a", "0", "--b", "2,3,5,6,9,10", "--longest-jump", "2"]
    assert script.main(arguments) == 0
    assert grids(capsys.readouterr().out)["dag"] == {0.0: ["0.000", "33.333", "66.667", "66.667", "66.667", "33.333"]}


def test_limit_cuts_the_bound(corpus, capsys):
    files = ["--source", str(corpus / "train.en"), "--target", str(corpus / "train.de")]
    assert script.main([*files, "--a", "9", "--b", "9", "--limit", "4"]) == 0
    tables = grids(capsys.readouterr().out)
    assert tables["position"] == {9.0: ["66.667"]} and tables["ctc"] == {9.0: ["66.667"]}


def test_single_loss_is_never_rounded_away():
    assert script.percent(100.0) == "all"
    assert script.percent(99.99999) == "99.999"


def test_faults_are_one_sentence(corpus, capsys):
    (corpus / "train.de").write_text("x\n", encoding="utf-8")
    assert script.main([str(corpus / "train"), "en", "de"]) == 1
    assert "has 3 lines" in capsys.readouterr().err
    for model in (corpus / "absent.model", corpus / "train.en"):
        assert script.main([str(corpus / "train"), "en", "de", "--spm", str(model)]) == 1
        assert "--spm" in capsys.readouterr().err


def test_spm_segments_plain_text(corpus, capsys):
    sentencepiece = pytest.importorskip("sentencepiece")
    text = corpus / "text"
    text.write_text("ab abc abcd ba ca da\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(corpus / "spm"), vocab_size=10, model_type="char", minloglevel=2
    )
    source, target = corpus / "a", corpus / "b"
    source.write_text("abc\n", encoding="utf-8")  # U+2581 a b c and EOS: 5
    target.write_text("aabb\n", encoding="utf-8")  # U+2581 a a b b: 5 tokens, 6 by position, 7 by ctc
    files = ["--source", str(source), "--target", str(target), "--spm", str(corpus / "spm.model")]
    assert script.main([*files, "--a", "1", "--b", "0,1,2"]) == 0
    tables = grids(capsys.readouterr().out)
    assert tables["position"] == {1.0: ["0.000", "all", "all"]}
    assert tables["ctc"] == {1.0: ["0.000", "0.000", "all"]}


def test_usage_errors_exit_with_2(capsys):
    for arguments in ([], ["train", "en"], ["--source", "x"], ["train", "en", "de", "--target", "y"]):
        with pytest.raises(SystemExit) as stop:
            script.main(arguments)
        assert stop.value.code == 2
