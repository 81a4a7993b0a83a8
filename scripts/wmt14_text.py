"""What a WMT14 sentence pair has to pass, and how it is written: pure functions of text.

Two routes. ``raw`` keeps the text as it is, but for white space and invisible characters. ``tokenised`` is the
set-up of the papers: Moses punctuation normalisation (training text only, as in fairseq's recipe) and Moses
tokenisation with split hyphens. Its length filters count subwords and stand in ``wmt14_lengths.py``.
"""

import re
from typing import Callable

ROUTES = ("raw", "tokenised")
MAX_WORDS = 250
MAX_CHARACTER_RATIO = 2.0
CHARACTER_SLACK = 10  # may always be missing on one side, for short lines

_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff\ufffd]")
# Letters that are neither Latin nor Greek: the Unicode blocks from Cyrillic to Vedic, then around the phonetic
# extensions, Latin Extended Additional and Greek Extended, the scripts of East Asia, and the further planes but for
# their symbols and emoji (U+1D000 to U+1FBFF).
_FOREIGN = re.compile(
    "[\u0400-\u1cff\u2c00-\u2c5f\u2c80-\u2dff\u2e80-\u2fdf\u3040-\ua71f\ua800-\uab2f\uab70-\ufaff\ufb07-\ufdff"
    "\ufe70-\ufefe\uff66-\uffdc\U00010000-\U0001cfff\U0001fc00-\U0010ffff]"
)
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")
# Frequent words that the other language does not have.
_ENGLISH = frozenset("the of and to is are with for from this that have which not be by it you we on".split())
_GERMAN = frozenset(
    "der das den dem des und zu ist sind mit für von sie nicht ein eine einen auf im sich auch es wir wird".split()
)


def clean_line(text: str) -> str:
    """Fold all white space, line ends inside the line included, to single blanks; drop invisible characters.

    Some sources hold carriage returns inside a line, a line end to fairseq.
    """
    return " ".join(_INVISIBLE.sub("", text).split())


def _is_other_language(text: str, own: frozenset, other: frozenset) -> bool:
    words = {word.lower() for word in _WORD.findall(text)}
    return len(words & other) >= 2 and len(words & other) > len(words & own)


def fault(english: str, german: str) -> str:
    """The first filter that a cleaned pair does not pass, or ``""``.

    ``empty``: a side without a letter. ``script``: a letter that is neither Latin nor Greek. ``language``: both
    sides equal, or a side whose function words are those of the other language.
    """
    for text in (english, german):
        if not _LETTER.search(text):
            return "empty"
        if _FOREIGN.search(text):
            return "script"
    if english == german:
        return "language"
    if _is_other_language(english, _ENGLISH, _GERMAN) or _is_other_language(german, _GERMAN, _ENGLISH):
        return "language"
    return ""


def length_fault(english: str, german: str) -> str:
    """``length``: more than ``MAX_WORDS`` words. ``ratio``: one side far longer than the other, in characters.

    Characters, because German compounds make word counts of short sentences differ by more than the sentences do.
    """
    if max(english.count(" "), german.count(" ")) >= MAX_WORDS:
        return "length"
    short, long = sorted((len(english), len(german)))
    return "ratio" if long > MAX_CHARACTER_RATIO * short + CHARACTER_SLACK else ""


def subword_fault(english: int, german: int, longest: int = 250, ratio: float = 1.5) -> str:
    """``length`` or ``ratio`` by the subwords of each side, as Moses' clean-corpus-n counts; or ``""``."""
    short, long = sorted((english, german))
    if short < 1 or long > longest:
        return "length"
    return "ratio" if long > ratio * short else ""


def tokeniser(language: str, normalise: bool) -> Callable[[str], str]:
    """A function from a line to Moses tokens; with ``normalise`` punctuation is normalised before."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normaliser = MosesPunctNormalizer(language, post_remove_control_chars=True)
    tokens = MosesTokenizer(language)

    def tokenise(text: str) -> str:
        # A carriage return inside a line stands between words; fairseq's recipe changes ’ in its test sets, too.
        text = text.replace("\r", " ")
        text = normaliser.normalize(text) if normalise else text.replace("’", "'")
        return clean_line(tokens.tokenize(text, aggressive_dash_splits=True, return_str=True))

    return tokenise
