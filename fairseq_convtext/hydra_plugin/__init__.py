"""Lets an installed fairseq_convtext do without --user-dir where a checkpoint says which model to build.

setup.py installs this folder as ``hydra_plugins.fairseq_convtext_autoload``. Hydra imports every plugin when it
first composes a configuration, and fairseq's commands do that after they parsed their options and before they
load a checkpoint. Every other program that uses Hydra imports this file too, so it must do nothing there.
"""

import logging
import sys
from pathlib import Path

# Not fairseq-hydra-train: Hydra looks for plugins there before fairseq imports the user dir, and fairseq refuses
# a user dir when another copy of the package was imported first. Not fairseq-train: it needs --user-dir anyway.
COMMANDS = ("generate", "interactive", "validate")


def in_generation_command() -> bool:
    """True in fairseq-generate, fairseq-interactive and fairseq-validate, however they were started."""
    program = Path(sys.argv[0] if sys.argv else "")
    return program.name.startswith(tuple(f"fairseq-{command}" for command in COMMANDS)) or (
        program.parent.name == "fairseq_cli" and program.stem in COMMANDS
    )


if "fairseq" in sys.modules and in_generation_command():
    try:
        # With --user-dir the package is there already, whole or still being imported, and this does nothing.
        import fairseq_convtext  # noqa: F401
    except Exception:
        # The command may be about another model, which must go on working; with --user-dir the reason is shown.
        logging.getLogger(__name__).debug("fairseq_convtext cannot be used", exc_info=True)
