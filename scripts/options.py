#!/usr/bin/env python3
"""Every option of this project's models, criterions and task, with what it does and its default.

  options.py [bytenet_deconv] [bytenet] [convtext_ctc] [convtext_dag] [translation_convtext]       default: all

fairseq-train --help shows none of them: fairseq prints the help before it knows the model.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import List, Optional

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.disable(logging.INFO)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fairseq.dataclass.utils import gen_parser_from_dataclass  # noqa: E402

from fairseq_convtext.criterions.canvas import CanvasConfig  # noqa: E402
from fairseq_convtext.criterions.convtext_ctc import ConvtextCtcConfig  # noqa: E402
from fairseq_convtext.models.bytenet_config import BytenetConfig  # noqa: E402
from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig  # noqa: E402
from fairseq_convtext.tasks.translation_convtext import TranslationConvtextConfig  # noqa: E402

CONFIGS = {
    "bytenet_deconv": ("--arch bytenet_deconv", BytenetDeconvConfig),
    "bytenet": ("--arch bytenet", BytenetConfig),
    "convtext_ctc": ("--criterion convtext_ctc", ConvtextCtcConfig),
    "convtext_dag": ("--criterion convtext_dag", CanvasConfig),
    "translation_convtext": ("--task translation_convtext", TranslationConvtextConfig),
}


def help_of(name: str) -> str:
    """The options of one of CONFIGS as argparse prints them, beneath the flag that they belong to."""
    flag, config = CONFIGS[name]
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, add_help=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    group = parser.add_argument_group(flag)
    gen_parser_from_dataclass(group, config())
    return parser.format_help().strip()


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CONFIGS))
    names = parser.parse_args(arguments).names or list(CONFIGS)
    for name in names:
        if name not in CONFIGS:
            parser.error(f"unknown {name!r}; known are {', '.join(CONFIGS)}")
    print("\n\n".join(help_of(name) for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
