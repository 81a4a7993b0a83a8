"""train -> validate -> generate -> interactive, through the real command lines."""

from argparse import Namespace

import pytest
import torch
from fairseq.logging.progress_bar import SimpleProgressBar
from fairseq.sequence_generator import SequenceGenerator

from fairseq_convtext.models.bytenet_deconv import BytenetDeconvDecoder, BytenetDeconvModel
from fairseq_convtext.tasks.parallel_generator import reasons_for_stock_generator
from tests.command_lines.commands import lines, run
from tests.command_lines.conftest import SENTENCES, translate
from tests.small_model import make_model

# Worker processes take seconds to end.
WORKERS = ["--num-workers", 0]


def generate(corpus, user_dir, path, *flags):
    return run("generate", corpus, "--user-dir", user_dir, "--path", path, "--batch-size", 100, *WORKERS, *flags)


def hypotheses(output):
    return {key: [line.split("\t")[1] for line in found] for key, found in lines(output, "H").items()}


@pytest.fixture
def checkpoint(checkpoints, alignment):
    return checkpoints(alignment)


def test_the_language_is_learnt_and_both_generators_agree_to_the_last_digit(corpus, user_dir, checkpoint, alignment):
    keep_all = ["--required-batch-size-multiple", 1]
    stock = generate(corpus, user_dir, checkpoint, "--beam", 1, *keep_all)
    parallel = generate(corpus, user_dir, checkpoint, "--beam", 1, "--task", "translation_convtext")
    assert len(lines(stock, "H")) == SENTENCES["test"]
    assert lines(parallel, "H") == lines(stock, "H")
    assert lines(parallel, "P") == lines(stock, "P")
    sources = {key: found[0] for key, found in lines(stock, "S").items()}
    right = sum(hypotheses(parallel)[key][0] == translate(source) for key, source in sources.items())
    # Position-wise training must learn how many letters stand before each, which takes it longer.
    assert right >= {"ctc": 0.97, "position": 0.85}[alignment] * SENTENCES["test"]


def test_no_sentence_is_lost_whatever_the_batch_size_multiple(corpus, user_dir, checkpoint):
    flags = ["--task", "translation_convtext", "--required-batch-size-multiple", 8]
    assert sorted(lines(generate(corpus, user_dir, checkpoint, *flags), "H")) == list(range(SENTENCES["test"]))


def test_a_hypothesis_does_not_depend_on_its_batch(corpus, user_dir, checkpoint):
    flags = ["--task", "translation_convtext", "--gen-subset", "valid"]
    large = generate(corpus, user_dir, checkpoint, *flags)
    alone = generate(corpus, user_dir, checkpoint, *flags, "--batch-size", 1)
    assert hypotheses(alone) == hypotheses(large)


def test_the_stock_generator_runs_the_network_once_a_batch(corpus, user_dir, checkpoint, monkeypatch):
    passes, steps, batches = [], [], []
    canvas, column, batch = BytenetDeconvDecoder.canvas, BytenetDeconvDecoder.next_column, SequenceGenerator._generate
    monkeypatch.setattr(BytenetDeconvDecoder, "canvas", lambda *a: passes.append(1) or canvas(*a))
    monkeypatch.setattr(BytenetDeconvDecoder, "next_column", lambda *a: steps.append(1) or column(*a))
    monkeypatch.setattr(SequenceGenerator, "_generate", lambda *a, **k: batches.append(1) or batch(*a, **k))
    generate(corpus, user_dir, checkpoint, "--beam", 3, "--gen-subset", "valid", "--batch-size", 20)
    assert len(passes) == len(batches) > 1
    assert len(steps) > 3 * len(batches)


