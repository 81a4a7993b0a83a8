"""Search with an n-gram model, from the text to the translations, through the real command lines."""

import functools
import re
import sys
from pathlib import Path

import pytest
import torch
from fairseq.data import Dictionary
from sacrebleu.metrics import BLEU

from fairseq_convtext.decoding.ngram import NgramModel
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.bytenet_deconv import BytenetDeconvDecoder
from fairseq_convtext.modules.int8 import Int8Linear
from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import SENTENCES, make_sentences, translate
from tests.int8 import needs_int8

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import canvases  # noqa: E402
import train_ngram  # noqa: E402
import tune_search  # noqa: E402

SEARCH = ["--task", "translation_convtext", "--batch-size", 100, "--num-workers", 0]


@pytest.fixture(scope="module")
def lm(corpus, tmp_path_factory):
    """A model of the training targets."""
    folder = tmp_path_factory.mktemp("lm")
    text, held_out = folder / "train.l", folder / "valid.l"
    text.write_text("".join(f"{translate(s)}\n" for s in make_sentences(SENTENCES["train"], 0)))
    held_out.write_text("".join(f"{translate(s)}\n" for s in make_sentences(SENTENCES["valid"], 1)))
    arguments = [text, "--dictionary", corpus / "dict.l.txt", "--out", folder / "lm.pt", "--perplexity", held_out]
    assert train_ngram.main([str(argument) for argument in [*arguments, "--order", 3]]) == 0
    return folder / "lm.pt"


def generate(corpus, user_dir, path, *flags):
    return run("generate", corpus, "--user-dir", user_dir, "--path", path, *SEARCH, *flags)


def right(output):
    """How many of the hypotheses are the known translation."""
    sources = {key: found[0] for key, found in lines(output, "S").items()}
    texts = {key: found[0].split("\t")[1] for key, found in lines(output, "H").items()}
    return sum(texts[key] == translate(source) for key, source in sources.items())


@pytest.fixture(scope="module", params=["ctc", "dag"])
def searched(request, checkpoints):
    """The checkpoint of a model that can be searched."""
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def right_without_search(corpus, user_dir, searched):
    """How many test sentences are translated rightly without a search."""
    return right(generate(corpus, user_dir, searched))


@pytest.mark.parametrize("with_lm", [False, True])
def test_the_search_translates_every_sentence_and_as_well_as_without_it(
    corpus, user_dir, searched, lm, right_without_search, with_lm
):
    flags = ["--ctc-lm", lm, "--ctc-lm-weight", 0.1] if with_lm else []
    found = generate(corpus, user_dir, searched, "--ctc-beam", 5, *flags)
    assert sorted(lines(found, "H")) == list(range(SENTENCES["test"]))
    assert right(found) >= right_without_search - 2
    for key, scores in lines(found, "P").items():
        hypothesis = lines(found, "H")[key][0].split("\t")[1]
        assert len(scores[0].split()) == len(hypothesis.split()) + 1  # EOS too


def test_the_best_weights_of_the_table_are_flags_that_give_its_bleu(
    corpus, user_dir, checkpoints, lm, tmp_path, capsys, monkeypatch
):
    # Without spaces, as sentencepiece leaves a text of one word, every letter has to count for a word.
    by_letter = functools.partial(BLEU, tokenize="char")
    monkeypatch.setattr(canvases, "BLEU", by_letter)
    references = [translate(s).replace(" ", "") for s in make_sentences(SENTENCES["valid"], 1)]
    (tmp_path / "valid.l").write_text("".join(f"{line}\n" for line in references))
    arguments = [corpus, "--path", checkpoints("ctc"), "--reference", tmp_path / "valid.l", "--lm", lm, "--beam", 5]
    arguments += ["--weights", 0, 0.3, "--bonuses", -12, 0.5, 12]
    assert tune_search.main([str(argument) for argument in arguments]) == 0
    output = capsys.readouterr()
    row = re.compile(r"weight +(\S+) +bonus +(\S+) +sacreBLEU +(\S+)")
    table = {(float(w), float(b)): float(bleu) for w, b, bleu in row.findall(output.err)}
    flags = output.out.splitlines()
    given = dict(flag.split("=") for flag in flags)
    chosen = float(given.get("--ctc-lm-weight", 0)), float(given["--ctc-token-bonus"])
    assert len(table) == 6 and min(table.values()) < table[chosen] == max(table.values())
    found = lines(generate(corpus, user_dir, checkpoints("ctc"), "--gen-subset", "valid", *flags), "H")
    texts = [found[key][0].split("\t")[1].replace(" ", "") for key in sorted(found)]
    assert by_letter().corpus_score(texts, [references]).score == pytest.approx(table[chosen], abs=0.006)


