"""The model as fairseq's criterions and commands see it; its decoding is tested through the command lines."""

import logging
import math
from argparse import Namespace

import pytest
import torch
from fairseq.logging import metrics
from fairseq.models import ARCH_CONFIG_REGISTRY

from fairseq_convtext.decoding.prefix_beam import SearchOptions
from fairseq_convtext.models.bytenet_deconv import BytenetDeconvModel
from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig
from fairseq_convtext.modules.blocks import BLOCKS
from tests.small_model import make_batch, make_model, make_task

SOURCES = [[4, 5, 6, 7, 8, 9, 10], [9], [10, 11, 4]]
TARGETS = [[5, 6, 7, 8, 9], [7, 7], [8, 9, 10]]


def canvas_scores(model, batch):
    """What each sentence's own canvas holds, without what lies beyond its bound."""
    with torch.no_grad():
        logits, extra = model(**batch["net_input"])
    return [scores[:bound] for scores, bound in zip(logits, extra["bound"].tolist())]


VARIANTS = [
    dict(encoder_block=block, connectivity=connectivity, target_alignment=alignment)
    for block in BLOCKS
    for connectivity in ("residual", "dense")
    for alignment in ("position", "ctc")
]
VARIANTS += [dict(target_alignment="dag", upsample_strides=strides) for strides in ([2], [2, 2])]
VARIANTS += [dict(target_alignment="ctc", upsample_strides=strides) for strides in ([1], [3], [2, 2], [2, 3])]
VARIANTS += [dict(target_alignment="ctc", upsample_strides=[2, 1], intermediate_ctc_layers=[1, 2])]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_padding_and_batch_change_nothing(options):
    model = make_model(**options).eval()
    # Long enough that the position-wise canvas is not cut by the target.
    targets = [[4] * 30 for _ in SOURCES]
    right = canvas_scores(model, make_batch(SOURCES, targets))
    left = canvas_scores(model, make_batch(SOURCES, targets, left_pad=True))
    alone = [canvas_scores(model, make_batch([s], [t]))[0] for s, t in zip(SOURCES, targets)]
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, right, rtol=0, atol=1e-5)
    assert [len(scores) for scores in right] == [2 * (len(s) + 1) + 4 for s in SOURCES]


