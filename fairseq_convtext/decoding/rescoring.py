"""How probable models find given translations, many of each sentence, in one pass and without a loop over positions.

A canvas is written once for a sentence, and each translation is summed over its alignments or paths. An autoregressive
model reads each translation as in training, all positions at once (noisy parallel decoding, arXiv 1711.02281, section
3.3): it knows which neighbours agree, which a canvas cannot. A model of the other direction, a channel model (arXiv
1908.05731, section 2), reads each translation and tells how probable the source is: it knows what is missing.
"""

import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_convtext.decoding.prefix_beam import Prefixes, reordered
from fairseq_convtext.modules.masking import inside, pad_right

# What an impossible translation costs in nats: finite, so that where all are impossible the others still decide.
IMPOSSIBLE = -1e4
# Translations that are scored at once where each has scores of its own for the whole vocabulary: these should stay in
# a processor's cache.
AT_ONCE = 64
# Scores (positions x vocabulary) of canvases that exist at a time.
CANVAS_SCORES = 1 << 24


def sums_over_canvas(model: Any) -> bool:
    """Whether the model has a canvas on which a translation can be written in many ways, by CTC or as a graph."""
    alignment = getattr(getattr(model, "decoder", None), "alignment", None)
    return getattr(alignment, "searchable", False)


def is_autoregressive(model: Any) -> bool:
    """Whether the model predicts each token from those before it, and scores the whole vocabulary."""
    decoder = getattr(model, "decoder", None)
    if not hasattr(model, "encoder") or decoder is None:
        return False
    # Parallel models: this project's, and fairseq's own.
    if hasattr(decoder, "target_alignment") or hasattr(model, "allow_length_beam"):
        return False
    return getattr(decoder, "adaptive_softmax", None) is None


class Judge(NamedTuple):
    """A model that ``sums_over_canvas`` or ``is_autoregressive``, in evaluation mode.

    Attributes:
        model: with dictionaries as fairseq's encoders and decoders have them.
        backwards: it translates in the other direction.
    """

    model: Any
    backwards: bool = False


@torch.no_grad()
def translation_log_probs(
    judge: Judge, net_input: Dict[str, Tensor], rows: Tensor, targets: Tensor, lengths: Tensor
) -> Tensor:
    """log p(translation | source) in nats of several translations, log p(source | translation) by a backwards judge.

    Args:
        judge: the model.
        net_input: of a batch of fairseq: ``src_tokens`` (batch, positions), EOS included, padded on either side, and
            ``src_lengths`` (batch,).
        rows: ``(translations,)`` which sentence of the batch each of them translates.
        targets: ``(translations, tokens)`` ids without EOS, padded on the right with any id of the vocabulary.
        lengths: ``(translations,)`` tokens in use.

    Returns:
        float32 ``(translations,)``, IMPOSSIBLE at least.
    """
    model = judge.model
    if not judge.backwards:
        encoder_out = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
        if sums_over_canvas(model):
            return _by_canvas(model, encoder_out, rows, targets, lengths)
    scores = []
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        if judge.backwards:
            scores.append(_backwards(model, net_input, rows[part], targets[part], lengths[part]))
        else:
            # Some of fairseq's encoders change the dictionary that they are given.
            kept = dict(encoder_out) if isinstance(encoder_out, dict) else encoder_out
            each = model.encoder.reorder_encoder_out(kept, rows[part])
            scores.append(_autoregressive(model, each, targets[part], lengths[part]))
    return torch.cat(scores)