def test_a_graph_is_learnt_and_both_generators_agree_to_the_last_digit(corpus, user_dir, checkpoints):
    parallel = generate(corpus, user_dir, checkpoints("dag"))
    stock = generate(corpus, user_dir, checkpoints("dag"), "--task", "translation", "--beam", 1,
                     "--required-batch-size-multiple", 1)
    for kind in "HP":
        assert lines(parallel, kind) == lines(stock, kind)
    assert right(parallel) >= 0.97 * SENTENCES["test"]


def test_a_token_bonus_makes_hypotheses_longer(corpus, user_dir, checkpoints):
    def length(bonus):
        flags = ["--ctc-beam", 5, f"--ctc-token-bonus={bonus}", "--gen-subset", "valid"]
        output = generate(corpus, user_dir, checkpoints("ctc"), *flags)
        return sum(len(found[0].split()) for found in lines(output, "H").values())

    assert length(-20.0) < length(0.0) < length(20.0)


def test_the_language_model_knows_that_the_letter_of_zero_comes_twice(corpus, lm):
    model, dictionary = NgramModel.load(str(lm)), Dictionary.load(str(corpus / "dict.l.txt"))
    a, b = dictionary.index("a"), dictionary.index("b")
    after_b_a = model.score(torch.tensor([b, a]), torch.tensor([a, b])).exp()
    assert float(after_b_a[0]) > 0.95 > float(after_b_a[1])
    everything = model.score(torch.tensor([b, a]), torch.arange(len(dictionary)))
    assert float(everything.exp().sum()) == pytest.approx(1.0, abs=1e-3)


def test_nbest_gives_different_hypotheses_the_best_first(corpus, user_dir, checkpoints):
    flags = ["--ctc-beam", 5, "--gen-subset", "valid", "--unnormalized"]
    one = lines(generate(corpus, user_dir, checkpoints("ctc"), *flags), "H")
    several = lines(generate(corpus, user_dir, checkpoints("ctc"), *flags, "--nbest", 4), "H")
    assert several.keys() == one.keys() and max(map(len, several.values())) == 4
    for key, found in several.items():
        assert found[0] == one[key][0]
        scores, texts = zip(*(line.split("\t") for line in found))
        assert len(set(texts)) == len(texts) and all(texts)
        assert list(map(float, scores)) == sorted(map(float, scores), reverse=True)


def test_too_long_hypotheses_are_passed_over_by_the_limit_of_the_sentence_whatever_its_batch(
    corpus, user_dir, searched
):
    flags = ["--ctc-beam", 30, "--gen-subset", "valid", "--max-len-a", 1, "--max-len-b", 0]
    found = {size: generate(corpus, user_dir, searched, *flags, "--batch-size", size) for size in (1, 100)}
    texts = {
        size: {key: hypotheses[0].split("\t")[1] for key, hypotheses in lines(output, "H").items()}
        for size, output in found.items()
    }
    assert texts[1] == texts[100]
    longer = 0
    for key, source in lines(found[1], "S").items():
        limit = len(source[0].split()) + 1  # EOS counts
        assert len(texts[1][key].split()) <= limit
        longer += len(translate(source[0]).split()) > limit
    assert longer > 5  # there was something to pass over


