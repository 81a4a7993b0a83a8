"""An n-gram language model of subwords as sorted tables.

Interpolated Kneser-Ney (Chen and Goodman 1999, section 4.1.6, one discount an order) with its interpolated
probabilities stored, so that a lookup is the first table that has the n-gram, times the back-off weights passed on
the way (the ARPA scheme). The compiled search reads the tables themselves, see prefix_trie.py.
"""

import hashlib
from array import array
from typing import Any, Dict, Iterable, List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_convtext.errors import ConvTextError

FORMAT = "fairseq_convtext n-gram model 1"
PARTS = ("vocabulary", "start", "keys", "log_probs", "backoffs")
# Longest packing of an n-gram into one int64.
LARGEST_KEY = 2**63 - 1
# In place of a probability of zero, which has no logarithm.
NEVER = 1e-30


def digest(symbols: Sequence[str]) -> str:
    """Tells dictionaries apart, of equal size too: fairseq fills them up to a multiple of eight."""
    return hashlib.sha256("\n".join(symbols).encode("utf-8")).hexdigest()


class NgramModel:
    """log p(token | the tokens before it), in nats.

    Args:
        vocabulary: number of ids.
        start: id that stands for everything before a sentence.
        keys: for each order, sorted int64 keys of the n-grams seen; a key is the ids as digits to base vocabulary.
        log_probs: for each order, log-probability of the last id after the others.
        backoffs: for each order but the highest, log of the weight by which shorter n-grams count after this one.

    ``symbols`` is the digest of the dictionary that the ids belong to, empty where it is not known, as in older files.
    ``seen`` are the ids that occur in the text, sorted, EOS among them; for a model of single ones all ids but start.
    """

    def __init__(
        self, vocabulary: int, start: int, keys: List[Tensor], log_probs: List[Tensor], backoffs: List[Tensor]
    ) -> None:
        self.vocabulary, self.start = vocabulary, start
        self.keys, self.log_probs, self.backoffs = keys, log_probs, backoffs
        self.symbols = ""
        self.order = len(keys)
        self.seen = torch.unique(keys[1] % vocabulary) if self.order > 1 else torch.arange(vocabulary)
        self.seen = self.seen[self.seen != start]

    def score(self, context: Tensor, tokens: Tensor) -> Tensor:
        """
        Args:
            context: ``(..., order - 1)`` ids before, the nearest last; ``start`` where the sentence begins.
            tokens: ``(..., candidates)`` ids.

        Returns:
            ``(..., candidates)`` log-probabilities.
        """
        total = torch.zeros(tokens.shape)
        open_ = torch.ones_like(tokens, dtype=torch.bool)
        # Every id is in the table of single ids, so that the last round closes all.
        for order in range(self.order, 0, -1):
            history = self._key(context[..., context.size(-1) - order + 1 :])[..., None]
            found, value = self._lookup(order, history * self.vocabulary + tokens, self.log_probs)
            total = torch.where(open_ & found, total + value, total)
            open_ = open_ & ~found
            if order > 1:
                _, weight = self._lookup(order - 1, history, self.backoffs)
                total = torch.where(open_, total + weight, total)
        return total

    def _key(self, ids: Tensor) -> Tensor:
        key = torch.zeros(ids.shape[:-1], dtype=torch.int64)
        for column in range(ids.size(-1)):
            key = key * self.vocabulary + ids[..., column]
        return key

    def _lookup(self, order: int, keys: Tensor, values: List[Tensor]) -> Tuple[Tensor, Tensor]:
        table = self.keys[order - 1]
        place = torch.searchsorted(table, keys).clamp(max=table.numel() - 1)
        found = table[place] == keys
        return found, torch.where(found, values[order - 1][place], torch.zeros(()))

    def state_dict(self) -> Dict[str, Any]:
        """For ``torch.save``."""
        return {"format": FORMAT, "symbols": self.symbols, **{name: getattr(self, name) for name in PARTS}}

    @classmethod
    def load(cls, path: str) -> "NgramModel":
        """Reads what ``torch.save(model.state_dict(), path)`` wrote; ConvTextError for anything else."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ConvTextError(f"there is no n-gram model {path}: scripts/train_ngram.py makes one.") from None
        except Exception as error:
            raise ConvTextError(f"{path} cannot be read as an n-gram model: {error}.") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ConvTextError(f"{path} is not an n-gram model of this version: make it with scripts/train_ngram.py.")
        found = cls(*(state[name] for name in PARTS))
        found.symbols = state.get("symbols", "")
        return found

    def check_dictionary(self, symbols: Sequence[str]) -> None:
        """ConvTextError unless the ids are those of a dictionary with these symbols."""
        if self.vocabulary != len(symbols) or self.symbols not in ("", digest(symbols)):
            other = "others" if self.vocabulary == len(symbols) else str(len(symbols))
            raise ConvTextError(
                f"the n-gram model (--ctc-lm) has {self.vocabulary} symbols and the target dictionary {other}: "
                "train it on text of this dictionary with scripts/train_ngram.py."
            )


def train_ngram(sentences: Iterable[Sequence[int]], order: int, vocabulary: int, start: int, eos: int) -> NgramModel:
    """Estimate a model.

    Args:
        sentences: ids without ``start`` and EOS.
        order: longest n-gram.
        vocabulary: number of ids.
        start: id that stands for everything before a sentence; never predicted.
        eos: id that ends every sentence; predicted.

    Raises:
        ConvTextError: no text, or a vocabulary too large for the order.
    """
    if order < 1 or vocabulary**order > LARGEST_KEY:
        raise ConvTextError(
            f"--order must be at least 1 and {vocabulary} symbols to its power fit into 63 bits; found {order}."
        )
    stream = array("q")  # 8 bytes a token: a list would take four times as much
    for sentence in sentences:
        stream.extend([start] * (order - 1) + [*sentence, eos])
    if not stream:
        raise ConvTextError("an n-gram model needs at least one sentence of text.")
    grams = count_ngrams(np.frombuffer(stream, dtype=np.int64), order, vocabulary, start, eos)

    keys, log_probs, backoffs = [], [], []
    shorter, below = np.zeros(1, dtype=np.int64), np.full(1, 1.0 / (vocabulary - 1))
    for level, (key, count) in enumerate(grams, start=1):
        contexts, of = np.unique(key // vocabulary, return_inverse=True)
        ones, twos = np.count_nonzero(count == 1), np.count_nonzero(count == 2)
        discount = np.minimum(count, ones / (ones + 2 * twos) if ones and twos else 0.5)
        total = np.maximum(np.bincount(of, weights=count), 1e-9)
        # What a context leaves to the shorter n-grams.
        share = np.bincount(of, weights=discount) / total
        suffix = key % vocabulary ** (level - 1) if level > 1 else np.zeros_like(key)
        probability = (count - discount) / total[of] + share[of] * below[np.searchsorted(shorter, suffix)]
        # A row that ends in start is there for its back-off weight only.
        probability[key % vocabulary == start] = NEVER
        if level > 1:
            weights = np.zeros(len(shorter))
            weights[np.searchsorted(shorter, contexts)] = np.log(np.maximum(share, NEVER))
            backoffs.append(torch.from_numpy(weights).float())
        keys.append(torch.from_numpy(key))
        log_probs.append(torch.from_numpy(np.log(probability)).float())
        shorter, below = key, probability
    return NgramModel(vocabulary, start, keys, log_probs, backoffs)


def count_ngrams(
    ids: np.ndarray, order: int, vocabulary: int, start: int, eos: int
) -> List[Tuple[np.ndarray, np.ndarray]]:
    """For each order the sorted keys of its n-grams, and their Kneser-Ney counts.

    The longest n-grams, and those that begin a sentence, count how often they occur; the others in how many
    different n-grams they are the end of. An n-gram that ends in ``start`` counts 0.
    """
    counted: List[Tuple[np.ndarray, np.ndarray]] = []
    for level in range(order, 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(ids, level)
        windows = windows[(windows[:, :-1] != eos).all(axis=1)]
        key = windows @ (vocabulary ** np.arange(level - 1, -1, -1, dtype=np.int64))
        key, first, count = np.unique(key, return_index=True, return_counts=True)
        if counted:
            longer, longer_count = counted[-1]
            ends, times = np.unique((longer % vocabulary**level)[longer_count > 0], return_counts=True)
            extended = np.zeros_like(count)
            extended[np.searchsorted(key, ends)] = times
            count = np.where(windows[first, 0] == start, count, extended)
        if level == 1:  # every id can be asked for
            seen, key, count = count, np.arange(vocabulary), np.zeros(vocabulary, dtype=count.dtype)
            count[windows[first, 0]] = seen
        counted.append((key, np.where(key % vocabulary == start, 0, count)))
    return counted[::-1]
