"""The corpus that ships with the project: its split law, its files, and how it is built and unpacked."""

import itertools
import lzma
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "demo_corpus.py"
SHIPPED = ROOT / "data-bin" / "demo"
sys.path.insert(0, str(ROOT / "scripts"))

import demo_corpus  # noqa: E402

SOURCES = ("lohelp", "ding")
SPLITS = ("train", "valid", "test")


def run(*arguments, cwd=None):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def fold(text):
    """What makes two lines near copies, written another way than in the script."""
    return re.sub(r"[\W\d_]+", "", text.casefold())


def word(number):
    """A different word of letters for each number."""
    return "".join(chr(ord("a") + number // 26**power % 26) for power in range(4))


@pytest.fixture(scope="module")
def shipped():
    return {
        (source, split): demo_corpus.read_pairs(SHIPPED / f"{source}.{split}.tsv.xz")
        for source in SOURCES
        for split in SPLITS
    }


# The shipped corpus


@pytest.mark.parametrize("column", [0, 1], ids=["english", "german"])
def test_no_line_of_the_shipped_corpus_has_a_near_copy_in_another_split(shipped, column):
    lines = {
        split: {fold(pair[column]) for source in SOURCES for pair in shipped[source, split]}
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not lines[one] & lines[other]


def test_no_held_out_sentence_of_the_shipped_corpus_stands_inside_a_longer_training_line(shipped):
    train = set()
    for source in SOURCES:
        for english, _ in shipped[source, "train"]:
            train.update(fold(sentence) for sentence in re.split(r"(?<=[.!?]) ", english))
    for source, split in itertools.product(SOURCES, ("valid", "test")):
        for english, _ in shipped[source, split]:
            if len(english.split()) >= 4:
                assert fold(english) not in train, english


def test_shipped_corpus_has_the_promised_sizes(shipped):
    for source, split in itertools.product(SOURCES, ("valid", "test")):
        assert len(shipped[source, split]) == 500
    assert len(shipped["lohelp", "train"]) > 40_000
    assert len(shipped["ding", "train"]) > 16_000
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 3_000_000


def test_shipped_corpus_holds_clean_lines_only(shipped):
    for (source, _), pairs in shipped.items():
        for pair in pairs:
            for text in pair:
                assert text and text == " ".join(text.split())
                assert re.search(r"[^\W\d_]{2}", text)
            assert fold(pair[0]) != fold(pair[1])
            if source == "ding":
                assert not re.search(r"[\[\]{}|/;]|\.\.\.|…", "".join(pair)), pair
        assert len(set(pairs)) == len(pairs)


def test_shipped_corpus_has_licences_and_an_honest_readme(shipped):
    for name in ("MPL-2.0.txt", "GPL-2.txt", "libreoffice-help-de.copyright", "trans-de-en.copyright"):
        assert (SHIPPED / "licences" / name).stat().st_size > 1000
    text = (SHIPPED / "README.md").read_text("utf-8")
    for source in SOURCES:
        assert f"| {len(shipped[source, 'train']):,} | 500 | 500 |" in text
    assert "libreoffice-help-en-us" in text and "4:7.4.7" in text


# Unpacking


def read_lines(path):
    text = path.read_text("utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


def read_unpacked(folder, name):
    return list(zip(read_lines(folder / f"{name}.en"), read_lines(folder / f"{name}.de")))


def test_unpack_gives_back_every_pair_once_and_the_same_files_each_time(shipped, tmp_path):
    result = run("unpack", "--corpus", SHIPPED, "--out", tmp_path / "a", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    train = read_unpacked(tmp_path / "a", "train")
    expected = shipped["lohelp", "train"] + shipped["ding", "train"]
    assert sorted(train) == sorted(expected) and train != expected
    for source, split in itertools.product(SOURCES, ("valid", "test")):
        assert read_unpacked(tmp_path / "a", f"{source}.{split}") == shipped[source, split]
    assert read_unpacked(tmp_path / "a", "valid") == shipped["lohelp", "valid"] + shipped["ding", "valid"]
    names = {f"{name}.{language}" for language in ("en", "de")
             for name in ("train", "valid", "lohelp.valid", "lohelp.test", "ding.valid", "ding.test")}
    assert {file.name for file in (tmp_path / "a").iterdir()} == names

    demo_corpus.unpack(SHIPPED, tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_limit_train_takes_a_mixed_beginning_of_the_training_lines(shipped, tmp_path):
    demo_corpus.unpack(SHIPPED, tmp_path, limit_train=2000)
    limited = read_unpacked(tmp_path, "train")
    assert len(limited) == 2000
    from_ding = len(set(limited) & set(shipped["ding", "train"]))
    assert 400 < from_ding < 800  # 29 % of all training pairs are from Ding
    demo_corpus.unpack(SHIPPED, tmp_path, limit_train=2500)
    assert read_unpacked(tmp_path, "train")[:2000] == limited


def damage_cut(data):
    return data[: len(data) // 2]


def damage_flip(data):
    return data[:-300] + bytes([data[-300] ^ 0xFF]) + data[-299:]


def damage_encoding(_):
    return lzma.compress(b"caf\xe9\tKaffee\n")


def damage_columns(_):
    return lzma.compress(b"one\tein\nno tab here\n")


def damage_empty_side(_):
    return lzma.compress(b"one\t \n")


def damage_all(_):
    return b""


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_flip, damage_encoding, damage_columns, damage_empty_side, damage_all]
)
def test_a_damaged_corpus_file_is_one_clear_sentence_and_nothing_is_written(tmp_path, damage):
    corpus = shutil.copytree(SHIPPED, tmp_path / "corpus")
    file = corpus / "ding.test.tsv.xz"
    file.write_bytes(damage(file.read_bytes()))
    result = run("unpack", "--corpus", corpus, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert len(result.stderr.strip().split("\n")) == 1
    assert "ding.test.tsv.xz is damaged" in result.stderr and "make_demo_corpus.sh" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_corpus_and_a_senseless_limit_are_refused(tmp_path):
    result = run("unpack", "--corpus", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert result.returncode == 1 and "nowhere" in result.stderr and "--corpus" in result.stderr
    (tmp_path / "empty").mkdir()
    result = run("unpack", "--corpus", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.returncode == 1 and "no such corpus file" in result.stderr
    assert "Traceback" not in result.stderr
    assert run("unpack", "--out", tmp_path / "out", "--limit-train", "0").returncode == 2


# Splitting and building


def made_up(prefix, count):
    words = map(word, range(count))
    return [(f"{prefix} {word} opens.", f"{prefix} {word} geht auf.") for word in words]


def test_pairs_with_near_copies_in_any_source_and_language_go_to_train():
    help_pairs, ding_pairs = made_up("Help", 60), made_up("Ding", 60)
    help_pairs += [
        ("Help AAAA, opens 3!", "Etwas anderes."),  # English near copy of help pair 0
        ("Something else.", "Help baaa geht auf 5"),  # German near copy of help pair 1
        ("First of all. Ding caaa opens.", "Zuerst."),  # too short a sentence to count
        ("All the rest. The Ding daaa opens.", "Alles andere."),
    ]
    ding_pairs += [("help - CAAA opens", "Noch etwas."), ("The Ding daaa opens!", "Das.")]
    corpus = demo_corpus.split_corpus({"lohelp": help_pairs, "ding": ding_pairs}, held_out=25)
    trained = set(corpus["lohelp"]["train"] + corpus["ding"]["train"])
    for source, pairs in (("lohelp", help_pairs), ("ding", ding_pairs)):
        splits = corpus[source]
        assert len(splits["valid"]) == len(splits["test"]) == 25
        assert sorted(splits["train"] + splits["valid"] + splits["test"]) == sorted(pairs)
    assert {help_pairs[0], help_pairs[1], help_pairs[2], help_pairs[60], help_pairs[61]} <= trained
    assert {help_pairs[63], *ding_pairs[60:]} <= trained


def test_a_grown_source_keeps_most_of_its_test_set():
    small = demo_corpus.split_corpus({"ding": made_up("Ding", 1000)}, held_out=100)["ding"]
    grown = demo_corpus.split_corpus({"ding": made_up("Ding", 1050)}, held_out=100)["ding"]
    assert len(set(small["test"]) & set(grown["test"])) > 80


def test_too_small_a_source_is_refused():
    with pytest.raises(demo_corpus.CorpusError, match="ding has 9 .* need 10"):
        demo_corpus.split_corpus({"ding": made_up("Ding", 9)}, held_out=5)


def test_build_gives_the_same_bytes_each_time_and_unpacks_again(tmp_path):
    for language, column in (("en", 0), ("de", 1)):
        (tmp_path / language).mkdir()
        blocks = (f'<p id="{number}">{pair[column]}</p>' for number, pair in enumerate(made_up("Help", 1010)))
        (tmp_path / language / "page.html").write_text("\n".join(blocks), encoding="utf-8")
    ding = tmp_path / "de-en"
    ding.write_text("".join(f"{german} :: {english}\n" for english, german in made_up("Ding", 1005)), "utf-8")
    arguments = ["build", "--help-en", tmp_path / "en", "--help-de", tmp_path / "de", "--ding", ding,
                 "--package", "trans-de-en", "1.9", "abc"]
    results = [run(*arguments, "--out", tmp_path / name) for name in ("one", "two")]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(files) == 7
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "| `trans-de-en` | `1.9` | `abc` |" in (tmp_path / "one" / "README.md").read_text("utf-8")
    demo_corpus.unpack(tmp_path / "one", tmp_path / "text")
    assert len(read_unpacked(tmp_path / "text", "train")) == 15


def test_build_names_the_input_that_is_missing(tmp_path):
    arguments = ["build", "--help-en", tmp_path, "--help-de", tmp_path / "gone", "--ding", tmp_path / "de-en"]
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.returncode == 1 and "gone" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_make_demo_corpus_refuses_bad_arguments_before_it_works(tmp_path):
    script = ROOT / "scripts" / "make_demo_corpus.sh"

    def make(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
        command = ["bash", str(script), *folders, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert make("--nonsense").returncode == 2
    assert make("--debs").returncode == 2
    result = make("--debs", str(tmp_path / "none"))
    assert result.returncode == 1 and "none" in result.stderr
    result = make("--debs", str(tmp_path))
    assert result.returncode == 1 and "libreoffice-help-en-us" in result.stderr
    assert not (tmp_path / "out").exists()
