"""scripts/score.py: the scores are sacrebleu's own, and no sentence is lost or moved on the way."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import score  # noqa: E402

WORDS = "der die das ein Hund Mann Haus läuft steht blau Well-being , . \u201eso\u201c don't 3,5 U.S.".split()


def sentences(count: int, seed: int):
    """Random sentences, and a second version of each with one word changed."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(5, 14))) for _ in range(count)]
    hypotheses = []
    for line in references:
        words = line.split()
        words[draw.randrange(len(words))] = draw.choice(WORDS)
        hypotheses.append(" ".join(words))
    return hypotheses, references


def block(number: int, hypothesis: str, reference: str, detokenised=None, score_text="-0.5") -> list:
    """The lines of one sentence, as fairseq-generate prints them."""
    detokenised = hypothesis if detokenised is None else detokenised
    return [
        f"S-{number}\tsource",
        f"T-{number}\t{reference}",
        f"H-{number}\t{score_text}\t{hypothesis}",
        f"D-{number}\t{score_text}\t{detokenised}",
        f"P-{number}\t-0.5 -0.5",
    ]


def write(path: Path, lines) -> str:
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return str(path)


def generated(path: Path, hypotheses, references, **options) -> str:
    """An output with all sentences in the order of their ids."""
    rows = zip(hypotheses, references)
    return write(path, [line for i, (h, r) in enumerate(rows) for line in block(i, h, r, **options)])


def run(capsys, *arguments) -> dict:
    """The result of a run that must succeed."""
    assert score.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys, *arguments) -> str:
    """The message of a run that must fail."""
    assert score.main(list(map(str, arguments))) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and not output.out
    return output.err


def figures(result: dict) -> dict:
    return {key: result[key]["score"] for key in ("sacrebleu", "chrf", "tokenised_bleu")}


@pytest.fixture
def plain(tmp_path):
    """Fifty sentences as text files: (hypothesis file, reference file, hypotheses, references)."""
    hypotheses, references = sentences(50, seed=1)
    return write(tmp_path / "hyp", hypotheses), write(tmp_path / "ref", references), hypotheses, references


