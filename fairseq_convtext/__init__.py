"""Convolutional, fully parallel text models for fairseq: importing this package registers all of them."""

from fairseq_convtext.compat import allow_safe_globals, check_environment
from fairseq_convtext.errors import print_user_errors_as_one_line

__version__ = "0.1.0"

check_environment()
allow_safe_globals()
print_user_errors_as_one_line()

# With --user-dir fairseq imports models/ and tasks/ by itself, but never criterions/, and nothing at all
# when this package was imported before (from Python, in tests). Hence all three here.
import fairseq_convtext.criterions
import fairseq_convtext.models
import fairseq_convtext.tasks
