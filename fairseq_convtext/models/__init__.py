"""fairseq models: thin glue over modules/, one model a file. fairseq imports every file here when it starts."""

from fairseq_convtext.models import bytenet, bytenet_deconv, presets  # noqa: F401
