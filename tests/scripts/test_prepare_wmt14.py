"""scripts/prepare_wmt14_en_de.sh from archives of the official layout to data for training, and what can go wrong."""

import hashlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

pytest.importorskip("fairseq")
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))
import wmt14_archives  # noqa: E402
import wmt14_clean  # noqa: E402
import wmt14_sources  # noqa: E402
from corpus_checks import InputError  # noqa: E402
from wmt14_text import clean_line, fault, length_fault, subword_fault, tokeniser  # noqa: E402

WORDS = [("house", "Haus"), ("garden", "Garten"), ("river", "Fluss"), ("window", "Fenster"), ("tree", "Baum"),
         ("night", "Nacht"), ("bridge", "Brücke"), ("letter", "Brief"), ("summer", "Sommer"), ("city", "Stadt"),
         ("school", "Schule"), ("water", "Wasser"), ("music", "Musik"), ("street", "Straße")]  # fmt: skip
PAIRS = {"europarl-v7": 90, "commoncrawl": 60, "news-commentary-v9": 40, "newstest2013": 12, "newstest2014": 15}
REJECTED = [
    ("", "Leer."),
    ("The script is foreign.", "Die Schrift ist иностранный."),
    ("The text of this side is English.", "And the text of that side is English, too."),
    ("Short.", "Dieser Satz hat mit dem kurzen Wort auf der anderen Seite gar nichts zu tun, er ist viel länger."),
]


def sentences(count, seed):
    """Pairs of a toy language, with a character that fairseq and codecs take for a line end now and then."""
    numbers = random.Random(seed)
    pairs = []
    for index in range(count):
        chosen = numbers.choices(WORDS, k=5)
        english, german = (" ".join(words) for words in zip(*chosen))
        end = ("\r" if index % 7 == 0 else " ") + f"{index}{seed}"
        pairs.append((f"I see the {english}{end}.", f"Ich sehe hier {german}{end}."))
    return pairs


def text_of(name):
    """The pairs of a source; Common Crawl also has what the filters remove and a pair of Europarl."""
    pairs = sentences(PAIRS[name], sorted(PAIRS).index(name) + 1)
    return pairs + REJECTED + text_of("europarl-v7")[:1] if name == "commoncrawl" else pairs


