"""scripts/compare.py: the test is sacrebleu's, between the right sentences, and is told in plain words."""

import json
import os
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import compare  # noqa: E402

WORDS = "der die das ein Hund Mann Haus läuft steht blau Well-being , . \u201eso\u201c don't 3,5 U.S.".split()
COUNT = 120


def changed(lines, share: float, seed: int) -> list:
    """The lines, in which this share of the words is another one."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) if draw.random() < share else word for word in x.split()) for x in lines]


def write(path: Path, lines) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def generated(path: Path, hypotheses, references) -> str:
    """What fairseq-generate prints, sentences in another order."""
    blocks = [
        [f"S-{i}\tsource", f"T-{i}\t{r}", f"H-{i}\t-0.5\t{h}", f"D-{i}\t-0.5\t{h}", f"P-{i}\t-0.5"]
        for i, (h, r) in enumerate(zip(hypotheses, references))
    ]
    random.Random(5).shuffle(blocks)
    return write(path, [line for block in blocks for line in block])


@pytest.fixture(scope="module")
def texts() -> dict:
    draw = random.Random(1)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(6, 14))) for _ in range(COUNT)]
    worse = changed(references, 0.4, 2)
    return {
        "reference": references,
        "worse": worse,
        "better": changed(references, 0.2, 3),
        "like": [*changed(references[:4], 0.4, 4), *worse[4:]],
    }


@pytest.fixture
def files(tmp_path, texts) -> dict:
    return {name: write(tmp_path / name, lines) for name, lines in texts.items()}


def run(capsys, *arguments) -> dict:
    """The result of a run that must succeed."""
    assert compare.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys, *arguments) -> str:
    """The message of a run that must fail."""
    assert compare.main(list(map(str, arguments))) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and not output.out
    return output.err


def test_figures_are_those_of_the_sacrebleu_command(files, capsys):
    ours = run(capsys, "--reference", files["reference"], files["worse"], files["better"], "--seed", 7)["rows"]
    command = [sys.executable, "-m", "sacrebleu", files["reference"], "-i", files["worse"], files["better"]]
    command += ["-m", "bleu", "chrf", "--paired-bs", "--paired-bs-n", "1000", "-w", "4", "-f", "text"]
    environment = {**os.environ, "SACREBLEU_SEED": "7", "NO_COLOR": "1"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    # Cells such as "41.2 (41.1 ± 2.3)" with "(p = 0.0010)*" in the line below for all but the baseline.
    theirs = [tuple(map(float, cell)) for cell in re.findall(r"([\d.]+) \(([\d.]+) ± ([\d.]+)\)", printed)]
    expected = [(row[m]["score"], row[m]["mean"], row[m]["interval"]) for row in ours for m in ("BLEU", "chrF")]
    assert len(theirs) == 4
    for one, two in zip(theirs, expected):
        assert one == pytest.approx(two, abs=0.06)
    p_values = [float(text) for text in re.findall(r"p = ([\d.]+)", printed)][:2]
    assert p_values == pytest.approx([ours[1][m]["p"] for m in ("BLEU", "chrF")], abs=1e-3)


def test_clear_difference_is_significant_and_a_small_one_is_not(files, capsys):
    arguments = ["--reference", files["reference"], f"base={files['worse']}", files["better"], files["like"]]
    better, like = run(capsys, *arguments)["rows"][1:]
    assert better["BLEU"]["p"] < 0.01 < 0.05 < like["BLEU"]["p"]
    assert compare.main(arguments) == 0
    output = capsys.readouterr().out
    assert f"{files['better']} against base: " in output and "BLEU above it (p = 0.001, significant at 0.05)" in output
    assert "not significant" in output and "not corrected" in output


def test_equal_systems_do_not_look_different(files, capsys):
    arguments = ["--reference", files["reference"], f"a={files['worse']}", f"b={files['worse']}"]
    a, b = run(capsys, *arguments)["rows"]
    assert b["BLEU"]["p"] == 1 and a["BLEU"]["p"] is None
    for metric in ("BLEU", "chrF"):  # the same draws for both
        assert a[metric]["interval"] == pytest.approx(b[metric]["interval"])
    assert compare.main(arguments) == 0
    assert "b against a: the same BLEU and the same chrF." in capsys.readouterr().out


def test_samples_and_seed_decide_the_draws(files, capsys):
    def means(*flags) -> list:
        rows = run(capsys, "--reference", files["reference"], files["worse"], files["better"], *flags)["rows"]
        return [(row["BLEU"]["mean"], row["BLEU"]["signature"]) for row in rows]

    first = means("--samples", 50)
    assert first == means("--samples", 50, "--seed", 12345) != means("--samples", 50, "--seed", 1)
    assert "bs:50|seed:12345" in first[0][1]


def test_order_of_fairseq_output_does_not_matter(tmp_path, files, texts, capsys):
    plain = run(capsys, "--reference", files["reference"], f"a={files['worse']}", f"b={files['better']}")["rows"]
    outputs = [generated(tmp_path / f"{name}.gen", texts[name], texts["reference"]) for name in ("worse", "better")]
    assert run(capsys, f"a={outputs[0]}", f"b={outputs[1]}")["rows"] == plain
    assert run(capsys, f"a={outputs[0]}", f"b={files['better']}", "--reference", files["reference"])["rows"] == plain


def test_wrong_number_of_lines_is_an_error(tmp_path, files, texts, capsys):
    short = write(tmp_path / "short", texts["better"][:-1])
    message = failure(capsys, "--reference", files["reference"], files["worse"], short)
    assert f"{COUNT - 1} lines" in message and str(COUNT) in message
    outputs = [generated(tmp_path / f"{n}.gen", texts["better"][:n], texts["reference"][:n]) for n in (COUNT, 60)]
    assert f"60 sentences and {outputs[0]} has {COUNT}" in failure(capsys, *outputs)


def test_other_references_are_an_error(tmp_path, texts, capsys):
    others = [*texts["reference"][:3], "anders", *texts["reference"][4:]]
    one = generated(tmp_path / "one.gen", texts["better"], texts["reference"])
    two = generated(tmp_path / "two.gen", texts["better"], others)
    assert "T-3)" in failure(capsys, one, two)


def test_unusable_input_is_one_sentence(tmp_path, files, capsys):
    assert "--reference" in failure(capsys, files["worse"], files["better"])
    assert "no such file" in failure(capsys, tmp_path / "absent", files["better"], "--reference", files["reference"])
    assert "given twice" in failure(capsys, files["worse"], files["worse"], "--reference", files["reference"])
    assert "NAME=FILE" in failure(capsys, "=x", files["worse"], "--reference", files["reference"])


@pytest.mark.parametrize("arguments", [["one"], ["a", "b", "--seed", "0"], ["a", "b", "--detokenise"]])
def test_usage_errors_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        compare.main(arguments)
    assert stop.value.code == 2


def test_spread_is_mean_and_standard_deviation_of_the_files(files, capsys):
    names = ["worse", "better", "like"]
    arguments = ["--reference", files["reference"], *(files[name] for name in names), "--spread"]
    rows = run(capsys, *arguments)["rows"]
    assert [row["system"] for row in rows] == [*(files[name] for name in names), "mean", "standard deviation"]
    for metric in ("BLEU", "chrF"):
        scores = [row[metric] for row in rows[:3]]
        assert rows[3][metric] == pytest.approx(statistics.mean(scores))
        assert rows[4][metric] == pytest.approx(statistics.stdev(scores))
    assert compare.main(arguments) == 0
    assert "standard deviation" in capsys.readouterr().out
