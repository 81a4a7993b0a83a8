"""How probable a model finds given translations, many of each sentence, in one pass and without a loop over positions.

A CTC canvas is written once for a sentence, and each translation is summed over its alignments. An autoregressive
model reads each translation as in training, all positions at once (noisy parallel decoding, arXiv 1711.02281, section
3.3): it knows which neighbours agree, which a canvas cannot.
"""

import math
from typing import Any, Dict, List, NamedTuple, Sequence

import torch
from torch import Tensor

from fairseq_convtext.decoding.prefix_beam import Prefixes
from fairseq_convtext.losses.ctc import log_likelihoods

# What an impossible translation costs in nats, so that one model alone does not forbid it for all.
IMPOSSIBLE = -1e4


def writes_ctc_canvas(model: Any) -> bool:
    """Whether the model's translations are read off a CTC canvas."""
    return bool(getattr(getattr(model, "decoder", None), "is_ctc", False))


def is_autoregressive(model: Any) -> bool:
    """Whether the model predicts each token from those before it: any encoder-decoder of fairseq without a canvas."""
    decoder = getattr(model, "decoder", None)
    return hasattr(model, "encoder") and decoder is not None and not hasattr(decoder, "is_ctc")


@torch.no_grad()
def translation_log_probs(
    model: Any, net_input: Dict[str, Tensor], rows: Tensor, targets: Tensor, lengths: Tensor, eos: int
) -> Tensor:
    """log p(translation | source) in nats of each of several translations.

    Args:
        model: a model that ``writes_ctc_canvas`` or ``is_autoregressive``, in evaluation mode.
        net_input: of a batch of fairseq: ``src_tokens`` (batch, positions) and ``src_lengths`` (batch,).
        rows: ``(translations,)`` which sentence of the batch each of them translates.
        targets: ``(translations, tokens)`` ids without EOS, padded on the right with any id of the vocabulary.
        lengths: ``(translations,)`` tokens in use.
        eos: id of EOS, which starts and ends what an autoregressive model reads.

    Returns:
        float32 ``(translations,)``, IMPOSSIBLE at least.
    """
    encoder_out = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
    if writes_ctc_canvas(model):
        decoder = model.decoder
        logits = decoder.project(decoder.canvas(encoder_out))
        scores = log_likelihoods(logits, rows, targets, encoder_out["bound"], lengths, decoder.blank)
    else:
        scores = _autoregressive(model, model.encoder.reorder_encoder_out(encoder_out, rows), targets, lengths, eos)
    return scores.clamp(min=IMPOSSIBLE)


def _autoregressive(model: Any, encoder_out: Any, targets: Tensor, lengths: Tensor, eos: int) -> Tensor:
    begin = targets.new_full((targets.size(0), 1), eos)
    logits, _ = model.decoder(torch.cat([begin, targets], dim=1), encoder_out=encoder_out)
    columns = torch.arange(targets.size(1) + 1, device=targets.device)
    # A row for each translation: its tokens, then EOS, and what lies beyond counts nothing.
    expected = torch.cat([targets, begin], dim=1).masked_fill(columns == lengths[:, None], eos)
    log_probs = logits.gather(2, expected[:, :, None])[:, :, 0].float() - logits.float().logsumexp(dim=2)
    return log_probs.masked_fill(columns > lengths[:, None], 0.0).sum(dim=1)


class Judges(NamedTuple):
    """Models that have a say in which hypothesis of a search is the best.

    Attributes:
        models: see ``translation_log_probs``.
        weights: of each model's log-probability; that of the search has 1.
        token_bonus: added for every token besides the search's own; judges, too, prefer what is short.
    """

    models: List[Any]
    weights: List[float]
    token_bonus: float = 0.0


def hypotheses_in(prefixes: Prefixes) -> Tensor:
    """``(batch, beam)``: where there is a prefix that can be a translation; the empty one cannot."""
    return (prefixes.score > -math.inf) & (prefixes.lengths > 0)


def judgements(model: Any, net_input: Dict[str, Tensor], prefixes: Prefixes, eos: int) -> Tensor:
    """``(batch, beam)`` log-probability of each prefix as a whole translation, on the CPU; 0 where there is none."""
    there, device = hypotheses_in(prefixes), net_input["src_tokens"].device
    rows, places = there.nonzero(as_tuple=True)
    lengths = prefixes.lengths[rows, places]
    targets = prefixes.tokens[rows, places, : int(lengths.max())]
    scores = translation_log_probs(model, net_input, rows.to(device), targets.to(device), lengths.to(device), eos)
    found = torch.zeros_like(prefixes.score)
    found[there] = scores.cpu().to(found.dtype)
    return found


def combined(prefixes: Prefixes, judged: Sequence[Tensor], weights: Sequence[float], token_bonus: float) -> Tensor:
    """``(batch, beam)`` score of the search and the judges together; -inf where there is no translation."""
    total = prefixes.score + sum(weight * scores for weight, scores in zip(weights, judged))
    total = total + token_bonus * prefixes.lengths
    return total.masked_fill(~hypotheses_in(prefixes), -math.inf)


def judged_prefixes(prefixes: Prefixes, net_input: Dict[str, Tensor], judges: Judges, eos: int) -> Prefixes:
    """The same beams in the order of the search and the judges together, which is their score now."""
    found = [judgements(model, net_input, prefixes, eos) for model in judges.models]
    total = combined(prefixes, found, judges.weights, judges.token_bonus)
    score, order = total.sort(dim=1, descending=True, stable=True)
    wide = order[:, :, None].expand_as(prefixes.tokens)
    return Prefixes(
        prefixes.tokens.gather(1, wide), prefixes.certainty.gather(1, wide), prefixes.lengths.gather(1, order), score
    )
