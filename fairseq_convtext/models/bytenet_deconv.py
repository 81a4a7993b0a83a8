"""``bytenet_deconv``: dilated-convolution encoder, deconvolution decoder, all target positions in one pass.

tokens -> SourceEncoder -> Upsampler (to the length bound) -> canvas -> output projection. The canvas is read by
position, by CTC or as a graph (``--target-alignment``, alignments.py).
"""

import functools
import logging
import math
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from fairseq.logging import metrics
from fairseq.models import FairseqIncrementalDecoder, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.decoding.candidates import SearchProjection
from fairseq_convtext.decoding.ngram import NgramModel
from fairseq_convtext.decoding.one_pass import NEG_INF, OnePass, Symbols, normalised
from fairseq_convtext.decoding.path_beam import Graph, beam_search
from fairseq_convtext.decoding.prefix_beam import Prefixes, SearchOptions
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.glancing import Glance
from fairseq_convtext.models.alignments import ALIGNMENTS
from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig, complete_config
from fairseq_convtext.models.bytenet_deconv_encoder import BytenetDeconvEncoder
from fairseq_convtext.models.checks import check_references, check_task
from fairseq_convtext.models.common import TranslationModel, make_stack, output_projection, training_autocast
from fairseq_convtext.modules.feedback import PredictionFeedback
from fairseq_convtext.modules.masking import inside
from fairseq_convtext.modules.upsampler import Upsampler

logger = logging.getLogger(__name__)

# Log-probability of what a canvas does not offer but a stock generator may force: an EOS before the canvas is
# read to its end (--max-len-b), a token after it (--min-len). Finite, or the generator would find no hypothesis.
FORCED = -1e3


