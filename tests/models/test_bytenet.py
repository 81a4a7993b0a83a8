"""The model as fairseq's criterions and generators see it."""

from argparse import Namespace

import pytest
import torch
from fairseq.models import ARCH_CONFIG_REGISTRY

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.bytenet import BytenetModel
from fairseq_convtext.models.bytenet_config import BytenetConfig
from fairseq_convtext.modules.blocks import BLOCKS
from tests.small_model import make_batch, make_task

SMALL = {
    "encoder_channels": 16,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "growth_channels": 4,
    "dilations": [1, 2],
    "length_bound_b": 1.0,
    "max_source_positions": 40,
    "max_target_positions": 50,
    "dropout": 0.0,
}
# Bounds 11, 4 and 6; the first target ends inside its bound, the others beyond it.
SOURCES = [[4, 5, 6, 7, 8, 9, 10], [9], [10, 11, 4]]
TARGETS = [[5, 6, 7, 8, 9], [7, 7, 4, 5, 6, 7, 8, 9], [8, 9, 10, 4, 5, 6]]


def make_model(task=None, **options):
    return BytenetModel.build_model(BytenetConfig(**{**SMALL, **options}), task or make_task())


def sentence_scores(model, batch):
    """The scores of every sentence's own tokens."""
    with torch.no_grad():
        logits, _ = model(**batch["net_input"])
    return [scores[: len(target) + 1] for scores, target in zip(logits, TARGETS)]


def step_by_step(model, net_input):
    """The scores of every token, each from the tokens before it and what the decoder kept."""
    tokens, state, scores = net_input["prev_output_tokens"], {}, []
    with torch.no_grad():
        encoder_out = model.encoder.forward_torchscript(net_input)
        for t in range(tokens.size(1)):
            logits, extra = model.decoder(tokens[:, : t + 1], encoder_out=encoder_out, incremental_state=state)
            assert logits.size(1) == 1 and extra["attn"] == [None]
            scores.append(logits)
    return torch.cat(scores, dim=1)


