#!/usr/bin/env python3
"""Write the first blocks of each stack of a checkpoint as a checkpoint of a shallower, faster model.

  first_blocks.py CHECKPOINT --encoder-layers 5 --decoder-layers 3 --output shallow.pt

CHECKPOINT is of bytenet_deconv or bytenet, whose blocks add to what goes past them, so that a model without the last
ones still has something to write (not so an encoder with --connectivity dense). It writes badly: train it on with
--finetune-from-model and the same --encoder-layers and --decoder-layers, best taught by the canvas of a whole model
(--canvas-teacher). The dilation of a block goes by its number, so the blocks that are kept keep theirs.
"""

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from benchmark_report import positive
from corpus_checks import InputError

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
from average_checkpoints import average, describe, save  # noqa: E402

from fairseq_convtext.compat import allow_safe_globals  # noqa: E402

STACKS = ("encoder", "decoder")
BLOCK = re.compile(rf"({'|'.join(STACKS)})\..*\bblocks\.(\d+)\.")


def check(path: Path, model: Dict[str, Any], kept: Dict[str, int]) -> None:
    """InputError unless the model of ``path``, its options, has so many blocks and does without the others."""
    if "encoder_block" not in model:
        raise InputError(f"{path} is not a checkpoint of bytenet_deconv or bytenet")
    for stack, count in kept.items():
        if count > model[f"{stack}_layers"]:
            raise InputError(f"{path} has {model[f'{stack}_layers']} {stack} blocks; found --{stack}-layers {count}")
    if model["connectivity"] == "dense" and kept["encoder"] < model["encoder_layers"]:
        raise InputError(f"{path} has --connectivity dense: its encoder needs all {model['encoder_layers']} blocks")
    inner = model.get("intermediate_ctc_layers") or []
    if max(inner, default=0) > kept["decoder"]:
        raise InputError(f"{path} is read after blocks {inner}; found --decoder-layers {kept['decoder']}")


def first_blocks(path: Path, kept: Dict[str, int]) -> Dict[str, Any]:
    """The state of a checkpoint without the blocks from number ``kept[stack]`` on, counted from 0."""
    state = average([describe(path)])  # of one: without what only its training needs
    model = (state["cfg"] or {}).get("model") or {}
    check(path, model, kept)
    for name in list(state["model"]):
        block = BLOCK.match(name)
        if block and int(block[2]) >= kept[block[1]]:
            del state["model"][name]
    model.update({f"{stack}_layers": count for stack, count in kept.items()})
    return state


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--encoder-layers", type=positive, required=True, metavar="N", help="blocks of the encoder")
    parser.add_argument("--decoder-layers", type=positive, required=True, metavar="N", help="blocks of each stage")
    parser.add_argument("--output", type=Path, required=True, help="file to write; one that exists is replaced")
    return parser.parse_args(arguments)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    allow_safe_globals()
    kept = {stack: getattr(options, f"{stack}_layers") for stack in STACKS}
    try:
        if options.output.resolve() == options.checkpoint.resolve():
            raise InputError(f"--output {options.output} is the checkpoint itself: choose another name")
        if not options.output.parent.is_dir():
            raise InputError(f"no such folder: {options.output.parent} (--output)")
        save(first_blocks(options.checkpoint, kept), options.output)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {kept['encoder']} encoder and {kept['decoder']} decoder blocks of {options.checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
