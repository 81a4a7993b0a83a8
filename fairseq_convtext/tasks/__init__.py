"""fairseq tasks. Every file here is imported when fairseq starts."""

from fairseq_convtext.tasks import translation_convtext  # noqa: F401
