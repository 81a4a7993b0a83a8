"""The autoregressive sibling: train -> validate -> generate -> interactive, with fairseq's own task and generator."""

import re

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.logging.progress_bar import SimpleProgressBar
from fairseq.sequence_generator import EnsembleModel

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.bytenet import BytenetModel
from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import SENTENCES, SIBLING, translate

GENERATION = ["--batch-size", 100, "--num-workers", 0, "--required-batch-size-multiple", 1]


@pytest.fixture(scope="module")
def checkpoint(checkpoints):
    """A model that has learnt the language."""
    return checkpoints("autoregressive")


def generate(corpus, user_dir, path, *flags):
    return run("generate", corpus, "--user-dir", user_dir, "--path", path, *GENERATION, *flags)


def hypotheses(output):
    return {key: [line.split("\t")[1] for line in found] for key, found in lines(output, "H").items()}


def test_the_language_is_learnt(corpus, user_dir, checkpoint):
    output = generate(corpus, user_dir, checkpoint, "--beam", 1)
    found, sources = hypotheses(output), {key: line[0] for key, line in lines(output, "S").items()}
    assert len(found) == SENTENCES["test"]
    right = sum(found[key][0] == translate(source) for key, source in sources.items())
    assert right >= 0.95 * SENTENCES["test"]


def test_the_search_finds_the_same_when_the_decoder_keeps_nothing(corpus, user_dir, checkpoint, monkeypatch):
    flags = ["--gen-subset", "valid", "--beam", 4, "--nbest", 2]
    step_by_step = generate(corpus, user_dir, checkpoint, *flags)
    monkeypatch.setattr(EnsembleModel, "has_incremental_states", lambda self: False)
    whole = generate(corpus, user_dir, checkpoint, *flags)
    assert hypotheses(step_by_step) == hypotheses(whole)


def test_translations_longer_than_the_bound_are_found(corpus, user_dir, checkpoint):
    flags = ["--gen-subset", "valid", "--beam", 2, "--model-overrides", "{'length_bound_a': 1.0, 'length_bound_b': 0}"]
    output = generate(corpus, user_dir, checkpoint, *flags)
    sources = {key: line[0] for key, line in lines(output, "S").items()}
    longer = [key for key, line in hypotheses(output).items() if len(line[0].split()) > len(sources[key].split()) + 1]
    assert len(longer) > 3


def test_label_smoothing_trains_too(train, tmp_path):
    flags = ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.1, "--compute-dtype", "bfloat16"]
    train(tmp_path, 30, *SIBLING, *flags, "--log-interval", 10, "--log-file", tmp_path / "log")
    losses = [float(x) for x in re.findall(r" nll_loss=([0-9.]+)", (tmp_path / "log").read_text())]
    assert losses[-1] < losses[0] - 0.5


def test_eval_bleu_is_logged_and_rises(checkpoint):
    scores = re.findall(r"valid on 'valid' subset.* \| bleu ([0-9.]+)", (checkpoint.parent / "log").read_text())
    assert len(scores) > 1 and float(scores[0]) < float(scores[-1]) and float(scores[-1]) > 90


def test_a_hypothesis_does_not_depend_on_its_batch(corpus, user_dir, checkpoint):
    large = generate(corpus, user_dir, checkpoint, "--gen-subset", "valid")
    assert hypotheses(generate(corpus, user_dir, checkpoint, "--gen-subset", "valid", "--batch-size", 1)) == hypotheses(
        large
    )


def test_the_scores_of_the_search_are_those_of_the_whole_translation(corpus, user_dir, checkpoint):
    flags = ["--gen-subset", "valid", "--beam", 4]
    output = generate(corpus, user_dir, checkpoint, *flags)
    reference = generate(corpus, user_dir, checkpoint, *flags, "--score-reference")
    sources = {key: line[0] for key, line in lines(output, "S").items()}
    right = [key for key, line in hypotheses(output).items() if line[0] == translate(sources[key])]
    assert len(right) > 50
    for key in right:
        step_by_step, whole = (float(lines(text, "H")[key][0].split("\t")[0]) for text in (output, reference))
        assert step_by_step == pytest.approx(whole, abs=1e-4)


def test_beams_give_as_many_hypotheses_best_first_and_an_ensemble_of_one_is_the_model(corpus, user_dir, checkpoint):
    flags = ["--gen-subset", "valid", "--beam", 4, "--nbest", 4]
    output = generate(corpus, user_dir, checkpoint, *flags)
    for found in lines(output, "H").values():
        scores = [float(line.split("\t")[0]) for line in found]
        assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    twice = generate(corpus, user_dir, f"{checkpoint}:{checkpoint}", *flags[:-2])
    assert hypotheses(twice) == {key: line[:1] for key, line in hypotheses(output).items()}


