"""Clean English-German pairs: white space, sentence splitting, and the tests that a pair has to pass.

A pair is a tuple ``(english, german)`` of one-line strings without tabs.
"""

import re
import unicodedata
from typing import Iterable, Iterator, List, Set, Tuple

Pair = Tuple[str, str]

MAX_CHARACTERS = 400
MAX_LENGTH_RATIO = 2.5
LENGTH_SLACK = 12  # characters that may always be missing on one side, for short lines
MAX_SENTENCE_RATIO = 1.9  # stricter: two sentences of a paragraph must not be joined when in doubt
MIN_LETTER_SHARE = 0.5

_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"„])(?:[A-Za-z]|z\. ?B|d\. ?h|u\. ?a|o\. ?ä|i\. ?e|e\. ?g|v\. ?a|a\. ?m|p\. ?m|bzw|ca|ggf|"
    r"evtl|inkl|max|min|Nr|No|Nos|Mr|Mrs|Ms|Dr|St|vs|Vgl|vgl|Abb|Fig|Std|Sek|Min|Mio|Mrd|approx|resp|sog|Jh|etc|usw)\.$"
)
_BOUNDARY = re.compile(r"(?<=[.!?…])[\"”“)]*\s+(?=[\"„“(]*[A-ZÄÖÜ0-9=<#])")
# A blank is missing, as in "the box.The licence"; identifiers such as "Module.Name" stay whole.
_GLUED = re.compile(r"((?<![\w.])[a-zäöüß]{2,}[.!?])(?=[A-ZÄÖÜ][a-zäöüß]+ )")
_WORD = re.compile(r"[^\W\d_]{2}")
_CODE = re.compile(r"\S*[={};<>_]\S*")
_ENGLISH = frozenset("the of and to is are with for from this that you your by be it when which can".split())
_GERMAN = frozenset(
    "der die das den dem des und zu ist sind mit für von sie ihr durch oder ein eine einen einer im auf "
    "wenn nicht wird werden aus bei zum zur als wie es dieser diese dieses kann können".split()
)


def clean_text(text: str) -> str:
    """Fold every kind of white space to one blank and apostrophes to ``'``; drop invisible characters."""
    text = re.sub("[\x00-\x08\x7f\u00ad\u200b-\u200f\u2060\ufeff]", "", text).replace("\u2011", "-")
    text = re.sub("[\u2018\u2019\u02bc\u00b4](?=\\w)|(?<=\\w)[\u2019\u02bc\u00b4]", "'", text)
    return " ".join(text.split())


def normalise(text: str) -> str:
    """Return only the letters of a text, without case and accents: equal for a sentence and its near copies.

    Digits, punctuation and white space are left out, so ``E-Mail 2`` and ``email`` are the same.
    """
    return "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if char.isalpha())


def split_sentences(text: str) -> List[str]:
    """Split a paragraph after ``.``, ``!`` or ``?`` where a capital, a digit or a quote follows."""
    sentences, start = [], 0
    for match in _BOUNDARY.finditer(text):
        sentence = text[start : match.end()].strip()
        # "17. September" is a date; where a number does end a sentence, the two simply stay together.
        if _ABBREVIATION.search(sentence) or re.search(r"\b\d{1,2}\.$", sentence):
            continue
        sentences.append(sentence)
        start = match.end()
    return sentences + [text[start:]]


def _length_fits(english: str, german: str, ratio: float) -> bool:
    short, long = sorted((len(english), len(german)))
    return long <= ratio * short + LENGTH_SLACK


def _anchors(text: str) -> Set[str]:
    """Words that look the same in both languages when a sentence has them: numbers, names, identifiers."""
    return {word for word in re.findall(r"[^\W_][\w.]*\w|\d", text) if word != word.lower() or word.isdigit()}


def split_pair(english: str, german: str) -> List[Pair]:
    """Split a paragraph pair into sentence pairs, or leave it whole when the sentences may not correspond.

    They do when both sides have as many sentences, each pair has similar length, and every number or name
    that both paragraphs contain stands in sentences of the same rank.
    """
    pairs = list(zip(split_sentences(english), split_sentences(german)))
    if len(pairs) != len(split_sentences(english)) or len(pairs) != len(split_sentences(german)):
        return [(english, german)]
    common = _anchors(english) & _anchors(german)
    for english_part, german_part in pairs:
        if not _length_fits(english_part, german_part, MAX_SENTENCE_RATIO):
            return [(english, german)]
        if _anchors(english_part) & common != _anchors(german_part) & common:
            return [(english, german)]
    return pairs


def _is_foreign_script(char: str) -> bool:
    return char.isalpha() and not unicodedata.name(char, "").startswith(("LATIN", "GREEK", "MICRO"))


def is_good(english: str, german: str) -> bool:
    """Tell whether a cleaned pair is fit for training: real words on both sides, translated, plausible."""
    for text in (english, german):
        letters = sum(char.isalpha() for char in text)
        if letters < MIN_LETTER_SHARE * len(text.replace(" ", "")) or len(text) > MAX_CHARACTERS:
            return False
        if not _WORD.search(text) or _CODE.fullmatch(text) or any(_is_foreign_script(char) for char in text):
            return False
    if normalise(english) == normalise(german) or not _length_fits(english, german, MAX_LENGTH_RATIO):
        return False
    words = set(re.findall(r"\w+", german.lower()))
    untranslated = len(words & _ENGLISH) >= 2 and len(words & _ENGLISH) > len(words & _GERMAN)
    return not untranslated


def clean_pairs(raw: Iterable[Pair]) -> Iterator[Pair]:
    """Yield every good pair once, in order; paragraphs become sentences where that is safe."""
    seen: Set[Pair] = set()
    for english, german in raw:
        english = _GLUED.sub(r"\1 ", clean_text(re.sub("[“”]", '"', english)))
        german = _GLUED.sub(r"\1 ", clean_text(german))
        for pair in split_pair(english, german):
            if pair not in seen and is_good(*pair):
                yield pair
            seen.add(pair)
