"""What score.py measures: for each protocol the metrics, what is done to the text before, and their names.

Scores of different protocols are not comparable. All n-gram counting is sacrebleu's; tokenised BLEU is unsmoothed
BLEU on ready tokens, which is what multi-bleu.perl and the last line of fairseq-generate give. The Moses scripts are
sacremoses, whose tokenizer is Moses as it was before November 2018. Signatures name the test set (test, lang) where
the references are known to be it; these are sacrebleu's own keys, though its 2.x command does not print them.
"""

import hashlib
import html
import re
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Tuple

from corpus_checks import InputError

PROTOCOLS = {
    "default": "sacreBLEU, chrF and the tokenised BLEU of parallel-translation papers",
    "wmt14": "these three for newstest2014, and BLEU with compounds split as in 'Attention is all you need'",
    "multi30k": "sacreBLEU, chrF and the lower-cased tokenised BLEU of Multi30k publications",
}
# SHA-256 of references whose name sacrebleu knows: one line a sentence, white space as sacrebleu cleans it.
TEST_SETS = {
    "ae5d110486bc33d7175e9e28c7d0051eb3e5fcd2166dd93371089852c091a20e": ("wmt14/full", "en-de"),
    "7294bccf2879a97b3706b95c9595f1459617a8ee7130d5d8581c910e69736971": ("wmt14/full", "de-en"),
}
NEWSTEST2014_LINES = 3003
COMPOUND = re.compile(r"(\S)-(\S)")
# Moses splits the last full stop of a line from its word, since its commit 9fc964d (2018); sacremoses not always.
LAST_STOP = re.compile(r"(?<=[^\s.])\.$")
DOUBLE_QUOTES = str.maketrans({"\u201e": '"', "\u201c": '"', "\u201d": '"'})

Prepare = Callable[[List[str]], List[str]]


@dataclass(frozen=True)
class Measure:
    """One line of the table.

    Attributes:
        key: short name for --json.
        name: what it is, for the table.
        metric: a sacrebleu metric.
        prepare: from plain text to what the metric reads; applied to both sides.
        takes_tokens: whether translations that are tokens already are taken as they are.
    """

    key: str
    name: str
    metric: Any
    prepare: Prepare
    takes_tokens: bool = False


def as_given(lines: List[str]) -> List[str]:
    """For metrics with a tokeniser of their own."""
    return lines


def _sacremoses() -> Any:
    try:
        import sacremoses
    except ImportError as error:
        raise InputError("tokenised BLEU needs sacremoses: pip install sacremoses") from error
    return sacremoses


def moses_tokens(lines: List[str], language: str, hyphens: bool = False) -> List[str]:
    """Tokens of Moses' tokenizer.perl without its escapes; with ``hyphens`` those of its option -a."""
    tokenizer = _sacremoses().MosesTokenizer(lang=language)
    options = {"aggressive_dash_splits": hyphens, "return_str": True, "escape": False}
    return [tokenizer.tokenize(line, **options) for line in lines]


def fairseq_tokens(lines: List[str], language: str) -> List[str]:
    """Tokens of fairseq's WMT14 recipe (``tokenizer.perl -a``): what most parallel-translation papers score."""
    return [LAST_STOP.sub(" .", line) for line in moses_tokens(lines, language, hyphens=True)]


def compound_tokens(lines: List[str], language: str) -> List[str]:
    """Tokens of tensor2tensor's get_ende_bleu.sh, where the parts of a hyphenated word are words."""
    return [COMPOUND.sub(r"\1 ##AT##-##AT## \2", line) for line in moses_tokens(lines, language)]


def multi30k_tokens(lines: List[str], language: str) -> List[str]:
    """Tokens of Multi30k's ``lc.norm.tok`` files: lower-cased, punctuation normalised, tokenised."""
    normalizer = _sacremoses().MosesPunctNormalizer(lang=language)
    return moses_tokens([normalizer.normalize(line.lower()) for line in lines], language)


def unify(lines: List[str]) -> List[str]:
    """Straight double quotes for German and English ones."""
    return [line.translate(DOUBLE_QUOTES) for line in lines]


