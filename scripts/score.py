#!/usr/bin/env python3
"""Score translations: sacreBLEU, chrF and tokenised BLEU, by the protocols that papers use (--protocol).

Two kinds of input:
  score.py gen.out                                    what fairseq-generate or fairseq-interactive printed
  score.py --hypothesis hyp.txt --reference ref.txt   plain text, one sentence a line

Sentences are put in the order of their ids, subwords are joined, and nothing is skipped: a missing id or a
wrong number of sentences is an error. The references are the T- lines, or the lines of --reference. Nothing is
downloaded; where the references are newstest2014, the signature says so.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from corpus_checks import InputError, read_lines
from protocols import PROTOCOLS, detokenise, known_test_set, measures_of, missing_name_note, score_rows

LABELLED_LINE = re.compile(r"([STHDP])-([0-9]+)\t(.*)", re.DOTALL)
# Two layouts: what fairseq sets up, and what Python gives where another import set up logging before it.
LOGGED_COUNT = re.compile(r"fairseq\.tasks\.\w+(?: \| |:).* ([0-9]+) examples$")
SENTENCEPIECE_MARK = "\u2581"
SUBWORD_NMT_MARK = re.compile(r"@@( |$)")
MOSES_TOKEN = re.compile(r"&(apos|quot);| @-@ ")
LOST_SENTENCES = (
    "fairseq drops the last batch when its size is not a multiple of --required-batch-size-multiple "
    "(default 8), and long sentences with --skip-invalid-size-inputs-valid-test; "
    "translate again with --required-batch-size-multiple 1 and without the latter"
)


@dataclass
class Generated:
    """The labelled lines of one fairseq output, by sentence id.

    Attributes:
        texts: for each of the labels S, T, H, D, P the text of each sentence id; the first of an n-best list.
        logged_count: the size of the test set, if fairseq's log is among the lines.
        further: number of hypotheses beyond the first of their sentence.
    """

    texts: Dict[str, Dict[int, str]] = field(default_factory=lambda: {label: {} for label in "STHDP"})
    logged_count: Optional[int] = None
    further: int = 0


@dataclass
class Corpus:
    """Hypotheses and references, line by line, with what a reader of the scores should know.

    ``tokens`` are the hypotheses before --detokenise, if it was given.
    """

    hypotheses: List[str]
    references: List[str]
    notes: List[str]
    tokens: Optional[List[str]] = None


def parse_generated(path: Path) -> Generated:
    """Read an output of fairseq-generate (printed or ``generate-test.txt``) or fairseq-interactive.

    Raises:
        InputError: unreadable file, no hypotheses, or a sentence that occurs in two places.
    """
    found = Generated()
    for line in read_lines(path):
        match = LABELLED_LINE.fullmatch(line)
        if match is None:
            logged = LOGGED_COUNT.search(line)
            found.logged_count = int(logged.group(1)) if logged else found.logged_count
            continue
        label, number, text = match.group(1), int(match.group(2)), match.group(3)
        if label in "HD":
            _, tab, text = text.partition("\t")
            if not tab:
                raise InputError(f"{path}: {label}-{number} has no text; is the file cut off?")
        if number not in found.texts[label]:
            found.texts[label][number] = text
        elif label in "ST":
            raise InputError(f"{path} has two lines {label}-{number}: it holds the output of several runs")
        elif label == "H":
            found.further += 1
    if not found.texts["H"]:
        raise InputError(
            f"{path} has no line that starts with H-: expected what fairseq-generate prints without --quiet; "
            f"give plain text with --hypothesis"
        )
    return found


def check_ids(path: Path, found: Generated, expected: Dict[str, int]) -> None:
    """Refuse an output in which sentences are missing or too many.

    Args:
        path: for the message.
        found: the parsed output.
        expected: for each place that says how many sentences there must be, the number.
    Raises:
        InputError: with the number of lost sentences, the first of their ids and fairseq's reason.
    """
    known = set().union(*found.texts.values())
    total = max([max(known) + 1, *expected.values()])
    missing = sorted(set(range(total)).difference(found.texts["H"]))
    if missing:
        ids = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        place = next((place for place, count in expected.items() if count == total), "the highest id")
        raise InputError(
            f"{path} lacks {len(missing)} of {total} sentences (number known from {place}; "
            f"missing: {ids}): {LOST_SENTENCES}"
        )
    for place, count in expected.items():
        if count != total:
            raise InputError(f"{path} has {total} sentences, but {place} says {count}: another test set?")
    for label in "DP":
        partly = found.texts[label] and set(found.texts["H"]).difference(found.texts[label])
        if partly:
            raise InputError(f"{path} has H-{min(partly)} but no {label}-{min(partly)}: is it cut off?")


def load_generated(path: Path, reference: Optional[Path], sentences: Optional[int]) -> Corpus:
    """Hypotheses and references from a fairseq output, sorted by sentence id."""
    found = parse_generated(path)
    expected, notes = {}, []
    replaced = read_lines(reference) if reference else None
    if sentences is not None:
        expected["--sentences"] = sentences
    if replaced is not None:
        expected[f"--reference {reference}"] = len(replaced)
    if found.logged_count is not None:
        expected["fairseq's log in it"] = found.logged_count
    check_ids(path, found, expected)
    if not expected:
        notes.append("a loss of the last sentences would go unseen: say how many there are with --sentences")
    ids = range(len(found.texts["H"]))
    if replaced is None:
        missing = [number for number in ids if number not in found.texts["T"]]
        if missing:
            raise InputError(f"{path} has no line T-{missing[0]}: give the references with --reference FILE")
        replaced = [found.texts["T"][number] for number in ids]
        unknown = sum("<<unk>>" in line for line in replaced)
        if unknown:
            notes.append(f"{unknown} references contain <<unk>>: give the original text with --reference")
    label = "D" if found.texts["D"] else "H"
    same = found.texts["D"] == found.texts["H"]
    notes.append("hypotheses: " + ("H- lines (D- lines are equal)" if same else f"{label}- lines"))
    if found.further:
        notes.append(f"n-best list: the first of each sentence is scored, {found.further} others are not")
    return Corpus([found.texts[label][number] for number in ids], replaced, notes)


def load_plain(hypothesis: Path, reference: Path, sentences: Optional[int]) -> Corpus:
    """Hypotheses and references from two text files, one sentence a line."""
    corpus = Corpus(read_lines(hypothesis), read_lines(reference), [])
    found = len(corpus.hypotheses)
    if found != len(corpus.references):
        raise InputError(
            f"{hypothesis} has {found} lines and {reference} has {len(corpus.references)}: "
            f"expected one reference for each translation"
        )
    if sentences is not None and sentences != found:
        raise InputError(f"{hypothesis} has {found} lines, but --sentences says {sentences}")
    if not found:
        raise InputError(f"{hypothesis} is empty: expected one sentence a line")
    return corpus


def remove_subwords(lines: List[str], kind: str) -> Tuple[List[str], str]:
    """Join subwords to words.

    Args:
        lines: one text, for example all hypotheses. A text without a single mark is words already and stays.
        kind: ``sentencepiece`` (U+2581 starts a word), ``subword-nmt`` (``@@`` ends what goes on), ``none``,
            or ``auto``: sentencepiece if half of the lines have its mark (plain text may hold one), else
            subword-nmt.

    Returns:
        The lines, and the kind that was removed or ``none``.
    """
    filled = sum(1 for line in lines if line.strip())
    pieces = sum(SENTENCEPIECE_MARK in line for line in lines)
    if pieces and (kind == "sentencepiece" or (kind == "auto" and 2 * pieces >= filled)):
        joined = [line.replace(" ", "").replace(SENTENCEPIECE_MARK, " ").strip() for line in lines]
        return joined, "sentencepiece"
    if kind in ("auto", "subword-nmt") and any(SUBWORD_NMT_MARK.search(line) for line in lines):
        return [SUBWORD_NMT_MARK.sub("", line) for line in lines], "subword-nmt"
    return lines, "none"


def compute(
    corpus: Corpus, lowercase: bool, already_tokenised: bool, language: str, protocol: str = "default"
) -> List[dict]:
    """The scores of a protocol; for the rows see ``protocols.score_rows``."""
    measures = measures_of(protocol, language, lowercase, already_tokenised)
    return score_rows(measures, corpus.hypotheses, corpus.references, corpus.tokens)


def prepare(options: argparse.Namespace) -> Corpus:
    """Load both sides, join subwords, and detokenise."""
    if options.generated:
        corpus = load_generated(options.generated, options.reference, options.sentences)
    else:
        corpus = load_plain(options.hypothesis, options.reference, options.sentences)
    for side in ("hypotheses", "references"):
        lines, kind = remove_subwords(getattr(corpus, side), options.remove_subwords)
        setattr(corpus, side, lines)
        if kind != "none":
            corpus.notes.append(f"{kind} subwords removed from the {side}")
    empty = sum(not line.strip() for line in corpus.hypotheses)
    if empty:
        corpus.notes.append(f"{empty} hypotheses are empty")
    if options.detokenise:
        corpus.tokens = corpus.hypotheses
        corpus.hypotheses = detokenise(corpus.tokens, options.target_lang)
        corpus.notes.append("translations detokenised; only BLEU of Moses -a tokens takes them as they are")
    if options.protocol == "wmt14" and not known_test_set(corpus.references):
        corpus.notes.append(missing_name_note(corpus.references))
    if options.already_tokenised:
        corpus.notes.append("sacreBLEU and chrF of tokenised text: not comparable with those of plain text")
    elif any(MOSES_TOKEN.search(line) for side in (corpus.hypotheses, corpus.references) for line in side):
        corpus.notes.append("the text looks tokenised (&apos; or @-@): see --detokenise and --already-tokenised")
    return corpus


def print_table(corpus: Corpus, scores: List[dict]) -> None:
    width = max(len(row["name"]) for row in scores)
    print(f"{'metric':{width}}  score  signature")
    for row in scores:
        print(f"{row['name']:{width}}  {row['score']:5.2f}  {row['signature']}")
    bleu = scores[0]
    print(
        f"{len(corpus.hypotheses)} sentences, brevity penalty {bleu['brevity_penalty']:.3f}, "
        f"hypothesis to reference length {bleu['length_ratio']:.3f}"
    )
    for note in corpus.notes:
        print(f"note: {note}")


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("file", nargs="?", type=Path, help="fairseq output, the same as --generated")
    parser.add_argument("--generated", type=Path, help="output of fairseq-generate or fairseq-interactive")
    parser.add_argument("--hypothesis", type=Path, help="translations in plain text; needs --reference")
    parser.add_argument("--reference", type=Path, help="references in plain text, instead of the T- lines")
    parser.add_argument("--sentences", type=int, help="how many sentences the test set has")
    kinds = ("auto", "sentencepiece", "subword-nmt", "none")
    parser.add_argument("--remove-subwords", choices=kinds, default="auto", help="default: auto")
    parser.add_argument("--lowercase", action="store_true", help="ignore case (usual for Multi30k)")
    parser.add_argument("--already-tokenised", action="store_true", help="both sides are tokens: use these")
    parser.add_argument(
        "--detokenise", action="store_true", help="the translations are Moses tokens, --reference is plain text"
    )
    lines = "; ".join(f"{name}: {text}" for name, text in PROTOCOLS.items())
    parser.add_argument("--protocol", choices=PROTOCOLS, default="default", help=lines)
    parser.add_argument("--target-lang", default="de", help="language of the Moses tokeniser (default: de)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if len([path for path in (options.file, options.generated, options.hypothesis) if path]) != 1:
        parser.error("give exactly one of: a fairseq output, --generated, --hypothesis")
    if options.hypothesis and not options.reference:
        parser.error("--hypothesis needs --reference")
    if options.detokenise and not options.reference:
        parser.error("--detokenise needs --reference, the plain text of the references")
    if options.already_tokenised and (options.detokenise or options.protocol != "default"):
        parser.error("--already-tokenised goes with neither --detokenise nor another --protocol than default")
    if options.lowercase and options.protocol != "default":
        parser.error(f"--lowercase does not go with --protocol {options.protocol}, which says what is lower-cased")
    options.generated = options.generated or options.file
    return options


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    try:
        corpus = prepare(options)
        tokenised, language = options.already_tokenised, options.target_lang
        scores = compute(corpus, options.lowercase, tokenised, language, options.protocol)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        result = {row.pop("key"): row for row in scores}
        print(json.dumps({"sentences": len(corpus.hypotheses), **result, "notes": corpus.notes}, indent=2))
    else:
        print_table(corpus, scores)
    return 0


if __name__ == "__main__":
    sys.exit(main())
