"""scripts/rerank.py: CTC models as judges of translations that another model made."""

import sys
from pathlib import Path

import pytest

from tests.command_lines.conftest import SENTENCES, make_sentences, translate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import rerank  # noqa: E402


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """A file in which the right translation of every sentence has the lower score; and the translations."""
    path, right = tmp_path_factory.mktemp("candidates") / "nbest", []
    with path.open("w") as stream:
        for number, source in enumerate(make_sentences(SENTENCES["valid"], 1)):
            right.append(translate(source))
            wrong = right[-1].split()
            wrong[0] = "b" if wrong[0] != "b" else "c"
            stream.write(f"{number}\t-0.1\t{' '.join(wrong)}\n{number}\t-0.9\t{right[-1]}\n")
    return path, right


def chosen(corpus, candidates, judge, out, *flags):
    arguments = [corpus, "--subset", "valid", "--candidates", candidates[0], "--judges", judge, "--out", out, *flags]
    code = rerank.main([str(argument) for argument in arguments])
    return code, dict(line.split("\t") for line in out.read_text().splitlines()) if out.exists() else {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_judge_that_knows_the_language_finds_the_right_translations(corpus, candidates, checkpoints, tmp_path, dtype):
    judge, right = checkpoints("ctc"), candidates[1]
    code, found = chosen(corpus, candidates, judge, tmp_path / "out", "--weight", 10, "--dtype", dtype)
    assert code == 0 and list(found) == [str(number) for number in range(len(right))]
    assert sum(found[str(number)] == text for number, text in enumerate(right)) >= 0.9 * len(right)


def test_without_weight_the_translator_decides(corpus, candidates, checkpoints, tmp_path):
    flags = ["--weight", 0, "--length-exponent", 1]
    _, found = chosen(corpus, candidates, checkpoints("ctc"), tmp_path / "out", *flags)
    assert not any(found[str(number)] == text for number, text in enumerate(candidates[1]))


def test_judges_can_be_checked_before_there_is_anything_to_judge(corpus, checkpoints, capsys):
    for alignment, code in (("ctc", 0), ("position", 1)):
        arguments = [str(corpus), "--judges", str(checkpoints(alignment)), "--check"]
        assert rerank.main(arguments) == code
        assert ("cannot judge" in capsys.readouterr().err) == bool(code)
    with pytest.raises(SystemExit):
        rerank.main(arguments[:-1])
    assert "--candidates and --out are needed" in capsys.readouterr().err


def test_wrong_input_is_one_sentence(corpus, candidates, checkpoints, tmp_path, capsys):
    out = tmp_path / "out"
    assert chosen(corpus, candidates, checkpoints("position"), out)[0] == 1
    assert "a judge must be a model of this plugin with --target-alignment ctc or dag" in capsys.readouterr().err
    (tmp_path / "other").write_text("1\ta b\n")
    assert chosen(corpus, (tmp_path / "other",), checkpoints("ctc"), out)[0] == 1
    assert "line 1 of" in capsys.readouterr().err
    (tmp_path / "other").write_text("99\t-1.0\ta b\n")
    assert chosen(corpus, (tmp_path / "other",), checkpoints("ctc"), out)[0] == 1
    assert "has a sentence 99, counted from 0, and valid of" in capsys.readouterr().err
    assert not out.exists()