@pytest.mark.parametrize("lowercase", [False, True])
def test_scores_and_signatures_are_those_of_the_sacrebleu_command(plain, capsys, lowercase):
    hypothesis, reference = plain[:2]
    flags = ["--lowercase"] if lowercase else []
    ours = run(capsys, "--hypothesis", hypothesis, "--reference", reference, *flags)
    command = [sys.executable, "-m", "sacrebleu", reference, "-i", hypothesis, "-m", "bleu", "chrf"]
    command += ["-w", "6", *(["-lc", "--chrf-lowercase"] if lowercase else [])]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    for ours_key, theirs in zip(("sacrebleu", "chrf"), json.loads(printed.stdout)):
        assert ours[ours_key]["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours[ours_key]["signature"] == theirs["signature"]
    assert 0 < ours["sacrebleu"]["score"] < 100


def test_identical_text_scores_100(plain, capsys):
    result = run(capsys, "--hypothesis", plain[1], "--reference", plain[1])
    assert list(figures(result).values()) == pytest.approx([100.0] * 3)


def test_tokenised_bleu_by_hand(tmp_path, capsys):
    # Tokens: "a b c d e ." and "a b c d f ."; precisions 5/6, 3/5, 2/4, 1/3, equal lengths.
    files = write(tmp_path / "hyp", ["a b c d e."]), write(tmp_path / "ref", ["a b c d f."])
    result = run(capsys, "--hypothesis", files[0], "--reference", files[1], "--target-lang", "en")
    assert result["tokenised_bleu"]["score"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_moses_tokens_split_hyphens_and_keep_tokens_that_are_given(tmp_path, capsys):
    files = write(tmp_path / "hyp", ["x well-being y z w"]), write(tmp_path / "ref", ["x well being y z w"])
    arguments = ["--hypothesis", files[0], "--reference", files[1]]
    split, given = run(capsys, *arguments), run(capsys, *arguments, "--already-tokenised")
    assert split["tokenised_bleu"]["length_ratio"] == pytest.approx(7 / 6)  # well @-@ being
    assert given["tokenised_bleu"]["length_ratio"] == pytest.approx(5 / 6)


def test_tokenised_bleu_of_tokens_is_that_of_fairseq(plain, capsys):
    bleu = pytest.importorskip("fairseq.scoring.bleu")
    dictionary = pytest.importorskip("fairseq.data").Dictionary()
    scorer = bleu.Scorer(bleu.BleuConfig())
    for hypothesis, reference in zip(*plain[2:]):
        sides = (dictionary.encode_line(line, add_if_not_exist=True) for line in (reference, hypothesis))
        scorer.add(*(side.int() for side in sides))
    ours = run(capsys, "--hypothesis", plain[0], "--reference", plain[1], "--already-tokenised")
    assert ours["tokenised_bleu"]["score"] == pytest.approx(scorer.score(), abs=0.02)


def test_order_of_sentences_and_log_lines_do_not_matter(tmp_path, plain, capsys):
    hypotheses, references = plain[2:]
    expected = figures(run(capsys, "--hypothesis", plain[0], "--reference", plain[1]))
    blocks = [block(i, h, r) for i, (h, r) in enumerate(zip(hypotheses, references))]
    random.Random(3).shuffle(blocks)
    lines = [line for lines in blocks for line in ["2026-01-01 | INFO | fairseq_cli.generate | D-1", *lines]]
    lines.append("Generate test with beam=5: BLEU4 = 1.00")
    assert figures(run(capsys, write(tmp_path / "gen.out", lines))) == expected
    windows = write(tmp_path / "gen.crlf", [f"{line}\r" for line in lines])
    assert figures(run(capsys, "--generated", windows)) == expected


def test_wrong_pairing_would_be_seen(tmp_path, plain, capsys):
    swapped = write(tmp_path / "swapped", plain[2][::-1])
    right, wrong = (run(capsys, "--hypothesis", x, "--reference", plain[1]) for x in (plain[0], swapped))
    assert wrong["chrf"]["score"] < right["chrf"]["score"]


def pieces(line: str) -> str:
    """Like sentencepiece: every word in one or two pieces, the first with U+2581."""
    return " ".join("\u2581" + word[:2] + (" " + word[2:] if word[2:] else "") for word in line.split())


def subwords(line: str) -> str:
    return " ".join(word if len(word) < 4 else word[:2] + "@@ " + word[2:] for word in line.split())


@pytest.mark.parametrize("split, kind", [(pieces, "sentencepiece"), (subwords, "subword-nmt")])
@pytest.mark.parametrize("explicit", [False, True])
def test_subwords_are_joined_on_both_sides(tmp_path, plain, capsys, split, kind, explicit):
    hypotheses, references = plain[2:]
    expected = figures(run(capsys, "--hypothesis", plain[0], "--reference", plain[1]))
    path = generated(tmp_path / "gen.out", map(split, hypotheses), map(split, references))
    flags = ["--remove-subwords", kind] if explicit else []
    assert figures(run(capsys, path, *flags)) == expected
    # Plain references beside subword hypotheses stay as they are.
    assert figures(run(capsys, path, "--reference", plain[1], *flags)) == expected
    assert figures(run(capsys, path, "--remove-subwords", "none")) != expected


def test_plain_text_with_one_odd_mark_keeps_its_spaces():
    lines = ["a \u2581 b c", "d e f", "g h i"]
    assert score.remove_subwords(lines, "auto") == (lines, "none")


def test_empty_lines_do_not_hide_that_text_is_pieces():
    assert score.remove_subwords(["", "", "\u2581a b \u2581c"], "auto") == (["", "", "ab c"], "sentencepiece")


def test_detokenised_lines_are_preferred(tmp_path, capsys):
    lines = [line for i in range(3) for line in block(i, "das ist gut .", "x", detokenised="das ist gut.")]
    reference = write(tmp_path / "ref", ["das ist gut."] * 3)
    result = run(capsys, write(tmp_path / "gen.out", lines), "--reference", reference)
    assert result["sacrebleu"]["score"] == pytest.approx(100) and "hypotheses: D- lines" in result["notes"]


def test_of_an_n_best_list_the_first_is_scored(tmp_path, plain, capsys):
    hypotheses, references = plain[2:]
    lines = []
    for number, (hypothesis, reference) in enumerate(zip(hypotheses, references)):
        first = block(number, hypothesis, reference)
        lines += first + block(number, "ganz anders", reference, score_text="-0.9")[2:]
    result = run(capsys, write(tmp_path / "gen.out", lines))
    assert figures(result) == figures(run(capsys, "--hypothesis", plain[0], "--reference", plain[1]))
    assert any("n-best" in note and "50 others" in note for note in result["notes"])


def test_interactive_output_needs_references(tmp_path, plain, capsys):
    lines = []
    for number, hypothesis in enumerate(plain[2]):
        one = block(number, hypothesis, "")
        lines += [one[0], f"W-{number}\t0.010\tseconds", *one[2:]]
    path = write(tmp_path / "interactive.out", lines)
    assert "--reference" in failure(capsys, path)
    result = run(capsys, path, "--reference", plain[1])
    assert figures(result) == figures(run(capsys, "--hypothesis", plain[0], "--reference", plain[1]))


def test_empty_hypotheses_and_line_separators_keep_their_place(tmp_path, plain, capsys):
    hypotheses, references = ["", *plain[2], "a\u2028b\u0085c"], ["leer", *plain[3], "a\u2028b\u0085c"]
    files = write(tmp_path / "h", hypotheses), write(tmp_path / "r", references)
    expected = run(capsys, "--hypothesis", files[0], "--reference", files[1])
    result = run(capsys, generated(tmp_path / "gen.out", hypotheses, references))
    assert figures(result) == figures(expected) and result["sentences"] == 52
    assert "1 hypotheses are empty" in result["notes"]


def without(path: Path, lost: int) -> str:
    """Copy of a fairseq output that lacks one sentence."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return write(path.with_name("lost.out"), [line for line in lines if line[2:].split("\t")[0] != str(lost)])


@pytest.mark.parametrize("lost", [0, 500, 1012])
@pytest.mark.parametrize("known_from", ["--sentences", "--reference", "log"])
def test_one_lost_sentence_of_1013_is_an_error_that_names_the_cause(tmp_path, capsys, lost, known_from):
    hypotheses, references = sentences(1013, seed=2)
    whole = generated(tmp_path / "gen.out", hypotheses, references)
    path, flags = without(Path(whole), lost), []
    if known_from == "--sentences":
        flags = ["--sentences", "1013"]
    elif known_from == "--reference":
        flags = ["--reference", write(tmp_path / "ref", references)]
    else:
        log = "2026-01-01 | INFO | fairseq.tasks.translation | data-bin test en-de 1013 examples\n"
        for file in (whole, path):
            Path(file).write_text(log + Path(file).read_text(encoding="utf-8"), encoding="utf-8")
    message = failure(capsys, path, *flags)
    assert "lacks 1 of 1013" in message and f"missing: {lost})" in message
    assert "--required-batch-size-multiple 1" in message
    corpus = score.prepare(score.parse_options([whole, *flags]))
    assert len(corpus.hypotheses) == 1013


def test_gap_in_the_ids_is_seen_without_any_count(tmp_path, plain, capsys):
    path = generated(tmp_path / "gen.out", *plain[2:])
    assert "lacks 1 of 50" in failure(capsys, without(Path(path), 17))


def test_count_that_nobody_vouches_for_is_said(tmp_path, plain, capsys):
    path = generated(tmp_path / "gen.out", *plain[2:])
    assert any("--sentences" in note for note in run(capsys, path)["notes"])
    assert not any("--sentences" in note for note in run(capsys, path, "--sentences", 50)["notes"])


def test_wrong_counts_are_errors(tmp_path, plain, capsys):
    path = generated(tmp_path / "gen.out", *plain[2:])
    short = write(tmp_path / "short", plain[3][:-1])
    assert "--sentences says 49" in failure(capsys, path, "--sentences", 49)
    assert "50 sentences" in failure(capsys, path, "--reference", short)
    message = failure(capsys, "--hypothesis", plain[0], "--reference", short)
    assert "50 lines" in message and "49" in message
    files = ["--hypothesis", plain[0], "--reference", plain[1]]
    assert "--sentences says 51" in failure(capsys, *files, "--sentences", 51)


def test_output_that_is_cut_off_or_of_two_runs_is_refused(tmp_path, plain, capsys):
    path = Path(generated(tmp_path / "gen.out", *plain[2:]))
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert "cut off" in failure(capsys, write(tmp_path / "cut1", lines[:-1]))
    assert "cut off" in failure(capsys, write(tmp_path / "cut2", [*lines[:-3], "H-49\t-0.5"]))
    assert "several runs" in failure(capsys, write(tmp_path / "twice", lines + lines))


def test_unusable_files_are_one_sentence(tmp_path, plain, capsys):
    assert "no such file" in failure(capsys, tmp_path / "absent")
    assert "no line that starts with H-" in failure(capsys, plain[0])
    (tmp_path / "latin").write_bytes("größer\n".encode("latin-1"))
    assert "not UTF-8" in failure(capsys, "--hypothesis", tmp_path / "latin", "--reference", plain[1])
    (tmp_path / "none").write_bytes(b"")
    assert "empty" in failure(capsys, "--hypothesis", tmp_path / "none", "--reference", tmp_path / "none")


@pytest.mark.parametrize("arguments", [[], ["gen.out", "--hypothesis", "h"], ["--hypothesis", "h"]])
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        score.main(arguments)
    assert stop.value.code == 2


def test_unknown_words_in_references_are_said(tmp_path, plain, capsys):
    references = ["<<unk>> da", *plain[3][1:]]
    result = run(capsys, generated(tmp_path / "gen.out", plain[2], references))
    assert any("<<unk>>" in note for note in result["notes"])


def test_table_names_what_was_scored(plain, capsys):
    assert score.main(["--hypothesis", plain[0], "--reference", plain[1]]) == 0
    output = capsys.readouterr().out
    for part in ("sacreBLEU", "tok:13a", "chrF", "tokenised BLEU (Moses -a tokens, de, cased)"):
        assert part in output
    assert "50 sentences" in output