@pytest.mark.parametrize("connectivity", ["residual", "dense"])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_padding_and_batch_change_nothing(block, connectivity):
    model = make_model(encoder_block=block, connectivity=connectivity).eval()
    right = sentence_scores(model, make_batch(SOURCES, TARGETS))
    left = sentence_scores(model, make_batch(SOURCES, TARGETS, left_pad=True))
    with torch.no_grad():
        alone = [model(**make_batch([s], [t])["net_input"])[0][0] for s, t in zip(SOURCES, TARGETS)]
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_step_by_step_the_scores_are_those_of_the_whole(block, left_pad):
    model = make_model(encoder_block=block).eval()
    batch = make_batch(SOURCES, TARGETS, left_pad)
    whole, together = sentence_scores(model, batch), step_by_step(model, batch["net_input"])
    for row, scores in enumerate(whole):
        alone = step_by_step(model, make_batch([SOURCES[row]], [TARGETS[row]])["net_input"])
        torch.testing.assert_close(together[row, : len(scores)], scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(alone[0], scores, rtol=0, atol=1e-5)


# What a beam search of two beams does before step t: beams go on from one or change places; at step 4 the second
# sentence is finished and its rows are gone.
ORDERS = {1: [0, 0, 2, 2, 4, 4], 3: [1, 0, 3, 3, 4, 5], 4: [1, 1, 5, 4], 6: [0, 1, 3, 3], 7: [1, 0, 2, 3]}


@pytest.mark.parametrize("left_pad", [False, True])
def test_step_by_step_the_scores_follow_the_beams(left_pad):
    model, state = make_model().eval(), {}
    tokens, sentence = torch.full((6, 1), 2), torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.no_grad():
        encoder_out = model.encoder.forward_torchscript(make_batch(SOURCES, left_pad=left_pad)["net_input"])
        encoder_out = model.encoder.reorder_encoder_out(encoder_out, sentence)
        for t in range(10):
            if t in ORDERS:
                order = torch.tensor(ORDERS[t])
                model.decoder.reorder_incremental_state_scripting(state, order)
                encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
                tokens, sentence = tokens[order], sentence[order]
            scores, _ = model.decoder(tokens, encoder_out=encoder_out, incremental_state=state)
            net_input = make_batch([SOURCES[number] for number in sentence], left_pad=left_pad)["net_input"]
            whole, _ = model(**net_input, prev_output_tokens=tokens)
            torch.testing.assert_close(scores[:, -1], whole[:, -1], rtol=0, atol=1e-5)
            tokens = torch.cat([tokens, torch.randint(4, 16, (len(tokens), 1))], dim=1)


def test_a_step_reads_the_new_token_only(monkeypatch):
    model, read = make_model().eval(), []
    stack = model.decoder.stack.forward
    monkeypatch.setattr(model.decoder.stack, "forward", lambda x, *a, **k: read.append(x.size(1)) or stack(x, *a, **k))
    step_by_step(model, make_batch(SOURCES, TARGETS)["net_input"])
    assert read == [1] * 9


@pytest.mark.parametrize("block", list(BLOCKS))
def test_no_score_depends_on_a_later_target_token(block):
    model = make_model(encoder_block=block).eval()
    net_input = make_batch(SOURCES, [[4] * 11 for _ in SOURCES])["net_input"]
    tokens = net_input.pop("prev_output_tokens")
    with torch.no_grad():
        whole, _ = model(**net_input, prev_output_tokens=tokens)
        for t in range(tokens.size(1) - 1):
            later = tokens.clone()
            later[:, t + 1] = 7
            changed, _ = model(**net_input, prev_output_tokens=later)
            torch.testing.assert_close(changed[:, : t + 1], whole[:, : t + 1], rtol=0, atol=1e-6)
            assert not torch.isclose(changed[:, t + 1], whole[:, t + 1]).all(dim=1).any()


@pytest.mark.parametrize("block", list(BLOCKS))
def test_a_score_sees_as_many_target_tokens_as_the_receptive_field_says(block):
    model = make_model(encoder_block=block, dilations=[2, 1, 4]).eval()
    field = model.decoder.stack.receptive_field
    assert field == 1 + 2 * (2 + 1 + 4)
    net_input = make_batch(SOURCES[:1], [[4] * 29])["net_input"]
    tokens = net_input.pop("prev_output_tokens")
    with torch.no_grad():
        whole, _ = model(**net_input, prev_output_tokens=tokens)
        tokens[:, 3] = 7
        changed, _ = model(**net_input, prev_output_tokens=tokens)
    differs = (changed - whole).abs().amax(dim=2)[0].gt(1e-7)
    assert differs.nonzero()[:, 0].tolist() == list(range(3, 3 + field))


def test_the_source_is_lengthened_to_its_bound_and_never_cut():
    batch = make_batch(SOURCES)["net_input"]
    for a, b, lengths in ((1.2, 1.0, [11, 4, 6]), (1.0, 0.0, [8, 2, 4]), (0.5, 0.0, [8, 2, 4])):
        encoder_out = make_model(length_bound_a=a, length_bound_b=b).encoder(batch["src_tokens"])
        assert encoder_out["lengths"].tolist() == lengths
        assert encoder_out["features"].size(1) == max(lengths)
    assert make_model(max_target_positions=9).encoder(batch["src_tokens"])["lengths"].tolist() == [9, 4, 6]


def test_the_first_target_token_sees_the_source_as_far_as_the_encoder_does():
    model = make_model().eval()
    assert model.encoder.network.stack.receptive_field == 9
    net_input = make_batch(SOURCES, TARGETS)["net_input"]
    seen = []
    with torch.no_grad():
        first = model(**net_input)[0][0, 0].clone()
        for position in range(7):
            changed = {**net_input, "src_tokens": net_input["src_tokens"].clone()}
            changed["src_tokens"][0, position] = 12
            if not torch.allclose(model(**changed)[0][0, 0], first, rtol=0, atol=1e-7):
                seen.append(position)
    assert seen == [0, 1, 2, 3, 4]


def test_every_parameter_gets_a_gradient_whatever_the_lengths():
    # Else several processes could not train it.
    model = make_model(length_bound_a=2.0)
    model(**make_batch(SOURCES[:1], TARGETS[:1])["net_input"])[0].sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_compute_dtype_acts_in_training_only():
    model, batch = make_model(compute_dtype="bfloat16"), make_batch(SOURCES, TARGETS)
    assert model.train()(**batch["net_input"])[0].dtype == torch.bfloat16
    assert model.eval()(**batch["net_input"])[0].dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_share_all_embeddings_makes_one_matrix():
    task = make_task()
    shared, separate = make_model(task, share_all_embeddings=True), make_model(task)
    assert shared.decoder.project.weight is shared.decoder.embed.weight is shared.encoder.network.embed.weight
    count = {model: sum(p.numel() for p in model.parameters()) for model in (shared, separate)}
    assert count[separate] - count[shared] == 2 * len(task.target_dictionary) * 16


# Symbols of the joined vocabulary that such a corpus takes, and the millions of parameters.
PRESETS = {"bytenet": (10000, 19.3), "bytenet_tiny": (4000, 4.0), "bytenet_wmt_en_de": (32000, 107.5)}


@pytest.mark.parametrize("arch", list(PRESETS))
def test_a_preset_has_the_size_that_it_promises(arch):
    symbols, promised = PRESETS[arch]
    options = Namespace(share_all_embeddings=True, max_source_positions=1024, max_target_positions=1024)
    ARCH_CONFIG_REGISTRY[arch](options)
    # Without memory: only shapes count.
    with torch.device("meta"):
        model = BytenetModel.build_model(BytenetConfig.from_namespace(options), make_task(symbols - 4))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert millions == pytest.approx(promised, rel=0.02)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"encoder_channels": 1}, "--encoder-channels must be at least 2; found 1."),
        ({"decoder_layers": 0}, "--decoder-layers must be at least 1; found 0."),
        ({"length_bound_a": -1.0}, "--length-bound-a must be at least 0; found -1.0."),
        ({"max_target_positions": 1}, "--max-target-positions must be at least 2 .a token and EOS.; found 1."),
        ({"word_dropout": 1.0}, "--word-dropout must be at least 0 and below 1; found 1.0."),
        ({"kernel_size": 4}, "--kernel-size must be odd"),
        ({"dilations": []}, "--dilations must name at least one"),
        ({"encoder_block": "transformer"}, "--encoder-block must be one of"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_flag(options, message):
    with pytest.raises(ConvTextError, match=message):
        make_model(**options)


def test_a_source_beyond_the_limit_is_refused():
    with pytest.raises(ConvTextError, match="6 tokens .EOS included., the limit is 5: .* --max-source-positions"):
        make_model(max_source_positions=5).encoder(torch.full((1, 6), 4))


def test_padding_does_not_count_against_the_limit_of_the_source():
    encoder, source = make_model(max_source_positions=5).eval().encoder, torch.full((1, 5), 4)
    pad = torch.full((1, 3), encoder.dictionary.pad())
    padded = encoder(torch.cat([pad, source], dim=1))
    torch.testing.assert_close(padded["features"], encoder(source)["features"])