def detokenise(lines: List[str], language: str) -> List[str]:
    """Plain text from Moses tokens, escapes and ``@-@`` undone."""
    detokenizer = _sacremoses().MosesDetokenizer(lang=language)
    return [detokenizer.detokenize(line.split()) for line in lines]


def known_test_set(references: List[str]) -> Optional[Tuple[str, str]]:
    """sacrebleu's name and language pair of a test set with these references, or None."""
    text = "".join(re.sub(r"\s+", " ", line.strip()) + "\n" for line in references)
    return TEST_SETS.get(hashlib.sha256(text.encode("utf-8")).hexdigest())


def missing_name_note(references: List[str]) -> str:
    """Why the signature of the protocol wmt14 names no test set."""
    count = len(references)
    found = "another text" if count == NEWSTEST2014_LINES else f"{count} lines, not {NEWSTEST2014_LINES}"
    return f"the references are not newstest2014 as sacrebleu has it ({found}): the signature names no test set"


def measures_of(protocol: str, language: str, lowercase: bool, already_tokenised: bool) -> List[Measure]:
    """The lines of a protocol's table.

    Args:
        protocol: a key of ``PROTOCOLS``.
        language: target language, for Moses. Compounds are split in German only.
        lowercase: ignore case; for the protocol default only.
        already_tokenised: both sides are tokens, for all metrics; for the protocol default only.
    """
    from sacrebleu.metrics import BLEU, CHRF

    def tokenised(lowercase: bool = False) -> BLEU:
        return BLEU(lowercase=lowercase, tokenize="none", smooth_method="none", force=True)

    measures = [
        Measure("sacrebleu", "sacreBLEU", BLEU(lowercase=lowercase, force=already_tokenised), as_given),
        Measure("chrf", "chrF", CHRF(lowercase=lowercase), as_given),
    ]
    if protocol == "multi30k":
        name = f"tokenised BLEU, lower-cased (Multi30k lc.norm.tok tokens, {language})"
        return [*measures, Measure("tokenised_bleu", name, tokenised(), lambda lines: multi30k_tokens(lines, language))]
    case = "lower-cased" if lowercase else "cased"
    prepare = as_given if already_tokenised else lambda lines: fairseq_tokens(lines, language)
    tool = "tokens as given" if already_tokenised else f"Moses -a tokens, {language}"
    name = f"tokenised BLEU ({tool}, {case})"
    measures.append(Measure("tokenised_bleu", name, tokenised(lowercase), prepare, takes_tokens=True))
    if protocol == "wmt14" and language == "de":
        name = "compound-split BLEU (get_ende_bleu.sh)"
        measures.append(Measure("compound_bleu", name, tokenised(), lambda lines: compound_tokens(lines, language)))
        # The reference that tensor2tensor published for that script has " for every double quote; in newstest2014
        # more than half of them are German ones, which a model trained on normalised text never writes.
        name = "compound-split BLEU, quotes unified as in tensor2tensor's reference"
        measures.append(
            Measure("unified_quotes_bleu", name, tokenised(), lambda lines: compound_tokens(unify(lines), language))
        )
    return measures


def score_rows(
    measures: List[Measure], hypotheses: List[str], references: List[str], tokens: Optional[List[str]] = None
) -> List[dict]:
    """Rows ``key``, ``name``, ``score``, ``signature`` and, for BLEU, its length terms.

    Args:
        measures: what to compute.
        hypotheses: plain text.
        references: plain text.
        tokens: the translations as a model of Moses tokens wrote them, escaped or not; None if it wrote text.
    """
    test_set = known_test_set(references)
    rows = []
    for measure in measures:
        sides = measure.prepare(hypotheses), measure.prepare(references)
        if tokens is not None and measure.takes_tokens:
            sides = [html.unescape(line) for line in tokens], sides[1]
        result = measure.metric.corpus_score(sides[0], [sides[1]])
        signature = measure.metric.get_signature()
        if test_set and measure.prepare is as_given:
            signature.update("test", test_set[0])
            signature.update("lang", test_set[1])
        row = {"key": measure.key, "name": measure.name, "score": result.score, "signature": str(signature)}
        if hasattr(result, "bp"):
            row.update(brevity_penalty=result.bp, length_ratio=result.ratio)
        rows.append(row)
    return rows