class BytenetDeconvDecoder(FairseqIncrementalDecoder):
    """Writes the canvas. "Incremental" only for fairseq's step-by-step generator: the network runs once a batch."""

    def __init__(self, cfg: BytenetDeconvConfig, dictionary: Any, tied: Optional[nn.Embedding]) -> None:
        super().__init__(dictionary)
        self.cfg = cfg
        self.eos, self.pad, self.blank = dictionary.eos(), dictionary.pad(), dictionary.bos()
        self.target_alignment = str(cfg.target_alignment)
        self.alignment = ALIGNMENTS[self.target_alignment](cfg, dictionary)
        self.upsampler = Upsampler(
            cfg.encoder_channels, cfg.upsample_strides, lambda: make_stack(cfg, cfg.decoder_layers)
        )
        self.feedback = nn.ModuleDict(
            {str(number): PredictionFeedback(cfg.encoder_channels) for number in cfg.intermediate_ctc_layers}
        )
        self.dropout = nn.Dropout(cfg.dropout)
        self.project = output_projection(cfg.encoder_channels, len(dictionary), tied)
        self.kept_rows: Optional[Tuple[Any, SearchProjection]] = None

    def canvas(
        self,
        encoder_out: Dict[str, Any],
        hints: Optional[Tuple[Tensor, Tensor]] = None,
        inner: Optional[List[Tensor]] = None,
    ) -> Tensor:
        """``(batch, max(bound), channels)``: the one pass of the network. ``inner`` collects inner predictions."""

        def tap(feedback: nn.Module, x: Tensor) -> Tensor:
            x, logits = feedback(x, self.project)
            if inner is not None:
                inner.append(logits)
            return x

        taps = {int(number): functools.partial(tap, feedback) for number, feedback in self.feedback.items()}
        return self.upsampler(encoder_out["features"], encoder_out["lengths"], encoder_out["bound"], hints, taps)

    def hints(self, encoder_out: Dict[str, Any], glance: Glance) -> Tuple[Tensor, Tensor]:
        """What a first pass without gradient decides to show the second one; both draw the same dropout masks."""
        devices = [encoder_out["features"].device] if encoder_out["features"].is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            symbols, where = glance(*self.outputs(self.canvas(encoder_out), encoder_out["bound"]))
        # Autocast keeps the weights it has cast; older torch would hand the casts of this pass, which have no
        # gradient, to the second one.
        torch.clear_autocast_cache()
        # The rows of the output projection are the embeddings of the symbols, blank included.
        return math.sqrt(self.project.in_features) * F.embedding(symbols, self.project.weight), where

    def outputs(self, canvas: Tensor, bound: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
        """``(batch, positions, vocabulary)`` scores of a canvas, the bounds, and what else its alignment needs."""
        canvas = self.dropout(canvas)
        return self.project(canvas), {"bound": bound, **self.alignment.outputs(canvas, bound)}

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[Dict[str, Any]] = None,
        incremental_state: Optional[Dict[str, Any]] = None,
        glance: Optional[Glance] = None,
        **unused: Any,
    ) -> Tuple[Tensor, Dict[str, Any]]:
        """Scores of the whole canvas, or, for a step-by-step generator, of its next column.

        Args:
            prev_output_tokens: ``(batch, tokens)``; in training only its number of columns counts, and only for
                ``position``; in generation ``(batch * beam, step + 1)``.
            encoder_out: see the encoder.
            incremental_state: not None in generation.
            glance: for glancing training, see losses/glancing.py.

        Returns:
            ``(batch, positions, vocabulary)`` scores, with positions = max(bound), or, for ``position``, the smaller
            of it and the columns of prev_output_tokens; and a dictionary with ``attn`` (fairseq asks for it),
            ``bound``, the ``links`` of ``dag`` and, in training, the ``inner_logits`` of --intermediate-ctc-layers.
        """
        if incremental_state is not None:
            return self.next_column(prev_output_tokens, encoder_out)
        with training_autocast(self, prev_output_tokens, str(self.cfg.compute_dtype)):
            inner: List[Tensor] = []
            hints = None if glance is None else self.hints(encoder_out, glance)
            canvas = self.canvas(encoder_out, hints, inner if self.training else None)
            if self.target_alignment == "position":
                # The projection is the largest product: positions that have no target are left out of it.
                canvas = canvas[:, : prev_output_tokens.size(1)]
            logits, extra = self.outputs(canvas, encoder_out["bound"])
        return logits, {"attn": [None], "inner_logits": inner, **extra}

    def one_pass(self, encoder_out: Dict[str, Any]) -> OnePass:
        """The best hypothesis of every sentence, and the canvas left in ``encoder_out`` for who wants more."""
        if "one_pass" not in encoder_out:
            canvas = encoder_out["canvas"] = self.canvas(encoder_out)
            encoder_out["one_pass"] = self.alignment.read(canvas, encoder_out["bound"], self.project)
        return encoder_out["one_pass"]

    def search(self, encoder_out: Dict[str, Any], options: SearchOptions) -> Prefixes:
        """The beams of every sentence, best first; the network runs once."""
        return beam_search(self.candidates(encoder_out, options), encoder_out["bound"], options, self.eos)

    @torch.no_grad()
    def candidates(self, encoder_out: Dict[str, Any], options: SearchOptions) -> Union[Symbols, Graph]:
        """What a search tries at each position: with a language model, only tokens that its text has.

        If that is the training targets, the others were never one, and the projection, the largest product, gets by
        without their rows.
        """
        project = self.rows_of(options.lm)
        return self.alignment.candidates(
            self.canvas(encoder_out), encoder_out["bound"], project, options.candidates
        )

    def rows_of(self, lm: Optional[NgramModel]) -> SearchProjection:
        """The projection onto what a search may write, kept until the weights or the language model are others.

        Weights that are changed past their version counter, by ``.data``, are seen after ``train()`` only.

        Raises:
            ConvTextError: nothing in the language model's text could be written.
        """
        weight = self.project.weight
        made_for = (lm, type(self.project), values_of(weight), values_of(self.project.bias))
        if self.kept_rows is None or self.kept_rows[0] != made_for:
            ids = torch.arange(weight.size(0)) if lm is None else lm.seen
            ids = ids[~torch.isin(ids, torch.tensor([self.blank, *self.alignment.forbidden]))]
            if not len(ids):
                raise ConvTextError("the text of the n-gram model (--ctc-lm) holds no token that could be written.")
            ids = F.pad(ids, (0, 1), value=self.blank).to(weight.device)
            self.kept_rows = made_for, SearchProjection(ids, self.project)
        return self.kept_rows[1]

    def train(self, mode: bool = True) -> "BytenetDeconvDecoder":
        """As the base class; what was kept of the weights is gone, for they are about to change."""
        if mode:
            self.kept_rows = None
        return super().train(mode)

    def next_column(self, tokens: Tensor, encoder_out: Dict[str, Any]) -> Tuple[Tensor, Dict[str, Any]]:
        """Log-probabilities ``(batch * beam, 1, vocabulary)`` of token t = ``tokens.size(1) - 1``.

        But for ``position`` a column is where the hypothesis that was read has its t-th token (``ctc``: where it is
        most certain of it): the stock generator then sees that hypothesis, and a beam offers other tokens at the same
        places.
        """
        best, rows, t = self.one_pass(encoder_out), encoder_out["rows"], tokens.size(1) - 1
        searchable, forbidden = self.alignment.searchable, self.alignment.forbidden
        canvas, each = encoder_out["canvas"], torch.arange(tokens.size(0), device=tokens.device)
        column = min(t, best.tokens.size(1) - 1)
        known = t < best.lengths[rows]
        offered = t < (best.lengths - 1 if searchable else encoder_out["bound"])[rows]
        position = best.positions[rows, column].clamp(max=canvas.size(1) - 1)
        log_probs = normalised(self.project(canvas[rows, position]), forbidden)
        # The digits of the parallel generator: a product of other shape may differ in the last one.
        token = best.tokens[rows, column][:, None]
        own = log_probs.gather(1, token)[:, 0]
        exact = torch.where(known & offered, best.log_probs[rows, column], own)
        # On a graph the jump counts too, and it is the same to the other tokens of the position.
        log_probs += torch.where(known & offered, exact - own, torch.zeros_like(own))[:, None]
        log_probs.scatter_(1, token, exact[:, None])
        if searchable:
            repeat = best.adjacent[rows, column] & offered
            previous = tokens[:, -1]
            log_probs[each, previous] = log_probs[each, previous].masked_fill(repeat, FORCED)
            log_probs[:, self.eos] = FORCED
        log_probs[~offered] = FORCED
        end = best.log_probs[rows, column].masked_fill(~known, 0.0)
        log_probs[:, self.eos] = torch.where(offered, log_probs[:, self.eos], end)
        for symbol in (self.pad, self.blank):
            log_probs[:, symbol] = NEG_INF
        log_probs = log_probs[:, None]
        # The generator divides what it gets by the temperature in place; the copy tells whether it did.
        return log_probs, {"attn": [None], "log_probs": log_probs.clone()}

    def max_positions(self) -> int:
        return self.cfg.max_target_positions


