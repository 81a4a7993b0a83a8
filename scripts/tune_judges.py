#!/usr/bin/env python3
"""Find the weights of the models that judge what a search has found: BLEU on the validation set.

  tune_judges.py DATA --path checkpoint_best.pt --reference valid.de --search FLAGS --judges CHECKPOINT [CHECKPOINT ...]
                 [--beam 30]

FLAGS is the file that scripts/tune_search.py's output was written to; a wider beam than the search alone needs holds
more for the judges to choose from. Search and judges run once; then one weight after the other, and the bonus for each
token, takes the value of its grid that is best beside the others, until none changes. Standard output is the flags of
FLAGS and of the best setting, one a line, as fairseq-generate --task translation_convtext takes them; the table goes
to standard error.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

if __name__ == "__main__":  # what fairseq logs, from its import on, is no part of a report
    logging.disable(logging.INFO)
import torch
from benchmark_report import positive
from canvases import Canvases, add_arguments, read_canvases
from corpus_checks import InputError, read_lines
from sacrebleu.metrics import BLEU
from torch import Tensor
from tqdm import tqdm

from fairseq_convtext.decoding.ngram import NgramModel
from fairseq_convtext.decoding.path_beam import beam_search
from fairseq_convtext.decoding.prefix_beam import Prefixes, SearchOptions
from fairseq_convtext.decoding.rescoring import combined, first_of_beams, judgements
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.tasks.judges import load_judges


def search_of(flags: List[str]) -> SearchOptions:
    """The search that flags of fairseq-generate ask for."""
    parser = argparse.ArgumentParser(prog="--search", allow_abbrev=False)
    parser.add_argument("--ctc-beam", type=int, required=True)
    parser.add_argument("--ctc-lm")
    parser.add_argument("--ctc-lm-weight", type=float, default=0.3)
    parser.add_argument("--ctc-token-bonus", type=float, default=0.0)
    found = parser.parse_args(flags)
    if found.ctc_beam < 2:
        raise InputError(f"--search or --beam must ask for a beam of 2 at least, for 1 is none; found {found.ctc_beam}")
    lm = NgramModel.load(found.ctc_lm) if found.ctc_lm else None
    return SearchOptions(found.ctc_beam, lm=lm, lm_weight=found.ctc_lm_weight, token_bonus=found.ctc_token_bonus)


class Hypotheses:
    """What the search has found for every sentence, as text, and what each judge thinks of it."""

    def __init__(self, canvases: Canvases, search: SearchOptions, judges: List, most: Optional[int]) -> None:
        self.beams: List[Prefixes] = []
        self.judged: List[List[Tensor]] = []
        self.texts: List[List[List[str]]] = []
        self.ids = [key for canvas in canvases.batches for key in canvas.ids]
        self.bleu = BLEU(references=[[canvases.references[key] for key in self.ids]])
        dictionary = canvases.task.target_dictionary
        for canvas in tqdm(canvases.batches, desc="search and judges", unit="batch", disable=None):
            beams = first_of_beams(beam_search(canvas.symbols, canvas.bound, search, canvases.eos), most)
            self.beams.append(beams)
            self.judged.append([judgements(judge, canvas.net_input, beams) for judge in judges])
            self.texts.append(
                [
                    [dictionary.string(ids[:length], "sentencepiece") for ids, length in zip(tokens, lengths)]
                    for tokens, lengths in zip(beams.tokens, beams.lengths)
                ]
            )

    def score(self, weights: Tuple[float, ...], token_bonus: float) -> BLEU:
        """sacreBLEU of the choice that these weights make."""
        chosen = []
        for beams, judged, texts in zip(self.beams, self.judged, self.texts):
            places = combined(beams, judged, weights, token_bonus).argmax(dim=1).tolist()
            chosen += [sentence[place] for sentence, place in zip(texts, places)]
        return self.bleu.corpus_score(chosen, None)


def ascend(score: Callable[[Tuple], float], start: Tuple, grids: List[List[float]]) -> Tuple[Tuple, Dict[Tuple, float]]:
    """Coordinate ascent: the best setting found, the first of equals, and the scores of all that were tried."""
    best, scores, before = start, {start: score(start)}, None
    while best != before:
        before = best
        for place, grid in enumerate(grids):
            for value in grid:
                setting = (*best[:place], value, *best[place + 1 :])
                if setting not in scores:
                    scores[setting] = score(setting)
                if scores[setting] > scores[best]:
                    best = setting
    return best, scores


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add_arguments(parser)
    parser.add_argument("--search", type=Path, required=True, help="file with flags of the search, one a line")
    parser.add_argument("--beam", type=positive, help="of the search (default: what FLAGS say)")
    parser.add_argument("--judges", type=Path, nargs="+", required=True, help="checkpoints, see --ctc-judges")
    parser.add_argument("--judged", type=positive, help="hypotheses that they read, the search's best (default: all)")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5])
    parser.add_argument("--bonuses", type=float, nargs="+", default=[0.0, 0.3, 0.6, 1.0, 1.5, 2.0])
    options = parser.parse_args(arguments)
    try:
        flags = read_lines(options.search)
        if options.beam:
            flags = [f"--ctc-beam={options.beam}", *(flag for flag in flags if not flag.startswith("--ctc-beam="))]
        search = search_of(flags)
        canvases = read_canvases(options, search)
        judges = load_judges(options.judges, canvases.task, torch.device("cpu"))
        hypotheses = Hypotheses(canvases, search, judges, options.judged)
    except (InputError, ConvTextError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("weights, token bonus: sacreBLEU, brevity penalty", file=sys.stderr)

    def score(setting: Tuple) -> float:
        result = hypotheses.score(setting[:-1], setting[-1])
        print(f"{setting[:-1]}, {setting[-1]}: {result.score:.2f}, {result.bp:.3f}", file=sys.stderr)
        return round(result.score, 2)

    grids = [sorted(options.weights)] * len(judges) + [sorted(options.bonuses)]
    start = (*[0.0] * len(judges), 0.0)  # what the search alone chooses
    best, _ = ascend(score, start, grids)
    weights = ",".join(map(str, best[:-1]))
    flags += [f"--ctc-judges={':'.join(map(str, options.judges))}", f"--ctc-judge-weights={weights}"]
    flags.append(f"--ctc-judge-token-bonus={best[-1]}")
    print("\n".join(flags + ([f"--ctc-judged={options.judged}"] if options.judged else [])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
