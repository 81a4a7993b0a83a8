import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "sample_sentences.py"
TEXT = [
    f"a {size} {color} {animal} runs over the {place} ."
    for size in ("big", "small", "tall")
    for color in ("red", "black")
    for animal in ("dog", "cat", "horse")
    for place in ("street", "field")
    if len(size + animal + place) % 3 or color == "red"
]


def sample(folder, *arguments):
    (folder / "text").write_text("".join(f"{line}\n" for line in TEXT), encoding="utf-8")
    command = [sys.executable, SCRIPT, folder / "text", "--out", folder / "more", *arguments]
    found = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    more = folder / "more"
    return found, more.read_text(encoding="utf-8").splitlines() if more.exists() else []


def test_sentences_are_new_different_and_made_of_the_texts_n_grams(tmp_path):
    text = [line.split() for line in TEXT]
    pairs = {pair for words in text for pair in zip(["<s>", *words], [*words, "</s>"])}
    done, more = sample(tmp_path, "--count", 3, "--freedom", 1)
    assert done.returncode == 0, done.stderr
    assert len(more) == len(set(more)) == 3 and not set(more) & set(TEXT)
    for line in more:
        words = line.split()
        assert pairs >= set(zip(["<s>", *words], [*words, "</s>"]))


def test_the_seed_decides(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    first = sample(tmp_path / "a", "--count", 3, "--freedom", 1, "--seed", 4)[1]
    assert first == sample(tmp_path / "b", "--count", 3, "--freedom", 1, "--seed", 4)[1]
    assert first != sample(tmp_path / "c", "--count", 3, "--freedom", 1, "--seed", 5)[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--count", 100000], "error: the text has too few n-grams in common for --count 100000: after "),
        (["--count", 0], "error: --count must be positive; found 0"),
        (["--count", 1, "--longest", 3], "error: --longest must be at least 4, the fewest words; found 3"),
        (["--count", 1, "--freedom", 2], "error: --freedom is a probability, from 0 to 1; found 2.0"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path, arguments, message):
    done, more = sample(tmp_path, *arguments)
    assert done.returncode == 1 and message in done.stderr and not more
