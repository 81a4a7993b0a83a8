"""scripts/estimate_training.py: operations against sums by hand, memory against a measured run."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("fairseq")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.append(str(SCRIPTS))
import estimate_training as script  # noqa: E402
import step_counters  # noqa: E402
import training_cost  # noqa: E402

from fairseq_convtext.modules.convolution import DilatedConv  # noqa: E402
from fairseq_convtext.modules.upsampler import Upsample  # noqa: E402

NEW_ENOUGH = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) >= step_counters.OLDEST_TORCH
needs_new_torch = pytest.mark.skipif(not NEW_ENOUGH, reason="needs torch 2.6")
SMALL = ["--vocabulary", "50", "--length", "7"]
OURS = ["--encoder-channels", "16", "--encoder-layers", "2", "--decoder-layers", "2"]
STOCK = {
    "fconv": ["--encoder-layers", "[(16, 3)]", "--decoder-layers", "[(16, 3)]", "--encoder-embed-dim", "16",
              "--decoder-embed-dim", "16", "--decoder-out-embed-dim", "16"],
    "transformer": ["--encoder-layers", "1", "--decoder-layers", "1", "--encoder-embed-dim", "16",
                    "--decoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32", "--decoder-ffn-embed-dim", "32"],
}  # fmt: skip


def options_of(*arguments, flags=()):
    return script.parse_options(["--arch", "unused", *arguments, "--", *flags])


def runner(model, criterion, options, sentences):
    sample = training_cost.make_sample(sentences, options)
    return lambda: training_cost.loss_of(model, criterion, sample, options.precision)


@needs_new_torch
def test_a_stack_of_linear_layers_is_counted_exactly():
    stack, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(10, 8)
    forward, backward = step_counters.count_flops(stack, lambda: stack(x).sum())
    assert forward == 2 * 10 * (8 * 32 + 32 * 4)
    # Both factors of each product get a gradient, but for the input.
    assert backward == 2 * forward - 2 * 10 * 8 * 32


@needs_new_torch
def test_activations_of_a_stack_of_linear_layers_are_its_hidden_values():
    stack, x = nn.Sequential(nn.Linear(8, 1000), nn.ReLU(), nn.Linear(1000, 1)), torch.randn(50, 8)
    peak, uncounted = step_counters.peak_activations(stack, lambda: stack(x).sum())
    # In forward what goes into ReLU and what comes out stand side by side; gradients of the size come later.
    assert peak == pytest.approx(2 * 50 * 1000 * 4, rel=0.02) and not uncounted


@needs_new_torch
@pytest.mark.parametrize("block", ["bytenet", "glu"])
def test_every_product_of_our_layers_is_counted(block):
    options = options_of(*SMALL, "--precision", "float32", flags=[*OURS, "--encoder-block", block])
    model, criterion = training_cost.build("bytenet_deconv_tiny", options)
    products = []

    def note(module, inputs, output):
        # A transposed convolution multiplies once for each of its inputs, all others for each of their outputs.
        weight, at = (module.conv.weight, inputs[0]) if isinstance(module, Upsample) else (module.weight, output)
        products.append(2 * weight.numel() * at.size(0) * at.size(1))

    for module in model.modules():
        if isinstance(module, (nn.Linear, DilatedConv, Upsample)):
            module.register_forward_hook(note)
    forward, backward = step_counters.count_flops(model, runner(model, criterion, options, 3))
    assert len(products) > 5 and forward == sum(products)
    assert backward == 2 * forward


@needs_new_torch
@pytest.mark.parametrize("arch", ["bytenet_deconv_tiny", *STOCK])
def test_twice_the_tokens_are_twice_the_operations_and_none_is_missed(arch):
    options = options_of(*SMALL, flags=STOCK.get(arch, OURS))
    model, criterion = training_cost.build(arch, options)
    once, twice = (sum(step_counters.count_flops(model, runner(model, criterion, options, n))) for n in (2, 4))
    assert twice == 2 * once
    assert step_counters.peak_activations(model, runner(model, criterion, options, 2))[1] == set()


@needs_new_torch
@pytest.mark.parametrize("arch", STOCK)
def test_products_that_only_our_counter_knows_matter(arch):
    options = options_of(*SMALL, flags=STOCK[arch])
    model, criterion = training_cost.build(arch, options)
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    with counter:
        runner(model, criterion, options, 2)()
    assert step_counters.count_flops(model, runner(model, criterion, options, 2))[0] > 1.05 * counter.get_total_flops()


COST = {"parameters": 10**6, "forward": 1e9, "backward": 2e9, "fixed": 2e6, "per_token": 1e5, "uncounted": []}


def test_hours_follow_tokens_updates_gpus_and_utilisation():
    def hours(*arguments):
        return script.hours(COST, script.Gpu(100, 80, ""), options_of(*arguments))

    # 3 GFLOP x 1,000 tokens x 36,000 updates at 30 TFLOP/s are 3,600 seconds.
    base = ["--tokens", "1000", "--updates", "36000"]
    assert hours(*base) == pytest.approx(1.0)
    assert hours(*base, "--gpus", "4") == pytest.approx(0.25)
    assert hours(*base, "--utilisation", "0.6") == pytest.approx(0.5)
    assert hours(*base, "--tokens", "2000") == pytest.approx(2.0)


def test_the_tokens_that_fit_fill_the_usable_memory():
    fit = script.tokens_that_fit(COST, 24)
    room = script.USABLE * 24 * 2**30
    assert script.memory(COST, fit) <= room < script.memory(COST, fit + 1)
    assert script.memory(COST, 0) == 16e6 + 2e6
    assert script.tokens_that_fit({**COST, "parameters": 10**10}, 24) == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives back what lies between blocks")
def test_memory_that_small_blocks_left_is_not_there_for_what_is_measured():
    blocks = [bytearray(b"x" * 10_000) for _ in range(4000)]
    occupied = training_cost.current_rss()
    del blocks[:-1]
    training_cost.give_back_freed_memory()
    assert training_cost.current_rss() < occupied - 30_000_000


@needs_new_torch
def test_the_memory_of_a_real_run_is_within_a_fifth_of_the_estimate():
    command = [sys.executable, SCRIPTS / "estimate_training.py", "--arch", "bytenet_deconv_tiny", "--threads", "1"]
    command += ["--vocabulary", "4000", "--measure", "--steps", "1", "--measure-tokens", "3000", "--gpu", "A100,T4"]
    # In float32, which every processor multiplies fast. The libraries' own memory is a tenth of so large a step.
    command += ["--precision", "float32"]
    done = subprocess.run([*map(str, command), "--", "--decoder-layers", "5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tables = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| bytenet")]
    cost, memory, hours, measured = ([cell.strip() for cell in row] for row in tables)
    assert len(hours) == 3 and "312" in done.stdout and "1 thread" in done.stdout
    forward, backward = float(cost[2]), float(cost[3])
    assert backward == pytest.approx(2 * forward, rel=0.01)
    assert measured[1] == "3,000"
    assert float(measured[3]) == pytest.approx(3 * (forward + backward), rel=0.01)
    assert 0.8 < float(measured[6].replace(",", "")) / float(measured[5].replace(",", "")) < 1.2


@needs_new_torch
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--arch", "no_such_model"], "--arch no_such_model"),
        (["--arch", "transformer_lm"], "--arch transformer_lm"),
        (["--arch", "bytenet_deconv", "--", "--kernel-size", "2"], "--kernel-size"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(arguments, expected, capfd, monkeypatch):
    monkeypatch.setattr(script, "in_fresh_process", lambda function, *rest: function(*rest))
    monkeypatch.setattr(training_cost, "prepare", lambda options: torch)
    assert script.main(arguments) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and expected in error


@pytest.mark.parametrize("flags", [["--gpu", "A100,ABC"], ["--utilisation", "2"], ["--length", "1"], ["--tokens", "0"]])
def test_options_that_make_no_sense_are_usage_errors(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(["--arch", "transformer", *flags])
    assert stopped.value.code == 2 and flags[0] in capsys.readouterr().err