def test_the_parallel_generator_takes_no_steps(corpus, user_dir, checkpoint, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(BytenetDeconvDecoder, "next_column", refuse)
    output = generate(
        corpus, user_dir, checkpoint, "--task", "translation_convtext", "--beam", 5, "--gen-subset", "valid"
    )
    assert len(lines(output, "H")) == SENTENCES["valid"]


def test_beams_give_distinct_hypotheses_best_first(corpus, user_dir, checkpoint):
    output = generate(corpus, user_dir, checkpoint, "--beam", 4, "--nbest", 4, "--gen-subset", "valid")
    greedy = hypotheses(generate(corpus, user_dir, checkpoint, "--beam", 1, "--gen-subset", "valid"))
    same = 0
    for key, found in lines(output, "H").items():
        scores = [float(line.split("\t")[0]) for line in found]
        assert len(found) == len(set(hypotheses(output)[key])) == 4
        assert scores == sorted(scores, reverse=True)
        same += hypotheses(output)[key][0] == greedy[key][0]
    assert same >= 0.9 * len(greedy)


def test_an_ensemble_of_the_same_model_twice_is_the_model(corpus, user_dir, checkpoint):
    one = generate(corpus, user_dir, checkpoint, "--gen-subset", "valid", "--beam", 2)
    for task in ("translation", "translation_convtext"):
        flags = ["--gen-subset", "valid", "--beam", 2, "--task", task, "--required-batch-size-multiple", 8]
        two = generate(corpus, user_dir, f"{checkpoint}:{checkpoint}", *flags)
        shared = lines(one, "H").keys() & lines(two, "H").keys()
        assert len(shared) >= 56
        assert all(hypotheses(one)[key] == hypotheses(two)[key] for key in shared)


def test_an_ensemble_of_two_models_gives_every_sentence_a_hypothesis(corpus, user_dir, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    for tensor in state["model"].values():
        if tensor.is_floating_point() and tensor.dim() > 1:
            tensor += 0.3 * tensor.std() * torch.randn_like(tensor)
    torch.save(state, tmp_path / "other.pt")
    flags = ["--gen-subset", "valid", "--beam", 2, "--task", "translation_convtext"]
    found = hypotheses(generate(corpus, user_dir, f"{checkpoint}:{tmp_path / 'other.pt'}", *flags))
    assert sorted(found) == list(range(SENTENCES["valid"]))
    assert all(text[0] for text in found.values())


@pytest.mark.parametrize(
    "flags", [["--max-len-b", 3], ["--min-len", 4], ["--min-len", 0], ["--temperature", 2.0], ["--unkpen", 1]]
)
def test_both_tasks_agree_on_options_of_the_search(corpus, user_dir, checkpoint, flags):
    flags = ["--gen-subset", "valid", "--beam", 1, "--required-batch-size-multiple", 1, *flags]
    stock = generate(corpus, user_dir, checkpoint, *flags)
    assert lines(generate(corpus, user_dir, checkpoint, *flags, "--task", "translation_convtext"), "H") == lines(
        stock, "H"
    )
    tokens = [len(found[0].split()) for found in hypotheses(stock).values()]
    if "--max-len-b" in flags:
        assert max(tokens) == 3
        # Which batches hold a hypothesis that is too long must not decide how wide the search is.
        wide = generate(corpus, user_dir, checkpoint, *flags, "--task", "translation_convtext", "--beam", 4)
        assert lines(wide, "H") == lines(stock, "H")
    if "--min-len" in flags and flags[-1]:
        assert min(tokens) >= 3  # a length that fairseq counts with EOS


@pytest.mark.parametrize("name, value, asks", [("min_len", 0, True), ("min_len", 1, False), ("sampling", None, False)])
def test_a_zero_asks_for_the_stock_generator_where_it_allows_more_and_none_does_not(name, value, asks):
    assert reasons_for_stock_generator([make_model()], Namespace(**{name: value}), None, {}) == [name] * asks


@pytest.mark.parametrize("task", ["translation", "translation_convtext"])
def test_interactive_keeps_the_place_of_empty_lines(corpus, user_dir, checkpoint, task):
    sources = ["1 2 3", "", "4 4", "", "5"]
    output = run(
        "interactive", corpus, "--user-dir", user_dir, "--path", checkpoint, "--task", task, "--beam", 1,
        "--source-lang", "d", "--target-lang", "l", "--buffer-size", 3, "--batch-size", 3,
        stdin="".join(f"{s}\n" for s in sources),
    )  # fmt: skip
    found = hypotheses(output)
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert all(text[0] for text in found.values())
    assert [found[key][0] for key in (0, 2, 4)] == [translate(sources[key]) for key in (0, 2, 4)]


def test_validate_reports_the_loss_of_the_checkpoint(corpus, user_dir, checkpoint, monkeypatch):
    reported = []
    monkeypatch.setattr(SimpleProgressBar, "print", lambda self, stats, **_: reported.append(stats["loss"]))
    flags = ["--batch-size", 20, "--required-batch-size-multiple", 1, "--log-format", "simple", *WORKERS]
    run("validate", corpus, "--user-dir", user_dir, "--task", "translation", "--path", checkpoint, *flags)
    saved = torch.load(checkpoint, weights_only=True)["extra_state"]["best"]
    assert reported == [pytest.approx(saved, abs=2e-3)]


def test_a_model_loaded_in_python_translates_one_or_many(corpus, user_dir, checkpoint):
    model = BytenetDeconvModel.from_pretrained(
        str(checkpoint.parent), checkpoint_file=checkpoint.name, data_name_or_path=str(corpus)
    )
    assert model.translate("1 2 3") == translate("1 2 3")
    sources = ["7 8", "9", "1 2 3 4 5"]
    assert model.translate(sources) == [translate(s) for s in sources]


def test_a_checkpoint_of_a_preset_without_younger_options_still_loads(corpus, user_dir, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    for name in ("compute_dtype", "growth_channels", "spatial_dropout"):
        del state["cfg"]["model"][name]
    torch.save(state, tmp_path / "old.pt")
    flags = ["--gen-subset", "valid", "--task", "translation_convtext"]
    old = generate(corpus, user_dir, tmp_path / "old.pt", *flags)
    assert lines(old, "H") == lines(generate(corpus, user_dir, checkpoint, *flags), "H")
