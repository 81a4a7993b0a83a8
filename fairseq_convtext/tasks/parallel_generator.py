"""A generator without a loop over target positions, in the place of fairseq's SequenceGenerator."""

import copy
import logging
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from torch import Tensor

from fairseq_convtext.decoding.one_pass import OnePass
from fairseq_convtext.decoding.prefix_beam import SearchOptions, hypothesis_at, no_longer_than
from fairseq_convtext.decoding.rescoring import Judges, judged_prefixes
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.common import unwrapped

logger = logging.getLogger(__name__)

# Options of the stock generator with the values at which a search has nothing to decide.
NO_SEARCH = {
    "score_reference": False,
    "sampling": False,
    "nbest": 1,
    "min_len": 1,
    "temperature": 1.0,
    "unkpen": 0,
    "no_repeat_ngram_size": 0,
    "match_source_len": False,
    "diverse_beam_groups": -1,
    "diversity_rate": -1.0,
    "prefix_size": 0,
    "constraints": None,
    "print_alignment": None,
}


def reasons_for_stock_generator(
    models: List[Any], args: Any, seq_gen_cls: Any, kwargs: Dict[str, Any]
) -> List[str]:
    """What asks for more than the best hypothesis of one model that writes all positions at once."""
    reasons = [] if all(map(writes_at_once, models)) else ["a model that writes one token after the other"]
    for name, value in NO_SEARCH.items():
        given = getattr(args, name, value)
        # None and False stand for "not given", a zero does not: --min-len 0 allows what --min-len 1 does not.
        if given is not None and given is not False and given != value:
            reasons.append(name)
    extra = kwargs.get("extra_gen_cls_kwargs") or {}
    if extra.get("lm_model") is not None:
        reasons.append("a language model")
    if kwargs.get("prefix_allowed_tokens_fn") is not None:
        reasons.append("prefix_allowed_tokens_fn")
    if seq_gen_cls is not None:
        reasons.append("another generator class")
    if len(models) > 1:
        reasons.append("several models")
    return reasons


def writes_at_once(model: Any) -> bool:
    """Whether it is a model such as bytenet_deconv, maybe inside a wrapper of fairseq's."""
    return hasattr(getattr(unwrapped(model), "decoder", None), "one_pass")


class ParallelGenerator:
    """The network once, then the canvas is read: position-wise, by collapsing the CTC path, by following the links of a
    graph, or by a search.

    There is one hypothesis a sentence, so --beam has no effect; a search can give more of its own beam. Without a
    search it equals what the stock generator finds with --beam 1, scores included. With one the score is the search's,
    summed over alignments, language model and token bonus included; the positional scores are the tokens' own where
    they were first written. As fairseq's, scores are printed divided by the length with EOS unless --unnormalized is
    given; the order of an n-best list is that before.

    Args:
        models: one that ``writes_at_once``.
        stock: the stock generator of the same options; its limits apply, and it takes over for a batch with
            forced prefixes or constraints, and, without a search and with a beam of 1, where a hypothesis is longer
            than --max-len-a and --max-len-b allow. With a search such hypotheses are passed over, and where there are
            no others the best one is cut.
        search: how to search a canvas of ctc or dag; None reads it without one.
        nbest: hypotheses of a sentence, the search's best first; fewer where it found fewer.
        judges: models that help the search to choose among the hypotheses that it found; scores are then theirs too.
    """

    def __init__(
        self,
        models: List[Any],
        stock: Any,
        search: Optional[SearchOptions] = None,
        nbest: int = 1,
        judges: Optional[Judges] = None,
    ) -> None:
        self.model = unwrapped(models[0])
        if search is not None and not self.model.decoder.alignment.searchable:
            raise ConvTextError(
                "--ctc-beam searches a canvas of alternatives, and this model was trained with --target-alignment "
                "position: leave the flag out."
            )
        self.stock = stock
        # With a wider beam a sentence would be translated otherwise whenever another one of its batch is too long.
        self.one_best = copy.copy(stock)
        self.one_best.beam_size = 1
        self.cut_seen = False
        self.search = search
        self.nbest = nbest
        self.judges = judges
        self.eos = stock.eos
        self.symbols_to_strip_from_output = stock.symbols_to_strip_from_output

    @torch.no_grad()
    def generate(self, models: List[Any], sample: Dict[str, Any], **kwargs: Any) -> List[List[Dict[str, Tensor]]]:
        """A list of hypotheses for every sentence of the batch, in fairseq's format."""
        given = [name for name, value in kwargs.items() if value is not None]
        if given:
            if self.search is not None:
                raise ConvTextError(f"--ctc-beam does not go together with {' and '.join(given)}: leave one out.")
            return self.stock.generate(models, sample, **kwargs)
        if self.model.training:
            self.model.eval()
        encoder_out = self.model.encoder.forward_torchscript(sample["net_input"])
        if self.search is None:
            best = self.model.decoder.one_pass(encoder_out)
            longest = min(
                int(self.stock.max_len_a * sample["net_input"]["src_tokens"].size(1) + self.stock.max_len_b),
                self.stock.max_len - 1,
            )
            if int(best.lengths.max()) - 1 > longest:
                return self.one_best.generate(models, sample)
            found = [(best, None)]
        else:
            # Of each sentence by itself: fairseq's own limit is that of the longest source of the batch.
            sources = sample["net_input"]["src_lengths"].cpu()
            limits = (self.stock.max_len_a * sources.double() + self.stock.max_len_b).long()
            limits = limits.clamp(max=self.stock.max_len - 1)
            prefixes, cut = no_longer_than(self.model.decoder.search(encoder_out, self.search), limits)
            if bool(cut.any()) and not self.cut_seen:
                self.cut_seen = True
                logger.warning(
                    "all hypotheses that the search has for a sentence are longer than --max-len-a, --max-len-b and "
                    "the model's --max-target-positions allow (%d tokens): the best one is cut; raise --max-len-b",
                    int(limits[cut][0]),
                )
            if self.judges is not None:
                prefixes = judged_prefixes(prefixes, sample["net_input"], self.judges)
            found = [hypothesis_at(prefixes, place, self.eos) for place in range(self.nbest)]
        places = [self.hypotheses(best, scores) for best, scores in found]
        # EOS alone stands for what a beam does not hold.
        return [[one for one in sentence if len(one["tokens"]) > 1] for sentence in zip(*places)]

    def hypotheses(self, best: OnePass, scores: Optional[Tensor] = None) -> List[Dict[str, Tensor]]:
        """fairseq's dictionaries; every sum is rounded where the stock generator rounds it.

        ``scores`` ``(batch,)`` are those of a search; None sums up the tokens' log-probabilities.
        """
        log_probs, lengths = best.log_probs.cpu(), best.lengths.cpu()
        # The stock generator adds up in float32, one token after the other; torch.cumsum adds in double.
        running = torch.from_numpy(np.add.accumulate(log_probs.numpy(), axis=1, dtype=np.float32))
        positional = torch.cat([running[:, :1], running[:, 1:] - running[:, :-1]], dim=1)
        if scores is None:
            scores = running.gather(1, lengths[:, None] - 1)[:, 0]
        if self.stock.normalize_scores:
            scores = scores / torch.tensor([length**self.stock.len_penalty for length in lengths.tolist()])
        tokens, none = best.tokens.cpu(), torch.empty(0)
        found = []
        for row, length in enumerate(lengths.tolist()):
            found.append(
                {
                    "tokens": tokens[row, :length],
                    "score": scores[row],
                    "attention": none,
                    "alignment": none,
                    "positional_scores": positional[row, :length],
                }
            )
        return found