def test_interactive_keeps_the_place_of_empty_lines(corpus, user_dir, checkpoint):
    sources = ["1 2 3", "", "4 0 4", "5"]
    output = run(
        "interactive", corpus, "--user-dir", user_dir, "--path", checkpoint, "--source-lang", "d", "--target-lang", "l",
        "--beam", 2, "--buffer-size", 3, "--batch-size", 3, stdin="".join(f"{s}\n" for s in sources),
    )  # fmt: skip
    found = hypotheses(output)
    assert sorted(found) == [0, 1, 2, 3]
    assert [found[key][0] for key in (0, 2, 3)] == [translate(sources[key]) for key in (0, 2, 3)]


def test_validate_reports_the_loss_of_the_checkpoint(corpus, user_dir, checkpoint, monkeypatch):
    reported = []
    monkeypatch.setattr(SimpleProgressBar, "print", lambda self, stats, **_: reported.append(stats["loss"]))
    flags = ["--batch-size", 20, "--required-batch-size-multiple", 1, "--log-format", "simple", "--num-workers", 0]
    run("validate", corpus, "--user-dir", user_dir, "--task", "translation", "--path", checkpoint, *flags)
    saved = checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint))["extra_state"]["best"]
    assert reported == [pytest.approx(saved, abs=2e-3)]


def test_a_model_loaded_in_python_translates_one_or_many(corpus, checkpoint):
    model = BytenetModel.from_pretrained(
        str(checkpoint.parent), checkpoint_file=checkpoint.name, data_name_or_path=str(corpus)
    )
    assert model.translate("1 2 0") == translate("1 2 0")
    sources = ["7 8", "9", "1 2 3 4 5"]
    assert model.translate(sources) == [translate(s) for s in sources]


def test_a_checkpoint_without_younger_options_still_loads(corpus, user_dir, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=False)
    for name in ("compute_dtype", "word_dropout", "spatial_dropout"):
        del state["cfg"]["model"][name]
    torch.save(state, tmp_path / "old.pt")
    old, new = (generate(corpus, user_dir, path, "--gen-subset", "valid") for path in (tmp_path / "old.pt", checkpoint))
    assert lines(old, "H") == lines(new, "H")


# What goes with models that write all positions at once, and the sentence that says so.
OTHERS = {
    "--criterion convtext_ctc": "convtext_ctc needs .* such as --arch bytenet_deconv; found BytenetModel",
    "--share-all-embeddings": "--share-all-embeddings needs one dictionary .* --joined-dictionary",
    "--left-pad-target": "padded on the right; found --left-pad-target: leave it out",
}


@pytest.mark.parametrize("flags", list(OTHERS))
def test_what_does_not_go_with_this_model_is_refused_in_one_sentence(train, tmp_path, flags):
    with pytest.raises(ConvTextError) as info:
        train(tmp_path, 1, "--arch", "bytenet_tiny", *flags.split())
    assert re.search(OTHERS[flags], str(info.value))


def test_the_task_that_loses_no_sentence_translates_with_it_too(corpus, user_dir, checkpoint):
    flags = ["--gen-subset", "valid", "--beam", 2]
    usual = hypotheses(generate(corpus, user_dir, checkpoint, *flags))
    # The last batch has 5 sentences: a multiple of 8 would drop it.
    kept = ["--task", "translation_convtext", "--batch-size", 8, "--required-batch-size-multiple", 8]
    assert hypotheses(generate(corpus, user_dir, checkpoint, *flags, *kept)) == usual
    with pytest.raises(ConvTextError, match="--ctc-beam does not go together with a model that writes one token after"):
        generate(corpus, user_dir, checkpoint, *flags, *kept, "--ctc-beam", 5)


def test_an_override_that_changes_nothing_is_warned_of(corpus, user_dir, checkpoint, caplog):
    overrides = {"generation_dtype": "bfloat16", "length_bound_b": 5, "eval_bleu": False, "lenght_bound_a": 2.0}
    generate(corpus, user_dir, checkpoint, "--gen-subset", "valid", "--model-overrides", str(overrides))
    warned = re.findall(r"--model-overrides has no effect on (\w+)", caplog.text)
    assert warned == ["generation_dtype", "lenght_bound_a"]