def values_of(x: Tensor) -> Tuple:
    """What is another one when x holds other values."""
    return x.data_ptr(), None if x.is_inference() else x._version, x.dtype, x.device


@register_model("bytenet_deconv", dataclass=BytenetDeconvConfig)
class BytenetDeconvModel(TranslationModel):
    """Source tokens to a canvas of scores; the hooks by which fairseq's criterions and generators reach it."""

    def __init__(self, encoder: BytenetDeconvEncoder, decoder: BytenetDeconvDecoder) -> None:
        super().__init__(encoder, decoder)
        self.truncation_seen = False
        self.num_updates = 0

    def set_num_updates(self, num_updates: int) -> None:
        """fairseq calls this before every update; schedules of criterions read it."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "BytenetDeconvModel":
        cfg = complete_config(cfg)
        check_task(cfg, task)
        source, target = task.source_dictionary, task.target_dictionary
        encoder = BytenetDeconvEncoder(cfg, source)
        decoder = BytenetDeconvDecoder(cfg, target, encoder.network.embed if cfg.share_all_embeddings else None)
        return cls(encoder, decoder)

    def get_normalized_probs(
        self, net_output: Tuple[Tensor, Dict[str, Any]], log_probs: bool, sample: Optional[Dict[str, Any]] = None
    ) -> Tensor:
        """As the base class; columns of ``next_column`` are log-probabilities already.

        Raises:
            ConvTextError: a criterion of fairseq's own asks about a canvas of ctc or dag.
        """
        scores, extra = net_output
        if sample is not None:  # of all that asks, fairseq's SequenceScorer alone gives one
            lengths = sample["target"].ne(self.decoder.pad).sum(dim=1)
            check_references(lengths, extra["bound"], self.decoder.target_alignment)
        if "log_probs" not in extra:  # not of a generator
            self.check_position_wise()
        elif torch.equal(scores, extra["log_probs"]):  # no --temperature
            return scores if log_probs else scores.exp()
        return super().get_normalized_probs(net_output, log_probs, sample)

    def check_position_wise(self) -> None:
        """ConvTextError, for fairseq's own criterions, if tokens have no positions of their own on the canvas."""
        alignment = self.decoder.target_alignment
        if alignment != "position":
            raise ConvTextError(
                f"this model was built with --target-alignment {alignment}, which fairseq's own criterions cannot "
                f"train or score: use --criterion convtext_{alignment}, or --target-alignment position."
            )

    def get_targets(self, sample: Dict[str, Any], net_output: Tuple[Tensor, Dict[str, Any]]) -> Tensor:
        """The target cut to the canvas, for fairseq's position-wise criterions.

        What lies beyond a sentence's own bound becomes padding; how many tokens that was, in this process, is
        logged as ``beyond_bound``, once for each output however often a criterion asks.
        """
        self.check_position_wise()
        target, (logits, extra) = sample["target"], net_output
        pad = self.decoder.pad
        used = target.ne(pad)
        # fairseq's R-Drop reads every sentence twice and asks once.
        beyond = ~inside(extra["bound"][: target.size(0)], target.size(1))
        lost = (used & beyond).sum()
        if not extra.get("beyond_bound_logged"):
            extra["beyond_bound_logged"] = True
            metrics.log_scalar_sum("beyond_bound", lost, priority=190)
        if not self.truncation_seen and bool(lost):
            self.truncation_seen = True
            logger.warning(
                "%d of %d target tokens of this batch lie beyond the length bound and are not learnt; the log's "
                "beyond_bound goes on counting: raise --length-bound-a, --length-bound-b or --max-target-positions",
                int(lost), int(used.sum()),
            )
        return target.masked_fill(beyond, pad)[:, : logits.size(1)].contiguous()
