"""What a CTC search with a language model tries at each position."""

import torch

from fairseq_convtext.decoding.ngram import train_ngram
from fairseq_convtext.decoding.prefix_beam import SearchOptions
from fairseq_convtext.models.common import prepare_for_inference
from fairseq_convtext.modules.masking import padding_mask
from tests.int8 import needs_int8
from tests.small_model import make_batch, make_model, make_task

SOURCES = [[4, 9, 6, 12, 5], [7], [8, 8, 15]]
TASK = make_task()
SYMBOLS, BOS, EOS = len(TASK.target_dictionary), 0, 2


def options_of(text):
    lm = train_ngram(text, order=2, vocabulary=SYMBOLS, start=BOS, eos=EOS)
    return SearchOptions(candidates=3, lm=lm, lm_weight=0.3)


def encoded(model):
    with torch.no_grad():
        return model.encoder(make_batch(SOURCES)["net_input"]["src_tokens"])


def inside(encoder_out, table):
    """What a table ``(batch, positions, ...)`` has within the bounds of the sentences."""
    return table[torch.arange(table.size(1)) < encoder_out["bound"][:, None]]


@torch.no_grad()
def test_only_tokens_of_the_text_are_tried_with_the_probabilities_among_the_best():
    torch.manual_seed(0)
    model = make_model(TASK, target_alignment="ctc").eval()
    text = [[5, 7, 5], [9, 11]]
    encoder_out = encoded(model)
    found = [inside(encoder_out, table) for table in model.decoder.candidates(encoder_out, options_of(text))]
    logits = inside(encoder_out, model.decoder.project(model.decoder.canvas(encoder_out)))
    written = torch.tensor([5, 7, 9, 11])
    best = logits[:, written].topk(3, dim=1)
    assert torch.equal(found[0], written[best.indices])
    among = torch.cat([best.values, logits[:, [model.decoder.blank]]], dim=1).log_softmax(dim=1)
    torch.testing.assert_close(found[1], among[:, :-1])
    torch.testing.assert_close(found[2], among[:, -1])


@needs_int8
@torch.no_grad()
def test_in_int8_the_tokens_of_the_text_have_the_scores_of_the_whole_vocabulary():
    torch.manual_seed(0)
    model = make_model(TASK, target_alignment="ctc").eval()
    options = options_of([[5, 7, 5], [9, 11]])
    model.decoder.candidates(encoded(model), options)  # keeps rows of float32
    prepare_for_inference(model, "int8")
    encoder_out = encoded(model)
    found = [inside(encoder_out, table) for table in model.decoder.candidates(encoder_out, options)]
    canvas = model.decoder.canvas(encoder_out)
    # As a search does: with a scale for each sentence, not for each position.
    mask = padding_mask(encoder_out["bound"], canvas.size(1))
    logits = inside(encoder_out, model.decoder.project.convolved(canvas, mask, 1, 1))
    among = torch.cat([logits.gather(1, found[0]), logits[:, [model.decoder.blank]]], dim=1).log_softmax(dim=1)
    torch.testing.assert_close(found[1], among[:, :-1])
    torch.testing.assert_close(found[2], among[:, -1])


@torch.no_grad()
def test_without_a_language_model_everything_is_tried_that_a_canvas_may_write():
    torch.manual_seed(1)
    model = make_model(TASK, target_alignment="ctc").eval()
    encoder_out = encoded(model)
    options = SearchOptions(candidates=100)
    found = [inside(encoder_out, table) for table in model.decoder.candidates(encoder_out, options)]
    logits = inside(encoder_out, model.decoder.project(model.decoder.canvas(encoder_out)))
    written = torch.arange(3, SYMBOLS)  # neither the blank (bos) nor padding nor EOS
    best = logits[:, [*written, BOS]].log_softmax(dim=1)[:, :-1].sort(dim=1, descending=True)
    assert torch.equal(found[0], written[best.indices])
    torch.testing.assert_close(found[1], best.values)


def test_changed_weights_and_another_language_model_count_at_once():
    torch.manual_seed(2)
    model = make_model(TASK, target_alignment="ctc").eval()
    options = options_of([[5, 7, 5], [9, 11]])

    def scores(options=options):
        with torch.no_grad():
            return model.decoder.candidates(encoded(model), options).log_probs

    first = scores()
    torch.testing.assert_close(scores(), first)
    assert scores(options_of([[6, 8, 10]])).ne(first).any()
    model.train()
    model.decoder.project.weight.data.mul_(1.5)  # as an optimiser of flat buffers does it: no version is counted
    model.eval()
    second = scores()
    assert second.ne(first).any()
    with torch.no_grad():
        model.decoder.project.bias.add_(torch.arange(SYMBOLS))
    third = scores()
    assert third.ne(second).any()
    model.load_state_dict({name: 0.5 * value for name, value in model.state_dict().items()})
    fourth = scores()
    assert fourth.ne(third).any()
    for factor in (2.0, 3.0):  # other tensors, which have not been changed since
        project = model.decoder.project
        state = {name: factor * value for name, value in project.state_dict().items()}
        project.load_state_dict(state, assign=True)
        assert scores().ne(fourth).any()
        fourth = scores()
    assert model.bfloat16().decoder.candidates(encoded(model), options).log_probs.dtype == torch.float32
