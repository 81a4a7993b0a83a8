"""fairseq criterions: thin glue over losses/."""

from fairseq_convtext.criterions import convtext_ctc, convtext_dag  # noqa: F401
