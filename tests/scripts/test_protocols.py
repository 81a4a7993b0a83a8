"""scripts/protocols.py: every number is what its name says, and outputs of known score get that score."""

import hashlib
import json
import socket
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))
import protocols  # noqa: E402
import score  # noqa: E402

SHARED = ROOT.parent / "shared"
NEWSTEST = SHARED / "data" / "wmt_newstest"
MULTI30K = SHARED / "data" / "multi30k"
BASELINE = SHARED / "baseline" / "multi30k_transformer_tiny"
REFERENCES = [
    "Der 55-jährige Mann zahlte 26.",
    "„Das ist gut“, sagte sie am 3. Mai in Berlin.",
    "Ein Lkw-Anhänger steht vor dem Haus & wartet.",
    "Sie fragte: Wer hat's gesehen?",
]


def write(path: Path, lines) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def run(capsys, *arguments) -> dict:
    """The result of a run that must succeed."""
    assert score.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def files(tmp_path) -> list:
    """Arguments for a perfect translation."""
    path = write(tmp_path / "text", REFERENCES)
    return ["--hypothesis", path, "--reference", path]


@pytest.fixture
def known(monkeypatch) -> None:
    """The references count as newstest2014."""
    text = "".join(f"{line}\n" for line in REFERENCES)
    name = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setitem(protocols.TEST_SETS, name, ("wmt14/full", "en-de"))


def test_wmt14_names_each_number_for_what_it_is(files, capsys):
    assert score.main([*files, "--protocol", "wmt14"]) == 0
    names = [line.split("  ")[0] for line in capsys.readouterr().out.split("\n")[1:6]]
    assert names == [
        "sacreBLEU",
        "chrF",
        "tokenised BLEU (Moses -a tokens, de, cased)",
        "compound-split BLEU (get_ende_bleu.sh)",
        "compound-split BLEU, quotes unified as in tensor2tensor's reference",
    ]
    assert all(score.main([*files, "--protocol", name]) == 0 for name in protocols.PROTOCOLS)


def test_compounds_are_split_in_german_only(files, capsys):
    keys = run(capsys, *files, "--protocol", "wmt14", "--target-lang", "en").keys()
    assert "tokenised_bleu" in keys and "compound_bleu" not in keys


def test_protocols_share_sacrebleu_and_chrf(files, tmp_path, capsys):
    files[1] = write(tmp_path / "hyp", [REFERENCES[0], *REFERENCES[:-1]])
    results = [run(capsys, *files, "--protocol", name) for name in protocols.PROTOCOLS]
    for key in ("sacrebleu", "chrf"):
        assert 0 < results[0][key]["score"] < 100
        assert all(result[key] == results[0][key] for result in results)


def test_signature_names_the_test_set_of_known_references_only(files, tmp_path, known, capsys):
    result = run(capsys, *files, "--protocol", "wmt14")
    for key in ("sacrebleu", "chrf"):
        assert result[key]["signature"].startswith("nrefs:1|test:wmt14/full|lang:en-de|case:mixed|")
    assert "test:" not in result["tokenised_bleu"]["signature"]
    assert not any("newstest2014" in note for note in result["notes"])
    changed = write(tmp_path / "changed", [*REFERENCES[:-1], REFERENCES[-1] + "?"])
    result = run(capsys, *files[:3], changed, "--protocol", "wmt14")
    assert "test:" not in result["sacrebleu"]["signature"]
    assert any("4 lines, not 3003" in note for note in result["notes"])


def test_signature_is_written_as_sacrebleu_writes_it(files, known, capsys):
    from sacrebleu.metrics import BLEU
    from sacrebleu.metrics.bleu import BLEUSignature

    details = {"num_refs": 1, "test_set": "wmt14/full", "langpair": "en-de"}
    expected = str(BLEUSignature({**vars(BLEU()), **details}))
    assert run(capsys, *files, "--protocol", "wmt14")["sacrebleu"]["signature"] == expected


def test_white_space_does_not_hide_a_known_test_set(known):
    spaced = [f" {line}".replace(" ", "  ") + "\t" for line in REFERENCES]
    assert protocols.known_test_set(spaced) == ("wmt14/full", "en-de")
    assert protocols.known_test_set(REFERENCES[::-1]) is None


def test_nothing_is_downloaded(files, known, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in protocols.PROTOCOLS:
        run(capsys, *files, "--protocol", name)


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("Science-Fiction", "Science ##AT##-##AT## Fiction"),
        ("a-b-c ab-cd-ef", "a ##AT##-##AT## b-c ab ##AT##-##AT## cd ##AT##-##AT## ef"),
        ("so - so -x y-", "so - so -x y-"),
    ],
)
def test_compounds_are_split_as_by_get_ende_bleu(text, tokens):
    assert protocols.compound_tokens([text], "de") == [tokens]


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("Er zahlte 26.", "Er zahlte 26 ."),
        ("beim VfL Fredenbeck II.", "beim VfL Fredenbeck II ."),
        ("gegenüber FoxNews.com.", "gegenüber FoxNews.com ."),
        ("am 3. Mai ...", "am 3. Mai ..."),
        ("Lkw-Anhänger", "Lkw @-@ Anhänger"),
    ],
)
def test_fairseq_tokens_are_those_of_todays_moses(text, tokens):
    assert protocols.fairseq_tokens([text], "de") == [tokens]