def sgm(lines):
    segments = "".join(f'<seg id="{number}"> {line} </seg>\n' for number, line in enumerate(lines, start=1))
    return f'<srcset setid="newstest2014" srclang="any">\n<doc docid="d">\n<p>\n{segments}</p>\n</doc>\n</srcset>\n'


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Small archives under the official names, and the file that says what they hold."""
    folder = tmp_path_factory.mktemp("mirror")
    described = []
    for archive in wmt14_archives.chosen("v9"):
        sides = dict(zip(("en", "de"), zip(*text_of(archive.name))))
        files = {"training/README": "not wanted\n", "training/europarl-v7.fr-en.en": "not wanted\n"}
        for language, lines in sides.items():
            for side in ("src", "ref"):
                member = archive.member.format(language=language, side=side)
                files[member] = sgm(lines) if member.endswith(".sgm") else "".join(line + "\n" for line in lines)
        path = folder / archive.file
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content.encode())
                tar.addfile(info, io.BytesIO(content.encode()))
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        described.append(f"{archive.file} {path.stat().st_size} {digest} {len(sides['en'])}")
    (folder / "expected").write_text("\n".join(described) + "\n")
    return folder


def archives(mirror):
    return wmt14_archives.read_expected(mirror / "expected", wmt14_archives.chosen("v9"))


def start(out, mirror, *arguments):
    command = [ROOT / "scripts" / "prepare_wmt14_en_de.sh", "--out", out, "--downloads", out / "downloads"]
    command += ["--workers", 2, "--shard-pairs", 25, "--vocabulary", 120]
    if mirror:
        command += ["--mirror", mirror.as_uri(), "--expected", mirror / "expected"]
    return subprocess.Popen(
        [*map(str, command), *map(str, arguments)],
        env={**os.environ, "CONVTEXT_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        cwd=out.parent,  # it must work from anywhere
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run(out, mirror, *arguments):
    """Exit code, standard output and standard error."""
    process = start(out, mirror, *arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def kill_when(path, out, mirror):
    """Start, and kill the whole process group as soon as ``path`` is there."""
    process = start(out, mirror)
    end = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"never saw {path}"
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def results(out):
    """What a preparation made, but for logs: {name: bytes}."""
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".log"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def read(path):
    return path.read_bytes().decode().split("\n")[:-1]


def test_official_archives_become_data_for_training_also_when_killed_again_and_again(mirror, tmp_path):
    code, output, errors = run(tmp_path / "whole", mirror)
    assert code == 0, errors[-2000:]
    kept = sum(PAIRS[name] for name in ("europarl-v7", "commoncrawl", "news-commentary-v9"))
    rows = {row.split()[0]: row.split() for row in output.splitlines() if row.strip()}
    assert rows["commoncrawl"] == ["commoncrawl", "65", "0", "1", "1", "1", "0", "1", "1", "60"]
    assert rows["all"][-1] == rows["train"][1] == str(kept)
    assert rows["valid"][1] == "12" and rows["test"][1] == "15"
    text = tmp_path / "whole" / "text"
    train = list(zip(read(text / "train.en"), read(text / "train.de")))
    assert train[:90] == [(clean_line(english), clean_line(german)) for english, german in text_of("europarl-v7")]
    assert read(text / "test.de") == [clean_line(german) for _, german in text_of("newstest2014")]
    assert (tmp_path / "whole" / "bin" / "train.en-de.de.idx").stat().st_size > 0

    killed = tmp_path / "killed"
    for sign in ("shards", "bin.part"):
        kill_when(killed / sign, killed, mirror)
    code, again, errors = run(killed, mirror)
    assert code == 0, errors[-2000:]
    assert again.replace("/killed", "/whole") == output  # nothing but the table
    assert results(killed) == results(tmp_path / "whole")

    code, _, errors = run(killed, mirror, "--direction", "de-en")
    assert code == 1 and "was made with other settings" in errors


def test_the_tokenised_route_from_german_to_english_on_a_local_corpus(tmp_path, monkeypatch):
    long = ("I see " + "very " * 260 + "much.", "Ich sehe " + "sehr " * 260 + "viel.")
    lists = {"train": [*text_of("europarl-v7"), long, ("Yes, I don't see it.", "Ja.")], "valid": sentences(5, 7)}
    lists["test"] = [*sentences(5, 8), ("It’s “here”.", "Es ist „hier“.")]
    for split, pairs in lists.items():
        for side, language in enumerate(("en", "de")):
            text = "".join(pair[side].replace("\r", " ") + "\n" for pair in pairs)
            (tmp_path / f"{split}.{language}").write_text(text, encoding="utf-8")
    arguments = ["--corpus", tmp_path / "train", "--valid", tmp_path / "valid", "--test", tmp_path / "test"]
    out = tmp_path / "out"
    code, output, errors = run(out, None, "--route", "tokenised", "--direction", "de-en", *arguments)
    assert code == 0, errors[-2000:]
    rows = {row.split()[0]: row.split() for row in output.splitlines() if row.strip()}
    assert rows["all"] == ["all", "92", "0", "0", "0", "0", "1", "1", "0", "90"]
    assert read(out / "text" / "test.en")[-1] == "It &apos;s “ here ” ."  # as papers have it: quotes stay
    pieces = zip(read(out / "pieces" / "train.en"), read(out / "text" / "train.en"))
    assert all(piece.replace("@@ ", "") == text for piece, text in pieces)
    assert {"bin/train.de-en.de.bin", "bin/test.de-en.en.idx", "bpe.codes"} <= set(results(out))
    assert not (out / "encoded").exists() and not (out / "clean").exists()
    # Called otherwise, the same files are the same corpus.
    monkeypatch.chdir(tmp_path)
    again = ["--corpus", "train", "--valid", "valid", "--test", "test"]
    code, _, errors = run(out, None, "--route", "tokenised", "--direction", "de-en", *again)
    assert code == 0, errors[-2000:]
    # And other files of the same name are another one.
    (tmp_path / "test.de").write_text("Anders.\n" * 6, encoding="utf-8")
    code, _, errors = run(out, None, "--route", "tokenised", "--direction", "de-en", *again)
    assert code == 1 and "was made with other settings" in errors


def test_a_short_disk_is_noticed_before_anything_is_downloaded(mirror, tmp_path):
    lines = (mirror / "expected").read_text().splitlines()
    lines[0] = re.sub(r" \d+ ", " 1000000000000000 ", lines[0], count=1)
    (tmp_path / "expected").write_text("\n".join(lines) + "\n")
    code, _, errors = run(tmp_path / "out", mirror, "--expected", tmp_path / "expected")
    message = errors.strip().splitlines()[-1]
    assert code == 1 and re.search(r"^error: the disk is too small: found \S+ GB .* at least 1000000.0 GB", message)
    assert not list((tmp_path / "out" / "downloads").iterdir())


def fetch(folder, mirror, described):
    wmt14_sources.fetch(described, folder / "downloads", folder / "raw", "en", mirror.as_uri())


def test_a_truncated_archive_is_named_and_never_used_and_the_download_goes_on(mirror, tmp_path):
    name = "training-parallel-commoncrawl.tgz"
    whole = (mirror / name).read_bytes()
    for path in mirror.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() if path.name != name else whole[:1000])
    for _ in range(2):
        with pytest.raises(InputError) as error:
            fetch(tmp_path, tmp_path, archives(mirror))
        message = str(error.value)
        assert f"found 1,000 bytes, expected {len(whole):,}" in message and f"{name}.part is truncated" in message
        assert "run the same command again" in message and not (tmp_path / "raw" / "commoncrawl.en").exists()
    # The first part must come from the first attempt: only then is this not the digest of the whole archive.
    (tmp_path / name).write_bytes(b"x" * 1000 + whole[1000:])
    fetch(tmp_path, tmp_path, archives(mirror))
    assert (tmp_path / "downloads" / name).read_bytes() == whole
    assert len(read(tmp_path / "raw" / "commoncrawl.en")) == len(text_of("commoncrawl"))


@pytest.mark.parametrize("known", [True, False], ids=["digest known", "nothing known"])
def test_a_damaged_archive_is_an_error(mirror, tmp_path, known):
    described = archives(mirror)[:1]
    if not known:
        (tmp_path / "expected").write_text(f"{described[0].file} - - -\n")
        described = wmt14_archives.read_expected(tmp_path / "expected", described)
    content = (mirror / described[0].file).read_bytes()
    bad = content[:-2] + b"xx" if known else content[:-200]
    (tmp_path / described[0].file).write_bytes(bad)
    with pytest.raises(InputError, match="is damaged: found sha256" if known else "truncated or damaged"):
        fetch(tmp_path, tmp_path, described)
    assert not (tmp_path / "raw" / "europarl-v7.en").exists()


def test_another_number_of_pairs_than_expected_is_an_error(mirror, tmp_path):
    described = archives(mirror)[:1]
    (tmp_path / "expected").write_text(f"{described[0].file} - - 91\n")
    described = wmt14_archives.read_expected(tmp_path / "expected", described)
    with pytest.raises(InputError, match="has 90 English and 90 German lines of europarl-v7, expected 91 each"):
        fetch(tmp_path, mirror, described)


def test_expectations_can_be_written_down_and_read_again(tmp_path):
    (tmp_path / "expected").write_text(wmt14_archives.listing(wmt14_archives.ARCHIVES))
    for version in ("v9", "v12"):
        chosen = wmt14_archives.chosen(version)
        assert wmt14_archives.read_expected(tmp_path / "expected", chosen) == chosen
        assert [archive.role for archive in chosen] == ["train"] * 3 + ["valid", "test"]
    (tmp_path / "expected").write_text("dev.tgz many - 3\n")
    with pytest.raises(InputError, match="line 1: expected FILE BYTES DIGEST PAIRS, found 'dev.tgz many - 3'"):
        wmt14_archives.read_expected(tmp_path / "expected", chosen)


@pytest.fixture
def corpus(tmp_path):
    """60 pairs, each three times, at PREFIX c, in shards of 7."""
    lines = [f"{english.strip()} {german}".replace("\r", " ") for english, german in sentences(60, 1)] * 3
    for language in ("en", "de"):
        (tmp_path / f"c.{language}").write_text("\n".join(f"{line} {language}" for line in lines) + "\n")
    return tmp_path


def cleaned(folder, name, size, workers=1):
    (folder / name).mkdir()
    shards = wmt14_clean.shards_of("c", str(folder / "c"), size, folder / name, "raw")
    wmt14_clean.run_shards(shards, workers)
    sources = wmt14_clean.merge(shards, folder / name / "train", folder / name / "counts")
    return sources, read(folder / name / "train.en"), read(folder / name / "train.de")


def test_shards_and_workers_change_nothing_and_duplicates_go(corpus):
    sources, english, german = cleaned(corpus, "one", 1000)
    assert (sources, english, german) == cleaned(corpus, "many", 7, workers=2)
    assert sources == [{"source": "c", "pairs": 180, "kept": 60, "removed": {"duplicate": 120}}]
    assert english == read(corpus / "c.en")[:60] and german == read(corpus / "c.de")[:60]


def test_finished_shards_are_not_done_again(corpus):
    (corpus / "s").mkdir()
    shards = wmt14_clean.shards_of("c", str(corpus / "c"), 50, corpus / "s", "raw")
    wmt14_clean.clean_shard(shards[1])
    before = shards[1].file("en").stat().st_mtime_ns
    wmt14_clean.run_shards(shards, 1)
    assert shards[1].file("en").stat().st_mtime_ns == before
    assert all(shard.file("json").exists() for shard in shards)


def test_bytes_that_are_not_utf8_cost_one_pair(corpus):
    (corpus / "c.de").write_bytes((corpus / "c.de").read_bytes().replace(b"Ich", b"\xff", 1))
    assert cleaned(corpus, "x", 1000)[0][0]["removed"] == {"encoding": 1, "duplicate": 119}


def test_unequal_sides_are_an_error(corpus):
    with (corpus / "c.de").open("a") as stream:
        stream.write("one more\n")
    with pytest.raises(InputError, match="180 lines and .* has 181"):
        wmt14_clean.shards_of("c", str(corpus / "c"), 7, corpus, "raw")


def test_good_pairs_pass_and_each_filter_removes_what_it_names():
    good = [("The café in Kraków (α).", "Das Café in Krakau (α)."), ("No.", "Nein."), *text_of("europarl-v7")]
    for english, german in good:
        assert fault(english, german) == length_fault(english, german) == ""
    reasons = [fault(*pair) or length_fault(*pair) for pair in REJECTED]
    assert reasons == ["empty", "script", "language", "ratio"]
    assert fault("Same text 1", "Same text 1") == "language" and fault("12 %", "12 %") == "empty"
    assert fault("Hello 你好", "Hallo") == "script"
    assert length_fault("a " * 249 + "a", "b " * 249 + "b") == "" and length_fault("a " * 250 + "a", "b") == "length"


def test_subwords_are_filtered_as_the_papers_do():
    assert [subword_fault(*pair) for pair in ((2, 3), (3, 2), (250, 250), (1, 1))] == [""] * 4
    assert [subword_fault(*pair) for pair in ((2, 4), (250, 251), (0, 1))] == ["ratio", "length", "length"]


@pytest.mark.parametrize("text", ["a\rb", "a\u2028b\u0085c", " a  b\u00a0c\x0b", "\ufeffa\u200b\u00ad"])
def test_a_cleaned_line_is_one_line_to_every_reader(text):
    for line in (clean_line(text), tokeniser("en", normalise=True)(text), tokeniser("en", normalise=False)(text)):
        assert line.splitlines() == [line] and line == " ".join(line.split())
    assert clean_line(clean_line(text)) == clean_line(text)


@pytest.mark.parametrize("route", ["raw", "tokenised"])
def test_references_are_the_text_as_it_was_but_for_white_space(tmp_path, route):
    lines = ["anders\u00adwo  „so“ ", "Gr\u00fc\u00dfe\u200b, don't", "a\rb", "1"]
    for language in ("en", "de"):
        (tmp_path / f"test.{language}").write_bytes("".join(f"{line}\n" for line in lines).encode())
    text, reference = str(tmp_path / "text" / "test"), str(tmp_path / "ref" / "test")
    wmt14_clean.copy_heldout(str(tmp_path / "test"), text, reference, route)
    wanted = ["anders\u00adwo „so“", "Gr\u00fc\u00dfe\u200b, don't", "a b", "1"]
    assert (tmp_path / "ref" / "test.de").read_text(encoding="utf-8").split("\n")[:-1] == wanted
