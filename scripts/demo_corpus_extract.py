"""Take English-German pairs out of LibreOffice Help pages and out of the Ding dictionary.

A pair is a tuple ``(english, german)`` of cleaned, non-empty, one-line strings without tabs.
"""

import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from demo_corpus_clean import Pair, clean_text

BLOCK_TAGS = frozenset(["p", "h1", "h2", "h3", "h4", "h5", "h6"])
VOID_TAGS = frozenset(["br", "img", "hr", "input", "link", "meta", "col", "wbr"])


class _HelpPage(HTMLParser):
    """Collects ``(id, text)`` of every paragraph and heading that carries an id, in page order.

    A ``switchinline`` span holds variants of one phrase (Mac, application, default) of which the browser
    shows one; the default variant is taken, else the first.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: List[Tuple[str, str]] = []
        self._open: List[Tuple[str, str]] = []  # (tag, role) of every element that is open
        self._id: Optional[str] = None
        self._texts: List[List[str]] = []  # text pieces; one more level for each open switch variant
        self._variants: List[List[Tuple[bool, str]]] = []  # (is default, text), one level for each switch

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        values = dict(attrs)
        css = (values.get("class") or "").split()
        if tag in VOID_TAGS:
            self.handle_data(" ")
            return
        role = ""
        if tag in BLOCK_TAGS:
            self._close_block()
            if values.get("id") and not any("code" in name for name in css):
                self._id, self._texts, self._variants = values["id"], [[]], []
                role = "block"
        elif self._id is not None and tag == "span":
            if "switchinline" in css:
                self._variants.append([])
                role = "switch"
            elif self._open and self._open[-1][1] == "switch":
                self._texts.append([])
                role = "default" if (values.get("id") or "").startswith("default") else "variant"
        self._open.append((tag, role))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID_TAGS or not any(name == tag for name, _ in self._open):
            return
        while True:
            name, role = self._open.pop()
            self._leave(role)
            if name == tag:
                return

    def close(self) -> None:
        super().close()
        self._close_block()

    def handle_data(self, data: str) -> None:
        # Between the variants of a switch there is only layout; keep none of it.
        if self._id is not None and not (self._open and self._open[-1][1] == "switch"):
            self._texts[-1].append(data)

    def _leave(self, role: str) -> None:
        if role == "block":
            self._close_block()
        elif self._id is None:
            return
        elif role in ("default", "variant"):
            self._variants[-1].append((role == "default", "".join(self._texts.pop())))
        elif role == "switch":
            variants = self._variants.pop()
            chosen = [text for is_default, text in variants if is_default] or [text for _, text in variants]
            self._texts[-1].append(chosen[0] if chosen else "")

    def _close_block(self) -> None:
        if self._id is not None:
            self.blocks.append((self._id, clean_text("".join(self._texts[0]))))
            self._id = None
            self._open = [(tag, "") for tag, _ in self._open]


def help_blocks(html: str) -> List[Tuple[str, str]]:
    """Return ``(id, text)`` of every paragraph and heading with an id, in the order of the page."""
    page = _HelpPage()
    page.feed(html)
    page.close()
    return page.blocks


def pair_page(english_html: str, german_html: str) -> Iterator[Pair]:
    """Join two versions of a page by id; an id used n times on both pages is joined in order.

    Ids that occur a different number of times in the two versions are left out.
    """
    german: Dict[str, List[str]] = defaultdict(list)
    count: Dict[str, int] = defaultdict(int)
    english = help_blocks(english_html)
    for key, text in help_blocks(german_html):
        german[key].append(text)
    for key, _ in english:
        count[key] += 1
    seen: Dict[str, int] = defaultdict(int)
    for key, text in english:
        if len(german.get(key, ())) == count[key]:
            yield text, german[key][seen[key]]
        seen[key] += 1


def help_pairs(english_dir: Path, german_dir: Path) -> Iterator[Pair]:
    """Yield raw pairs of all pages that exist in both folders, pages in sorted order."""
    for english_file in sorted(english_dir.rglob("*.html")):
        german_file = german_dir / english_file.relative_to(english_dir)
        if german_file.is_file():
            yield from pair_page(english_file.read_text("utf-8"), german_file.read_text("utf-8"))


_LABEL = re.compile(r"\s*(?:\[[^\[\]]*\]|\{[^{}]*\})")
_PARENTHESIS = re.compile(r"\s*\(([^()]*)\)")
_SENTENCE = re.compile(r"[\"'„“‘]*[A-ZÄÖÜ0-9].*[.!?][\"'“”‘’]*")
_PLACEHOLDER = re.compile(r"[/<>…()\[\]{}|;~]|\.\.\.|\b(?:sb|sth|jd[nms]?|etw)\.", re.IGNORECASE)
MAX_PARENTHESIS_WORDS = 4


def _alternatives(segment: str) -> List[str]:
    """Split at the semicolons that stand outside brackets: ``A.; B (c; d).`` has two alternatives."""
    parts, depth = [""], 0
    for char in segment:
        depth += (char in "([{") - (char in ")]}")
        if char == ";" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def ding_sentence(alternative: str) -> Optional[str]:
    """Return the plain sentence that one alternative of a Ding entry holds, or None if it holds none.

    Labels such as ``[ugs.]`` or ``{vt}`` and short optional parts in parentheses are removed. A sentence
    starts with a capital or a digit, ends in ``.``, ``!`` or ``?``, and has no ``a/b`` choices, ellipses or
    place holders (``sb.``, ``etw.``), because what to put in their place cannot be told.
    """
    text = _LABEL.sub("", alternative)
    optional = _PARENTHESIS.findall(text)
    if any(len(part.split()) > MAX_PARENTHESIS_WORDS for part in optional):
        return None
    text = clean_text(_PARENTHESIS.sub("", text))
    text = text[:1].upper() + text[1:] if optional else text
    # Misprints of the source: "Stop!." and "ashore.."
    text = re.sub(r"([!?])\.|(?<!\.)\.\.$", lambda match: match.group(1) or ".", text)
    if not _SENTENCE.fullmatch(text) or _PLACEHOLDER.search(text):
        return None
    # One word and a full stop is an abbreviation, not a sentence.
    return None if " " not in text and text.endswith(".") else text


def ding_pairs(lines: Iterable[str]) -> Iterator[Pair]:
    """Yield the sentence pairs of a Ding file: ``German | German :: English | English``, parts aligned.

    Of several alternatives for a sentence the first usable one is taken on each side.
    """
    for line in lines:
        if line.startswith("#") or "::" not in line:
            continue
        german, english = (side.split("|") for side in line.split("::", 1))
        if len(german) != len(english):
            continue
        for english_part, german_part in zip(english, german):
            sides = []
            for part in (english_part, german_part):
                sentences = (ding_sentence(alternative) for alternative in _alternatives(part))
                sides.append(next((sentence for sentence in sentences if sentence), None))
            if sides[0] and sides[1]:
                yield sides[0], sides[1]