def test_a_sentence_whose_hypotheses_are_all_too_long_is_cut_and_the_log_says_so(
    corpus, user_dir, checkpoints, caplog
):
    flags = ["--ctc-beam", 5, "--gen-subset", "valid", "--max-len-a", 0, "--max-len-b", 2]
    found = lines(generate(corpus, user_dir, checkpoints("ctc"), *flags), "H")
    sources = lines(generate(corpus, user_dir, checkpoints("ctc"), "--gen-subset", "valid"), "S")
    assert found.keys() == sources.keys()
    assert {len(hypotheses[0].split("\t")[1].split()) for hypotheses in found.values()} <= {1, 2}
    assert caplog.text.count("(2 tokens): the best one is cut; raise --max-len-b") == 1


def test_options_that_do_not_go_together_are_one_sentence(corpus, user_dir, checkpoints, lm, tmp_path):
    ctc, position = checkpoints("ctc"), checkpoints("position")
    with pytest.raises(ConvTextError, match="--ctc-lm needs a search: add --ctc-beam"):
        generate(corpus, user_dir, ctc, "--ctc-lm", lm)
    with pytest.raises(ConvTextError, match="--ctc-token-bonus needs a search: add --ctc-beam"):
        generate(corpus, user_dir, ctc, "--ctc-token-bonus", 1.0)
    with pytest.raises(ConvTextError, match="--ctc-lm-weight needs a search: add --ctc-beam"):
        generate(corpus, user_dir, ctc, "--ctc-lm-weight", 0.5)
    with pytest.raises(ConvTextError, match="--ctc-beam does not go together with match_source_len"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--match-source-len")
    with pytest.raises(ConvTextError, match="--nbest must be from 1 to what --ctc-beam 5 holds; found 6"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--nbest", 6)
    with pytest.raises(ConvTextError, match="--nbest must be from 1 to what --ctc-beam 5 holds; found 0"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--nbest", 0)
    with pytest.raises(ConvTextError, match="--ctc-beam must be at least 1; found 0"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 0)
    with pytest.raises(ConvTextError, match="--ctc-beam searches a canvas of alternatives"):
        generate(corpus, user_dir, position, "--ctc-beam", 5)
    with pytest.raises(ConvTextError, match="--ctc-lm-weight 0.5 needs a language model: add --ctc-lm"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-lm-weight", 0.5)
    with pytest.raises(ConvTextError, match="--lenpen 2.0 does not change what --ctc-beam finds"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--lenpen", 2)
    state = torch.load(lm)
    torch.save({**state, "vocabulary": 99}, tmp_path / "other.pt")
    with pytest.raises(ConvTextError, match="has 99 symbols and the target dictionary 16"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-lm", tmp_path / "other.pt")


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("int8", marks=needs_int8)])
def test_generation_with_fewer_digits_translates_as_well(corpus, user_dir, checkpoints, monkeypatch, caplog, dtype):
    used, trained = set(), checkpoints("ctc")
    canvas = BytenetDeconvDecoder.canvas

    def watched(self, *arguments, **options):
        found = canvas(self, *arguments, **options)
        used.add((found.dtype, type(self.project)))
        return found

    monkeypatch.setattr(BytenetDeconvDecoder, "canvas", watched)
    flags = ["--model-overrides", str({"generation_dtype": dtype}), "--gen-subset", "valid"]
    found = generate(corpus, user_dir, trained, *flags)
    assert used == {(torch.bfloat16, torch.nn.Linear) if dtype == "bfloat16" else (torch.float32, Int8Linear)}
    assert right(found) >= 0.95 * SENTENCES["valid"]
    assert "--model-overrides has no effect" not in caplog.text
    searched = generate(corpus, user_dir, trained, *flags, "--ctc-beam", 5)
    assert right(searched) >= 0.95 * SENTENCES["valid"]