def _by_canvas(model: Any, encoder_out: Any, rows: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    decoder, bound = model.decoder, encoder_out["bound"]
    canvas = decoder.canvas(encoder_out)
    scores = torch.empty(len(rows), dtype=torch.float32, device=canvas.device)
    # So many sentences at a time that their scores for the whole vocabulary stay small.
    step = max(1, CANVAS_SCORES // (canvas.size(1) * decoder.project.out_features))
    for start in range(0, len(canvas), step):
        here = (rows >= start) & (rows < start + step)
        if bool(here.any()):
            part = slice(start, start + step)
            given = rows[here] - start, targets[here], lengths[here]
            scores[here] = decoder.alignment.log_likelihoods(canvas[part], bound[part], decoder.project, *given)
    return scores.clamp(min=IMPOSSIBLE)


def _autoregressive(model: Any, encoder_out: Any, targets: Tensor, lengths: Tensor) -> Tensor:
    """``encoder_out`` has a row for each translation."""
    begin = targets.new_full((targets.size(0), 1), model.decoder.dictionary.eos())
    logits, _ = model.decoder(torch.cat([begin, targets], dim=1), encoder_out=encoder_out)
    # A row for each translation: its tokens, then EOS, and what lies beyond counts nothing.
    columns = torch.arange(targets.size(1) + 1, device=targets.device)
    expected = torch.cat([targets, begin], dim=1).masked_fill(columns == lengths[:, None], int(begin[0, 0]))
    log_probs = logits.gather(2, expected[:, :, None])[:, :, 0].float() - logits.float().logsumexp(dim=2)
    return log_probs.masked_fill(columns > lengths[:, None], 0.0).sum(dim=1).clamp(min=IMPOSSIBLE)


def _backwards(model: Any, net_input: Dict[str, Tensor], rows: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """The translations are what the model reads, the sources what it should have written."""
    dictionary = model.encoder.dictionary
    sources, source_lengths = pad_right(net_input["src_tokens"], model.decoder.dictionary.pad())
    # Recurrent encoders of fairseq want the longest first, and no column that is all padding.
    lengths, order = lengths.sort(descending=True, stable=True)
    rows, targets = rows[order], targets[order, : int(lengths[0])]
    beyond = ~inside(lengths, targets.size(1) + 1)
    read = F.pad(targets, (0, 1)).masked_fill(beyond, dictionary.pad())
    read.scatter_(1, lengths[:, None], dictionary.eos())
    encoder_out = model.encoder(read, src_lengths=lengths + 1)
    written, written_lengths = sources[rows][:, :-1], source_lengths[rows] - 1
    if sums_over_canvas(model):
        each = torch.arange(len(rows), device=rows.device)
        scores = _by_canvas(model, encoder_out, each, written, written_lengths)
    else:
        scores = _autoregressive(model, encoder_out, written, written_lengths)
    return torch.empty_like(scores).scatter_(0, order, scores)


class Judges(NamedTuple):
    """Models that have a say in which hypothesis of a search is the best.

    Attributes:
        judges: the models.
        weights: of each model's log-probability; that of the search has 1.
        token_bonus: added for every token besides the search's own; judges, too, prefer what is short.
        most: hypotheses of each sentence that are judged, the search's best; the others are dropped. None: all.
    """

    judges: List[Judge]
    weights: List[float]
    token_bonus: float = 0.0
    most: Optional[int] = None


def first_of_beams(prefixes: Prefixes, most: Optional[int]) -> Prefixes:
    """The search's best of every sentence; all for None."""
    return Prefixes(*(table[:, :most] for table in prefixes))


def hypotheses_in(prefixes: Prefixes) -> Tensor:
    """``(batch, beam)``: where there is a prefix that can be a translation; the empty one cannot."""
    return (prefixes.score > -math.inf) & (prefixes.lengths > 0)


def limits(judge: Judge) -> Tuple[float, float]:
    """Tokens, EOS included, of the longest source and of the longest translation that the judge can take."""
    both = judge.model.encoder.max_positions(), judge.model.decoder.max_positions()
    read, written = (limit if isinstance(limit, int) else math.inf for limit in both)
    if sums_over_canvas(judge.model):
        written = math.inf  # it never reads that; its canvas decides
    return (written, read) if judge.backwards else (read, written)


def judgements(judge: Judge, net_input: Dict[str, Tensor], prefixes: Prefixes) -> Tensor:
    """``(batch, beam)`` log-probability of each prefix as a whole translation, on the CPU; 0 where there is none.

    A prefix that is longer than what the judge can take is IMPOSSIBLE. Where the source is, the judge has no say: 0 for
    all prefixes.
    """
    there, device = hypotheses_in(prefixes), net_input["src_tokens"].device
    found = torch.zeros_like(prefixes.score)
    longest_source, longest_translation = limits(judge)
    taken = net_input["src_lengths"] <= longest_source
    there = there & taken.cpu()[:, None]
    too_long = there & (prefixes.lengths + 1 > longest_translation)
    found[too_long], there = IMPOSSIBLE, there & ~too_long
    if not bool(there.any()):  # as of a training that has diverged
        return found
    if next(judge.model.parameters()).device != device:  # fairseq moves the model that it trains, after it was built
        judge.model.to(device)
    rows, places = there.nonzero(as_tuple=True)
    lengths = prefixes.lengths[rows, places]
    targets = prefixes.tokens[rows, places, : int(lengths.max())].to(device)
    given, rows = sentences_of(net_input, taken, judge.model.encoder.dictionary.pad()), rows.to(device)
    scores = translation_log_probs(judge, given, taken.cumsum(dim=0)[rows] - 1, targets, lengths.to(device))
    found[there] = scores.cpu().to(found.dtype)
    return found


def sentences_of(net_input: Dict[str, Tensor], taken: Tensor, pad: int) -> Dict[str, Tensor]:
    """The sentences of a batch that are ``taken``, bool ``(batch,)``.

    Without columns that are all padding, which recurrent encoders of fairseq do not want.
    """
    if bool(taken.all()):
        return net_input
    tokens = net_input["src_tokens"][taken]
    return {"src_tokens": tokens[:, tokens.ne(pad).any(dim=0)], "src_lengths": net_input["src_lengths"][taken]}


def combined(prefixes: Prefixes, judged: Sequence[Tensor], weights: Sequence[float], token_bonus: float) -> Tensor:
    """``(batch, beam)`` score of the search and the judges together; -inf where there is no translation."""
    total = prefixes.score + sum(weight * scores for weight, scores in zip(weights, judged))
    total = total + token_bonus * prefixes.lengths
    return total.masked_fill(~hypotheses_in(prefixes), -math.inf)


def judged_prefixes(prefixes: Prefixes, net_input: Dict[str, Tensor], judges: Judges) -> Prefixes:
    """The first of the beams in the order of the search and the judges together, which is their score now."""
    prefixes = first_of_beams(prefixes, judges.most)
    found = [judgements(judge, net_input, prefixes) for judge in judges.judges]
    total = combined(prefixes, found, judges.weights, judges.token_bonus)
    return reordered(prefixes._replace(score=total), total.argsort(dim=1, descending=True, stable=True))
