"""What the positions of a canvas mean (``--target-alignment``): what the model adds to it, and how it is read."""

import math
from typing import Any, Dict, List, Union

from torch import Tensor, nn

from fairseq_convtext.decoding.candidates import SearchProjection
from fairseq_convtext.decoding.lookahead import read_lookahead
from fairseq_convtext.decoding.one_pass import OnePass, Symbols, best_symbols, read_ctc, read_position
from fairseq_convtext.decoding.path_beam import LEAST_LINK, Graph
from fairseq_convtext.losses import ctc, dag
from fairseq_convtext.modules.int8 import Int8Linear
from fairseq_convtext.modules.links import Links
from fairseq_convtext.modules.masking import inside

Projection = Union[nn.Linear, Int8Linear]


class PositionAlignment(nn.Module):
    """Token t stands at position t, EOS after the last one.

    Attributes:
        searchable: a translation can be written in many ways, which a search sums up, and ends where the canvas ends;
            otherwise the canvas holds an EOS.
    """

    searchable = False

    def __init__(self, cfg: Any, dictionary: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.eos, self.pad, self.blank = dictionary.eos(), dictionary.pad(), dictionary.bos()

    @property
    def forbidden(self) -> List[int]:
        """Ids that the canvas never writes."""
        return [self.pad, self.blank]

    def outputs(self, canvas: Tensor, bound: Tensor) -> Dict[str, Tensor]:
        """What the loss needs of the canvas besides its scores."""
        return {}

    def read(self, canvas: Tensor, bound: Tensor, project: Projection) -> OnePass:
        """The best hypothesis of every sentence, without a search."""
        symbols = best_symbols(canvas, project, self.forbidden, not_first=self.eos)
        return read_position(symbols, bound, self.eos)


class CtcAlignment(PositionAlignment):
    """Repeats are one token, blanks none."""

    searchable = True

    @property
    def forbidden(self) -> List[int]:
        """Ids that the canvas never writes: EOS is where it ends."""
        return [self.pad, self.eos]

    def read(self, canvas: Tensor, bound: Tensor, project: Projection) -> OnePass:
        """The best path."""
        symbols = best_symbols(canvas, project, self.forbidden, blank=self.blank)
        return read_ctc(symbols, bound, self.blank, self.eos, self.cfg.blank_penalty)

    def candidates(self, canvas: Tensor, bound: Tensor, project: SearchProjection, count: int) -> Symbols:
        """What a search tries at each position.

        Args:
            canvas: ``(batch, positions, channels)``.
            bound: ``(batch,)`` canvas positions of each sentence.
            project: onto the symbols that may be written.
            count: how many symbols besides the blank.
        """
        return project.best_candidates(canvas, bound, count)

    def log_likelihoods(
        self, canvas: Tensor, bound: Tensor, project: Projection, rows: Tensor, targets: Tensor, lengths: Tensor
    ) -> Tensor:
        """log p of each target on the canvas of its row.

        Args:
            canvas, bound: ``(batch, positions, channels)`` and ``(batch,)`` positions in use.
            project: onto the whole vocabulary.
            rows: ``(targets,)`` sentence of the batch.
            targets, lengths: ``(targets, tokens)`` ids without EOS, padded on the right, and ``(targets,)`` in use.

        Returns:
            float32 ``(targets,)`` in nats.
        """
        return ctc.log_likelihoods(project(canvas), rows, targets, bound, lengths, self.blank)


class DagAlignment(PositionAlignment):
    """A directed acyclic graph: links lead from token to token, what they pass over is not read."""

    searchable = True

    def __init__(self, cfg: Any, dictionary: Any) -> None:
        super().__init__(cfg, dictionary)
        self.links = Links(cfg.encoder_channels, cfg.longest_jump)

    @property
    def forbidden(self) -> List[int]:
        """Ids that the canvas never writes: EOS is its last position."""
        return [self.pad, self.eos, self.blank]

    def outputs(self, canvas: Tensor, bound: Tensor) -> Dict[str, Tensor]:
        """The links."""
        return {"links": self.links(canvas, bound)}

    def read(self, canvas: Tensor, bound: Tensor, project: Projection) -> OnePass:
        """By lookahead."""
        return read_lookahead(
            best_symbols(canvas, project, self.forbidden), self.links(canvas, bound), bound, self.eos
        )

    def candidates(self, canvas: Tensor, bound: Tensor, project: SearchProjection, count: int) -> Graph:
        """What a search tries: tokens, and jumps from one to the next; arguments as of ``CtcAlignment``."""
        links = self.links(canvas, bound)
        inner = inside(bound - 1, canvas.size(1))
        inner[:, 0] = False
        links = links.masked_fill(links < links.amax(dim=2, keepdim=True) + math.log(LEAST_LINK), -math.inf)
        tokens, log_probs = project.likeliest(canvas, inner, count)
        return Graph(tokens, log_probs, links)

    def log_likelihoods(
        self, canvas: Tensor, bound: Tensor, project: Projection, rows: Tensor, targets: Tensor, lengths: Tensor
    ) -> Tensor:
        """As of ``CtcAlignment``."""
        return dag.log_likelihoods(project(canvas), self.links(canvas, bound), rows, targets, bound, lengths)


ALIGNMENTS = {"position": PositionAlignment, "ctc": CtcAlignment, "dag": DagAlignment}
