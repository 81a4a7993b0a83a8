import itertools

import pytest
import torch

from fairseq_convtext.decoding.ngram import NgramModel, digest, train_ngram
from fairseq_convtext.errors import ConvTextError

START, EOS, VOCABULARY = 0, 2, 7


def random_text(seed, sentences=60):
    torch.manual_seed(seed)
    lengths = torch.randint(0, 6, (sentences,)).tolist()
    return [torch.randint(3, VOCABULARY, (length,)).tolist() for length in lengths]


def contexts(order):
    """Every history that can occur: start only at the beginning, EOS never."""
    for ids in itertools.product(range(VOCABULARY), repeat=order - 1):
        words = itertools.dropwhile(lambda symbol: symbol == START, ids)
        if EOS not in ids and START not in list(words):
            yield torch.tensor(ids, dtype=torch.int64)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one_after_every_history_seen_or_not(order):
    model = train_ngram(random_text(order), order, VOCABULARY, START, EOS)
    for context in contexts(order):
        total = model.score(context, torch.arange(VOCABULARY)).exp().sum()
        assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_bigrams_equal_kneser_ney_by_hand():
    # "3 4", "3 4", "3 5": discount = 4 / (4 + 2 * 1) from the counts of the bigrams below.
    model = train_ngram([[3, 4], [3, 4], [3, 5]], 2, VOCABULARY, START, EOS)
    # (start 3) x3, (3 4) x2, (3 5) x1, (4 EOS) x2, (5 EOS) x1: two with count 1, two with count 2.
    discount = 2 / (2 + 2 * 2)
    # Distinct left neighbours: 3 after start, 4 and 5 after 3, EOS after 4 and 5. Counts 1, 1, 1, 2.
    lower_discount = 3 / (3 + 2 * 1)
    uniform = 1 / (VOCABULARY - 1)
    four = (1 - lower_discount) / 5 + 4 * lower_discount / 5 * uniform
    wanted = (2 - discount) / 3 + 2 * discount / 3 * four
    found = model.score(torch.tensor([3]), torch.tensor([4])).exp()
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_a_longer_history_predicts_a_patterned_text_better():
    text = [[3, 4, 5, 3, 6, 5] for _ in range(20)] + [[4, 4, 6] for _ in range(5)]
    losses = []
    for order in (1, 2, 3):
        model = train_ngram(text, order, VOCABULARY, START, EOS)
        padded = torch.tensor([START] * (order - 1) + text[0] + [EOS]).unfold(0, order, 1)
        losses.append(-float(model.score(padded[:, :-1], padded[:, -1:]).mean()))
    assert losses[0] > losses[1] > losses[2]


def test_many_are_scored_as_each_alone():
    model = train_ngram(random_text(5), 3, VOCABULARY, START, EOS)
    history, tokens = torch.randint(3, VOCABULARY, (4, 6, 2)), torch.randint(1, VOCABULARY, (4, 6, 5))
    together = model.score(history, tokens)
    for row, column, candidate in itertools.product(range(4), range(6), range(5)):
        alone = model.score(history[row, column], tokens[row, column, candidate : candidate + 1])
        assert float(alone) == float(together[row, column, candidate])


def test_a_saved_model_gives_the_same_numbers(tmp_path):
    model = train_ngram(random_text(6), 3, VOCABULARY, START, EOS)
    torch.save(model.state_dict(), tmp_path / "lm.pt")
    loaded = NgramModel.load(str(tmp_path / "lm.pt"))
    history, tokens = torch.tensor([3, 4]), torch.arange(VOCABULARY)
    assert torch.equal(loaded.score(history, tokens), model.score(history, tokens))


def test_no_text_no_file_or_another_file_is_one_sentence(tmp_path):
    with pytest.raises(ConvTextError, match="at least one sentence"):
        train_ngram([], 3, VOCABULARY, START, EOS)
    with pytest.raises(ConvTextError, match="--order"):
        train_ngram([[3]], 5, 40_000, START, EOS)
    with pytest.raises(ConvTextError, match="there is no n-gram model"):
        NgramModel.load(str(tmp_path / "none.pt"))
    torch.save({"model": 1}, tmp_path / "other.pt")
    with pytest.raises(ConvTextError, match="not an n-gram model"):
        NgramModel.load(str(tmp_path / "other.pt"))
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(ConvTextError, match="cannot be read"):
        NgramModel.load(str(tmp_path / "text.pt"))


def test_perplexity_on_its_own_text_is_that_of_the_stored_probabilities():
    model = train_ngram([[3]], 1, VOCABULARY, START, EOS)
    # Two tokens seen, 3 and EOS, once each: discount 0.5 for want of counts of two.
    share = 0.5 * 2 / 2 / (VOCABULARY - 1)
    found = model.score(torch.empty(0, dtype=torch.int64), torch.tensor([3])).exp()
    assert float(found) == pytest.approx(0.25 + share)


def test_a_model_belongs_to_the_symbols_of_its_dictionary_and_not_only_to_their_number(tmp_path):
    model, symbols = train_ngram(random_text(6), 3, VOCABULARY, START, EOS), [str(n) for n in range(VOCABULARY)]
    model.check_dictionary(symbols[::-1])  # made before a model knew
    model.symbols = digest(symbols)
    torch.save(model.state_dict(), tmp_path / "lm.pt")
    loaded = NgramModel.load(str(tmp_path / "lm.pt"))
    loaded.check_dictionary(symbols)
    with pytest.raises(ConvTextError, match=f"has {VOCABULARY} symbols and the target dictionary others: train it"):
        loaded.check_dictionary(symbols[::-1])
    with pytest.raises(ConvTextError, match=f"has {VOCABULARY} symbols and the target dictionary 3: train it"):
        model.check_dictionary(symbols[:3])
