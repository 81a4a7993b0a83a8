"""Judges of a CTC search (--ctc-judges) and the script that finds their weights, through the real command lines."""

import functools
import re
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, utils
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from sacrebleu.metrics import BLEU

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.tasks import translation_convtext
from fairseq_convtext.tasks.judges import load_judges
from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import SENTENCES, make_sentences, translate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import tune_blank_penalty  # noqa: E402
import tune_judges  # noqa: E402

# A bonus that makes the search prefer translations with letters too many.
SPOILT = ["--ctc-beam=10", "--ctc-token-bonus=12"]


def generate(corpus, user_dir, path, *flags):
    common = ["--task", "translation_convtext", "--gen-subset", "valid", "--batch-size", 20, "--num-workers", 0]
    return run("generate", corpus, "--user-dir", user_dir, "--path", path, *common, *flags)


def right(output):
    """How many of the hypotheses are the known translation."""
    sources = {key: found[0] for key, found in lines(output, "S").items()}
    texts = {key: found[0].split("\t")[1] for key, found in lines(output, "H").items()}
    assert sorted(texts) == list(range(SENTENCES["valid"]))
    return sum(texts[key] == translate(source) for key, source in sources.items())


@pytest.fixture(scope="module")
def autoregressive(checkpoints):
    """A checkpoint of the sibling, which has learnt the language by itself."""
    return checkpoints("autoregressive")


def test_judges_find_the_right_translation_among_those_of_a_search(
    corpus, user_dir, checkpoints, autoregressive
):
    ctc = checkpoints("ctc")
    assert right(generate(corpus, user_dir, ctc, *SPOILT)) <= 0.93 * SENTENCES["valid"]
    for judges in (f"{autoregressive}", f"{ctc}:{autoregressive}"):
        weights = ",".join("50" for _ in judges.split(":"))
        flags = [*SPOILT, f"--ctc-judges={judges}", f"--ctc-judge-weights={weights}", "--ctc-judge-token-bonus=0"]
        assert right(generate(corpus, user_dir, ctc, *flags)) >= 0.96 * SENTENCES["valid"]


def test_a_model_of_the_other_direction_judges_too(corpus, user_dir, checkpoints, train, tmp_path):
    other = ["--source-lang", "l", "--target-lang", "d", "--target-alignment", "ctc", "--criterion", "convtext_ctc"]
    train(tmp_path, 250, *other)
    ctc, channel = checkpoints("ctc"), tmp_path / "checkpoint_best.pt"
    weights = ["--ctc-judge-weights=50", "--ctc-judge-token-bonus=0"]
    judged = generate(corpus, user_dir, ctc, *SPOILT, f"--ctc-judges={channel}", *weights)
    assert right(judged) > right(generate(corpus, user_dir, ctc, *SPOILT))


def test_judged_hypotheses_come_with_the_best_first(corpus, user_dir, checkpoints, autoregressive):
    flags = ["--ctc-beam", 5, "--nbest", 5, "--unnormalized", "--ctc-judges", autoregressive]
    for found in lines(generate(corpus, user_dir, checkpoints("ctc"), *flags), "H").values():
        scores = [float(line.split("\t")[0]) for line in found]
        assert scores == sorted(scores, reverse=True)


def test_the_weights_found_on_the_validation_set_are_flags_that_translate(
    corpus, user_dir, checkpoints, autoregressive, tmp_path, capsys, monkeypatch
):
    # Without spaces, as sentencepiece leaves a text of one word, every letter has to count for a word.
    monkeypatch.setattr(tune_judges, "BLEU", functools.partial(BLEU, tokenize="char"))
    reference, search = tmp_path / "valid.l", tmp_path / "flags"
    reference.write_text("".join(f"{translate(s).replace(' ', '')}\n" for s in make_sentences(SENTENCES["valid"], 1)))
    search.write_text("\n".join(["--ctc-beam=2", *SPOILT[1:]]) + "\n")
    arguments = [corpus, "--path", checkpoints("ctc"), "--reference", reference, "--search", search, "--judges",
                 autoregressive, "--weights", 0, 1, 50, "--bonuses", 0, 1]  # fmt: skip
    assert SPOILT[0].startswith("--ctc-beam=")
    arguments += ["--beam", SPOILT[0].split("=")[1]]
    assert tune_judges.main([str(argument) for argument in arguments]) == 0
    flags = capsys.readouterr().out.splitlines()
    assert flags[:2] == SPOILT and f"--ctc-judges={autoregressive}" in flags
    spoilt = right(generate(corpus, user_dir, checkpoints("ctc"), *SPOILT))
    assert right(generate(corpus, user_dir, checkpoints("ctc"), *flags)) > spoilt


