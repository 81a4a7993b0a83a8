"""Options of ``bytenet``. No ``from __future__ import annotations``: fairseq reads the types of the fields."""

from dataclasses import dataclass, field

from fairseq_convtext.models.common import StackConfig


@dataclass
class BytenetConfig(StackConfig):
    decoder_layers: int = field(default=15, metadata={"help": "causal blocks in the decoder"})
    length_bound_a: float = field(
        default=1.2,
        metadata={
            "help": "positions per source token to which the source is lengthened before it is encoded: "
            "L = min(ceil(a * S + b), limit), at least S; a translation may be longer"
        },
    )
    length_bound_b: float = field(default=4.0, metadata={"help": "positions on top, for short sources"})