def test_multi30k_tokens_are_lower_cased_and_keep_hyphens():
    tokens = protocols.multi30k_tokens(["Ein weißer Lkw-Anhänger mit den Worten „NOTHING LEF“."], "de")
    assert tokens == ['ein weißer lkw-anhänger mit den worten " nothing lef " .']


def test_only_multi30k_ignores_case(tmp_path, files, capsys):
    files[1] = write(tmp_path / "upper", [line.upper().replace("ß", "SS") for line in REFERENCES])
    assert run(capsys, *files, "--protocol", "multi30k")["tokenised_bleu"]["score"] == pytest.approx(100)
    assert run(capsys, *files, "--protocol", "wmt14")["tokenised_bleu"]["score"] < 50


def test_quotes_matter_for_all_wmt14_numbers_but_one(tmp_path, files, capsys):
    files[1] = write(tmp_path / "straight", [line.replace("„", '"').replace("“", '"') for line in REFERENCES])
    result = run(capsys, *files, "--protocol", "wmt14")
    assert result["unified_quotes_bleu"]["score"] == pytest.approx(100)
    assert all(result[key]["score"] < 99 for key in ("sacrebleu", "tokenised_bleu", "compound_bleu"))


def test_tokenised_bleu_is_not_smoothed(tmp_path, capsys):
    files = write(tmp_path / "h", ["a b c x e f g"]), write(tmp_path / "r", ["a b c d e f g"])
    result = run(capsys, "--hypothesis", files[0], "--reference", files[1], "--protocol", "wmt14")
    assert result["sacrebleu"]["score"] > 0
    assert [result[key]["score"] for key in ("tokenised_bleu", "compound_bleu", "unified_quotes_bleu")] == [0] * 3


@pytest.mark.parametrize("escape", [True, False])
def test_tokens_of_a_model_are_detokenised_for_sacrebleu_only(tmp_path, files, capsys, escape):
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer("de")
    tokens = [
        tokenizer.tokenize(line, aggressive_dash_splits=True, return_str=True, escape=escape) for line in REFERENCES
    ]
    assert tokens[0].endswith("26.")  # one token here, two in fairseq's recipe: detokenised, they are the same
    files[1] = write(tmp_path / "tokens", tokens)
    assert run(capsys, *files, "--detokenise")["tokenised_bleu"]["score"] < 99
    tokens[0] = tokens[0].replace("26.", "26 .")
    files[1] = write(tmp_path / "tokens", tokens)
    result = run(capsys, *files, "--protocol", "wmt14", "--detokenise")
    assert result["tokenised_bleu"]["score"] == pytest.approx(100)
    assert result["chrf"]["score"] > 97  # the detokeniser does not know every German quote
    forgotten = run(capsys, *files, "--protocol", "wmt14")
    assert forgotten["sacrebleu"]["score"] < result["sacrebleu"]["score"]
    assert any("--detokenise" in note for note in forgotten["notes"])


@pytest.mark.parametrize(
    "flags",
    [
        ["--protocol", "wmt13"],
        ["--protocol", "wmt14", "--lowercase"],
        ["--protocol", "multi30k", "--already-tokenised"],
        ["--detokenise", "--already-tokenised"],
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(files, flags, capsys):
    with pytest.raises(SystemExit) as stop:
        score.main([*files, *flags])
    assert stop.value.code == 2


def test_detokenising_needs_plain_references(tmp_path):
    with pytest.raises(SystemExit) as stop:
        score.main([str(tmp_path / "gen.out"), "--detokenise"])
    assert stop.value.code == 2


@pytest.mark.skipif(not NEWSTEST.is_dir(), reason="needs newstest2014 in ../shared/data/wmt_newstest")
@pytest.mark.parametrize("language, pair", [("de", "en-de"), ("en", "de-en")])
def test_newstest2014_is_recognised(language, pair):
    references = score.read_lines(NEWSTEST / f"test.{language}")
    assert protocols.known_test_set(references) == ("wmt14/full", pair)
    assert protocols.known_test_set(references[:-1]) is None


@pytest.mark.skipif(not NEWSTEST.is_dir(), reason="needs newstest2014 in ../shared/data/wmt_newstest")
def test_reference_tokens_of_newstest2014_are_as_many_as_in_a_published_log():
    # harvardnlp/cascaded-generation, logs_test/wmt14-en-de: "reflen=64506" on data of fairseq's recipe.
    tokens = protocols.fairseq_tokens(score.read_lines(NEWSTEST / "test.de"), "de")
    assert sum(len(line.split()) for line in tokens) == 64506


@pytest.mark.skipif(not BASELINE.is_dir(), reason="needs the outputs in ../shared/baseline")
@pytest.mark.parametrize(
    "name, bleu, chrf",
    [("test_2016_flickr", 35.53, 59.94), ("test_2017_flickr", 27.05, 54.61), ("val", 35.78, 59.35)],
)
def test_outputs_of_known_score_get_it(name, bleu, chrf, capsys):
    files = ["--hypothesis", BASELINE / f"{name}.beam5.de", "--reference", MULTI30K / f"{name}.de"]
    result = run(capsys, *files, "--protocol", "multi30k")
    assert round(result["sacrebleu"]["score"], 2) == bleu and round(result["chrf"]["score"], 2) == chrf