def test_coordinate_ascent_goes_on_until_no_single_step_helps():
    def score(setting):
        return -((setting[0] - 1) ** 2) - 0.5 * (setting[1] - setting[0]) ** 2

    # The first round gets no further than 0.5 and 0.5.
    best, tried = tune_judges.ascend(score, (0.0, 0.0), [[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]])
    assert best == (1.0, 1.0) and tried[best] == 0.0


def test_what_cannot_judge_is_one_sentence(corpus, user_dir, checkpoints, tmp_path):
    ctc, position = checkpoints("ctc"), checkpoints("position")
    with pytest.raises(ConvTextError, match="--ctc-judges needs a search: add --ctc-beam"):
        generate(corpus, user_dir, ctc, "--ctc-judges", ctc)
    with pytest.raises(ConvTextError, match="--ctc-judge-weights needs --ctc-judges"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judge-weights", 1)
    with pytest.raises(ConvTextError, match="one number for each of the 1 checkpoints of --ctc-judges; found 2"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", ctc, "--ctc-judge-weights", "1,1")
    with pytest.raises(ConvTextError, match="no checkpoint .*nothing.pt of a judge"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", tmp_path / "nothing.pt")
    with pytest.raises(ConvTextError, match="--ctc-judged must be at least --nbest 3; found 2"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", ctc, "--ctc-judged", 2, "--nbest", 3)
    with pytest.raises(ConvTextError, match="--ctc-judged needs --ctc-judges"):
        generate(corpus, user_dir, ctc, "--ctc-judged", 2)
    state = torch.load(ctc, weights_only=False)
    state["cfg"]["task"].update(source_lang="d", target_lang="x")
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ConvTextError, match="other.pt translates from d to x; a judge must translate between d and l"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", tmp_path / "other.pt")
    state = torch.load(ctc, weights_only=False)
    state["model"] = {name: value[:-1] if value.size(0) == 16 else value for name, value in state["model"].items()}
    torch.save(state, tmp_path / "smaller.pt")
    with pytest.raises(ConvTextError, match="smaller.pt does not fit the dictionaries of .* a judge must: the chec"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", tmp_path / "smaller.pt")
    # As many symbols, in another order.
    dictionary = (corpus / "dict.l.txt").read_text().splitlines()
    (tmp_path / "dict.l.txt").write_text("".join(f"{line}\n" for line in reversed(dictionary)))
    state = torch.load(ctc, weights_only=False)
    state["cfg"]["task"].update(data=str(tmp_path), source_lang="d", target_lang="l")
    torch.save(state, tmp_path / "elsewhere.pt")
    with pytest.raises(ConvTextError, match="elsewhere.pt does not fit .* it was trained with .*/dict.l.txt"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", tmp_path / "elsewhere.pt")
    (tmp_path / "broken.pt").write_text("no checkpoint")
    with pytest.raises(ConvTextError, match="broken.pt is no checkpoint of fairseq that .*: UnpicklingError"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", tmp_path / "broken.pt")
    state = torch.load(ctc, weights_only=False)
    state["cfg"]["model"]["_name"] = "unheard_of"
    torch.save(state, tmp_path / "unknown.pt")
    with pytest.raises(ConvTextError, match="unknown.pt is of a kind that neither fairseq nor this plugin knows"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", tmp_path / "unknown.pt")
    with pytest.raises(ConvTextError, match="must be a model of this plugin with --target-alignment ctc or dag"):
        generate(corpus, user_dir, ctc, "--ctc-beam", 5, "--ctc-judges", position)


@pytest.mark.parametrize(
    "error, message",
    [
        # fairseq's own transformer has both of them.
        (ValueError("--share-all-embeddings requires a joined dictionary"), "does not fit the dictionaries .* joined"),
        (FileNotFoundError(2, "No such file", "vectors.txt"), "needs a file to be loaded, .* 'vectors.txt'"),
    ],
)
def test_a_judge_that_cannot_be_built_here_is_one_sentence(corpus, checkpoints, monkeypatch, error, message):
    def load_model_ensemble(*args, **kwargs):
        raise error

    task = TranslationTask.setup_task(TranslationConfig(data=str(corpus), source_lang="d", target_lang="l"))
    monkeypatch.setattr(checkpoint_utils, "load_model_ensemble", load_model_ensemble)
    with pytest.raises(ConvTextError, match=f"^{checkpoints('ctc')} {message}"):
        load_judges([checkpoints("ctc")], task, torch.device("cpu"))


def test_a_judge_that_does_not_say_its_languages_has_those_of_its_data(corpus, user_dir, checkpoints, tmp_path, caplog):
    utils.import_user_module(Namespace(user_dir=str(user_dir)))
    cfg = TranslationConfig(data=str(corpus), source_lang="d", target_lang="l")
    task = TranslationTask.setup_task(cfg)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "train.l-d.l.idx").touch()
    state = torch.load(checkpoints("ctc"), weights_only=False)
    for data, backwards in ((tmp_path / "bin", True), (corpus, False), (tmp_path / "gone", False)):
        assert "does not say its languages" not in caplog.text
        state["cfg"]["task"].update(source_lang=None, target_lang=None, data=str(data))
        torch.save(state, tmp_path / "judge.pt")
        (judge,) = load_judges([tmp_path / "judge.pt"], task, torch.device("cpu"))
        assert judge.backwards == backwards
    assert "judge.pt does not say its languages, and its data are not there to tell" in caplog.text


def test_a_generator_made_anew_does_not_read_the_judges_again(
    corpus, user_dir, checkpoints, monkeypatch
):
    utils.import_user_module(Namespace(user_dir=str(user_dir)))
    # What the command line of fairseq fills in from its other options.
    rest = {"train_subset": "train", "dataset_impl": None, "required_seq_len_multiple": 1}
    options = {"ctc_beam": 5, "ctc_judges": str(checkpoints("ctc"))}
    cfg = translation_convtext.TranslationConvtextConfig(data=str(corpus), **options, **rest)
    task = translation_convtext.TranslationConvtextTask.setup_task(cfg)
    models, _ = checkpoint_utils.load_model_ensemble([str(checkpoints("ctc"))], task=task)
    first = task.build_generator(models, Namespace(beam=1))
    monkeypatch.delattr(translation_convtext, "load_judges")
    again = task.build_generator(models, Namespace(beam=1))
    assert again is not first and again.judges.judges is first.judges.judges
    # What Python may ask for and the command line may not.
    with pytest.raises(ConvTextError, match="--ctc-beam does not go together with prefix_tokens: leave one out"):
        first.generate(models, {}, prefix_tokens=torch.ones(1, 1), constraints=None)


def test_subwords_that_the_scripts_cannot_join_are_refused(corpus, checkpoints, tmp_path, capsys):
    data = tmp_path / "bin"
    shutil.copytree(corpus, data)
    (data / "dict.l.txt").write_text((corpus / "dict.l.txt").read_text().replace("a ", "a@@ "))
    (tmp_path / "valid.l").write_text("a\n" * SENTENCES["valid"])
    arguments = [data, "--path", checkpoints("ctc"), "--reference", tmp_path / "valid.l"]
    assert tune_blank_penalty.main([str(argument) for argument in arguments]) == 1
    assert "has subwords of subword-nmt (@@)" in capsys.readouterr().err


@pytest.mark.parametrize("script", [tune_judges, tune_blank_penalty])
def test_a_file_that_is_no_checkpoint_is_one_sentence(script, corpus, tmp_path, capsys):
    for name in ("valid.l", "broken.pt"):
        (tmp_path / name).write_text("no checkpoint\n")
    (tmp_path / "flags").write_text("--ctc-beam=5\n")
    arguments = [corpus, "--path", tmp_path / "broken.pt", "--reference", tmp_path / "valid.l"]
    if script is tune_judges:
        arguments += ["--search", tmp_path / "flags", "--judges", tmp_path / "broken.pt"]
    assert script.main([str(argument) for argument in arguments]) == 1
    assert re.search(r"^error: .*broken.pt is no checkpoint of fairseq", capsys.readouterr().err, re.MULTILINE)
