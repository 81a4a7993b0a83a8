#!/usr/bin/env python3
"""Find the blank penalty of a CTC model: BLEU on the validation set for several values.

  tune_blank_penalty.py DATA --path checkpoint_best.pt --reference valid.de

The network runs once; only the reading of its canvases is repeated. Standard output is the best value alone, so
that a script can use it; the table goes to standard error. Ties go to the smaller penalty.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import List, Optional, Tuple

import torch
from corpus_checks import InputError, read_lines
from sacrebleu.metrics import BLEU
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent


def read_canvases(options: argparse.Namespace) -> Tuple[List[Tuple], object, object]:
    """The best symbols of every batch with their bounds and sentence ids, the decoder, and the dictionary."""
    from fairseq import checkpoint_utils, utils

    utils.import_user_module(argparse.Namespace(user_dir=str(ROOT / "fairseq_convtext")))
    from fairseq_convtext.decoding.one_pass import best_symbols

    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(options.path)], arg_overrides={"data": str(options.data)}
    )
    model = models[0].eval()
    if not getattr(model.decoder, "is_ctc", False):
        raise InputError(f"{options.path} was not trained with --target-alignment ctc, and only CTC has a blank")
    task.load_dataset(options.subset)
    batches = task.get_batch_iterator(
        task.dataset(options.subset), max_sentences=options.batch_size, required_batch_size_multiple=1
    ).next_epoch_itr(shuffle=False)
    canvases = []
    with torch.no_grad():
        for batch in tqdm(batches, desc=options.subset, unit="batch", disable=None):
            encoder_out = model.encoder(batch["net_input"]["src_tokens"])
            decoder = model.decoder
            symbols = best_symbols(decoder.canvas(encoder_out), decoder.project, decoder.forbidden, decoder.blank)
            canvases.append((batch["id"].tolist(), symbols, encoder_out["bound"]))
    return canvases, model.decoder, task.target_dictionary


def bleu_of(penalty: float, canvases: List[Tuple], decoder: object, dictionary: object, references: List[str]) -> BLEU:
    """sacreBLEU of the hypotheses that this penalty gives."""
    from fairseq_convtext.decoding.one_pass import read_ctc

    texts = {}
    for ids, symbols, bound in canvases:
        best = read_ctc(symbols, bound, decoder.blank, decoder.eos, penalty)
        for row, key in enumerate(ids):
            texts[key] = dictionary.string(best.tokens[row, : best.lengths[row]], "sentencepiece")
    if len(texts) != len(references):
        raise InputError(f"the data have {len(texts)} sentences and the reference {len(references)} lines")
    return BLEU().corpus_score([texts[key] for key in sorted(texts)], [references])


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("data", type=Path, help="folder that fairseq-preprocess made, of sentencepiece text")
    parser.add_argument("--path", type=Path, required=True, help="checkpoint")
    parser.add_argument("--reference", type=Path, required=True, help="plain text of the subset's targets")
    parser.add_argument("--subset", default="valid", help="never a test set (default: valid)")
    parser.add_argument("--penalties", type=float, nargs="+", default=[0.25 * n for n in range(9)])
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    try:
        references = read_lines(options.reference)
        canvases, decoder, dictionary = read_canvases(options)
        print("penalty  sacreBLEU  brevity penalty", file=sys.stderr)
        scores = {}
        for penalty in sorted(options.penalties):
            result = bleu_of(penalty, canvases, decoder, dictionary, references)
            scores[penalty] = round(result.score, 2)
            print(f"{penalty:7.2f}  {result.score:9.2f}  {result.bp:15.3f}", file=sys.stderr)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(max(scores, key=lambda penalty: (scores[penalty], -penalty)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