def test_a_canvas_position_sees_the_source_positions_that_the_formulas_say():
    model, size, position = make_model(target_alignment="ctc", max_target_positions=100).double().eval(), 36, 33
    batch = make_batch([[5] * (size - 1)])
    upsampler, embedded = model.decoder.upsampler, []
    handle = model.encoder.network.embed.register_forward_hook(
        lambda module, inputs, output: embedded.append(output.detach().requires_grad_()) or embedded[-1]
    )
    logits, _ = model(**batch["net_input"], prev_output_tokens=torch.full((1, 1), 2))
    handle.remove()
    logits[0, position].sum().backward()
    seen = embedded[0].grad[0].abs().sum(dim=1).nonzero()[:, 0].tolist()
    on_canvas = upsampler.stacks[0].receptive_field // 2
    in_source = model.encoder.network.stack.receptive_field // 2
    # Stride 2 and kernel 4 with padding 1: output o sees inputs (o - 2) / 2 rounded up to (o + 1) / 2 rounded down.
    first, last = -(-(position - on_canvas - 2) // 2) - in_source, (position + on_canvas + 1) // 2 + in_source
    assert 0 < first and last < size - 1
    assert seen == list(range(first, last + 1))


@pytest.mark.parametrize("alignment", ["position", "ctc", "dag"])
def test_the_stock_generator_is_led_along_the_hypothesis_that_was_read(alignment):
    torch.manual_seed(3)
    model = make_model(target_alignment=alignment).eval()
    encoder_out = model.encoder(**make_batch(SOURCES)["net_input"])
    best, eos = model.decoder.one_pass(encoder_out), model.decoder.eos
    tokens = torch.cat([torch.full((len(SOURCES), 1), eos), best.tokens], dim=1)
    for t in range(best.tokens.size(1)):
        log_probs = model.decoder(tokens[:, : t + 1], encoder_out=encoder_out, incremental_state={})[0][:, 0]
        for row in (t < best.lengths).nonzero()[:, 0].tolist():
            if t == 0 and alignment == "position":
                log_probs[row, eos] = -math.inf  # --min-len 1
            assert int(log_probs[row].argmax()) == int(best.tokens[row, t])
            assert float(log_probs[row].max()) == float(best.log_probs[row, t])


def test_a_long_graph_is_searched_to_its_end_although_improbable_jumps_are_not_tried():
    model = make_model(target_alignment="dag", max_source_positions=200, max_target_positions=500).eval()
    links = model.decoder.alignment.links
    torch.nn.init.zeros_(links.weight)
    links.bias.data = torch.tensor([0.7, 0.2, 0.05, 0.018, *[0.004] * 8]).log()
    encoder_out = model.encoder(**make_batch([[4, 5, 6, 7] * 45])["net_input"])
    assert int(encoder_out["bound"]) == 366
    found = model.decoder.search(encoder_out, SearchOptions(beam=3))
    assert int(found.lengths[0, 0]) > 60


def test_a_column_offers_whatever_a_prefix_may_force_but_padding_and_the_blank():
    torch.manual_seed(0)
    model = make_model(target_alignment="ctc").eval()
    dictionary, seen = model.decoder.dictionary, 0
    encoder_out = model.encoder(**make_batch(SOURCES)["net_input"])
    best = model.decoder.one_pass(encoder_out)
    for t in range(1, best.tokens.size(1)):
        # As if the prefix had repeated what stands at t.
        tokens = torch.cat([torch.full((len(SOURCES), 1), dictionary.eos()), best.tokens[:, :t]], dim=1)
        log_probs = model.decoder(tokens, encoder_out=encoder_out, incremental_state={})[0][:, 0]
        allowed = torch.ones(len(dictionary), dtype=torch.bool)
        allowed[[dictionary.pad(), dictionary.bos()]] = False
        assert log_probs[:, allowed].isfinite().all() and log_probs[:, ~allowed].isneginf().all()
        seen += int(best.adjacent[:, t].sum())
    assert seen  # places where a token must not follow itself


def test_the_projection_is_computed_for_target_positions_only_and_targets_match_it():
    model, batch = make_model(), make_batch(SOURCES, TARGETS)
    output = model(**batch["net_input"])
    assert output[0].shape[:2] == batch["target"].shape
    assert torch.equal(model.get_targets(batch, output), batch["target"])


def test_targets_beyond_the_bound_are_cut_counted_and_warned_of_once(caplog):
    model = make_model(length_bound_a=1.0, length_bound_b=1.0)
    # Bounds 9, 3 and 5; targets with EOS have 11, 3 and 6 tokens.
    batch = make_batch(SOURCES, [[5] * 10, [7, 7], [8] * 5])
    pad = model.decoder.pad
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        with metrics.aggregate() as aggregator:
            output = model(**batch["net_input"])
            target = model.get_targets(batch, output)
        assert aggregator.get_smoothed_values()["beyond_bound"] == 2 + 0 + 1
    assert target.ne(pad).sum(dim=1).tolist() == [9, 3, 5]
    assert target.shape == output[0].shape[:2] and target.is_contiguous()
    warnings = [record.getMessage() for record in caplog.records if "length bound" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith("3 of 20 target tokens of this batch lie beyond the length bound")


def test_compute_dtype_acts_in_training_only():
    task = make_task()
    model, reference = make_model(task, compute_dtype="bfloat16"), make_model(task)
    reference.load_state_dict(model.state_dict())
    batch = make_batch(SOURCES, TARGETS)
    assert model.train()(**batch["net_input"])[0].dtype == torch.bfloat16
    assert reference.train()(**batch["net_input"])[0].dtype == torch.float32
    found, wanted = (m.eval()(**batch["net_input"])[0] for m in (model, reference))
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_parameters_that_fp16_has_halved_decide_in_the_place_of_compute_dtype():
    task = make_task()
    model = make_model(task, compute_dtype="bfloat16").half().train()
    try:
        found = model(**make_batch(SOURCES, TARGETS)["net_input"])[0]
    except RuntimeError as error:
        if "not implemented for 'Half'" not in str(error):
            raise
        pytest.skip("this torch has no products of float16 on the CPU")
    assert found.dtype == torch.float16


def test_share_all_embeddings_makes_one_matrix():
    task = make_task()
    shared, separate = make_model(task, share_all_embeddings=True), make_model(task)
    assert shared.decoder.project.weight is shared.encoder.network.embed.weight
    assert separate.decoder.project.weight is not separate.encoder.network.embed.weight
    count = {model: sum(p.numel() for p in model.parameters()) for model in (shared, separate)}
    assert count[separate] - count[shared] == len(task.target_dictionary) * 16


# Symbols of the joined vocabulary that such a corpus takes, and the millions of parameters that README.md promises.
PRESETS = {
    "bytenet_deconv": (10000, 17.7),
    "bytenet_deconv_tiny": (4000, 3.1),
    "bytenet_deconv_iwslt_de_en": (10000, 17.7),
    "bytenet_deconv_wmt_en_de": (32000, 110.6),
    "densenet_deconv": (10000, 18.5),
}


@pytest.mark.parametrize("arch", list(PRESETS))
def test_a_preset_has_the_size_that_it_promises(arch):
    symbols, promised = PRESETS[arch]
    options = Namespace(share_all_embeddings=True, max_source_positions=1024, max_target_positions=1024)
    ARCH_CONFIG_REGISTRY[arch](options)
    # Without memory: only shapes count.
    with torch.device("meta"):
        model = BytenetDeconvModel.build_model(BytenetDeconvConfig.from_namespace(options), make_task(symbols - 4))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert millions == pytest.approx(promised, abs=0.05)


def test_the_command_line_overrides_a_preset():
    options = Namespace(encoder_channels=64)
    ARCH_CONFIG_REGISTRY["bytenet_deconv_tiny"](options)
    assert options.encoder_channels == 64


@pytest.mark.parametrize("alignment", ["ctc", "dag"])
def test_both_passes_of_glancing_draw_the_same_dropout_masks(alignment):
    torch.manual_seed(0)
    model = make_model(target_alignment=alignment, dropout=0.5, spatial_dropout=0.3, word_dropout=0.3).train()
    batch, first = make_batch([[4, 5, 6, 7, 8], [9, 10]], [[4, 5], [6]])["net_input"], []

    def glance(logits, output):  # looks and shows nothing
        first.append(logits)
        return torch.zeros(logits.shape[:2], dtype=torch.long), torch.zeros(logits.shape[:2], dtype=torch.bool)

    second = model(**batch, glance=glance)[0]
    torch.testing.assert_close(first[0], second.detach())
    assert not torch.allclose(model(**batch)[0], second)  # other masks


def test_targets_are_cut_for_a_criterion_that_reads_every_sentence_twice():
    model = make_model(target_alignment="position", length_bound_a=0.5, length_bound_b=1.0)
    batch = make_batch([[4, 5, 6, 7], [9]], [[4, 5, 6, 7], [6, 7]])
    net_input = {name: torch.cat([value, value]) for name, value in batch["net_input"].items()}
    once, twice = (model.get_targets(batch, model(**inputs)) for inputs in (batch["net_input"], net_input))
    assert torch.equal(once, twice) and not torch.equal(once, batch["target"])
