"""The canvases of a validation set, read once for the scripts that try several ways to decode them."""

import argparse
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Union

import torch
from benchmark_report import positive
from corpus_checks import InputError, read_lines
from sacrebleu.metrics import BLEU
from torch import Tensor
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from fairseq_convtext.decoding.one_pass import Symbols, best_symbols  # noqa: E402
from fairseq_convtext.decoding.path_beam import Graph  # noqa: E402
from fairseq_convtext.decoding.prefix_beam import SearchOptions  # noqa: E402
from fairseq_convtext.decoding.rescoring import sentences_of  # noqa: E402
from fairseq_convtext.errors import ConvTextError  # noqa: E402


class Canvas(NamedTuple):
    """One batch: sentence ids, what the model would write at each position, the bounds, and what the model has read."""

    ids: List[int]
    symbols: Union[Symbols, Graph]
    bound: Tensor
    net_input: Dict[str, Tensor]


class Canvases(NamedTuple):
    """All batches of a subset, their references, and what is needed to turn ids into text."""

    batches: List[Canvas]
    references: List[str]
    blank: int
    eos: int
    task: Any

    def bleu(self, read: Callable[[Canvas], List[Tensor]]) -> BLEU:
        """sacreBLEU of what ``read`` makes of every batch: for each sentence its tokens, EOS left out or not."""
        texts = {}
        for canvas in self.batches:
            for key, tokens in zip(canvas.ids, read(canvas)):
                texts[key] = self.task.target_dictionary.string(tokens, "sentencepiece")
        return BLEU().corpus_score([texts[key] for key in sorted(texts)], [self.references])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every script needs that decodes a validation set in several ways."""
    parser.add_argument("data", type=Path, help="folder that fairseq-preprocess made, of sentencepiece text")
    parser.add_argument("--path", type=Path, required=True, help="checkpoint")
    parser.add_argument("--reference", type=Path, required=True, help="plain text of the subset's targets")
    parser.add_argument("--subset", default="valid", help="never a test set (default: valid)")
    parser.add_argument("--sentences", type=positive, help="only the first so many, to be quicker (default: all)")
    parser.add_argument("--batch-size", type=positive, default=64)


def read_canvases(options: argparse.Namespace, search: Optional[SearchOptions] = None) -> Canvases:
    """The network runs once over the subset; ``search`` tells what a search with these options would read.

    Raises:
        InputError: no checkpoint, no canvas to search, or another number of references than sentences.
        ConvTextError: a checkpoint or language model of another dictionary.
    """
    references = read_lines(options.reference)
    from fairseq import checkpoint_utils, utils

    utils.import_user_module(argparse.Namespace(user_dir=str(ROOT / "fairseq_convtext")))
    try:
        models, _, task = checkpoint_utils.load_model_ensemble_and_task(
            [str(options.path)], arg_overrides={"data": str(options.data)}
        )
    except ConvTextError:
        raise
    except Exception as error:  # torch and fairseq have no error of their own for it
        raise InputError(f"{options.path} is no checkpoint of fairseq that can be read: {error}") from error
    model = models[0].eval()
    decoder = model.decoder
    alignment = getattr(decoder, "target_alignment", None)
    if search is None and alignment != "ctc":
        raise InputError(f"{options.path} was not trained with --target-alignment ctc, and only CTC has a blank")
    if alignment not in ("ctc", "dag"):
        raise InputError(f"{options.path} was not trained with --target-alignment ctc or dag: nothing to search")
    if search is not None and search.lm is not None:
        search.lm.check_dictionary(task.target_dictionary.symbols)
    task.load_dataset(options.subset)
    count = len(task.dataset(options.subset))
    if len(references) != count:
        raise InputError(f"the data have {count} sentences and {options.reference} {len(references)} lines")
    if any(symbol.endswith("@@") for symbol in task.target_dictionary.symbols):
        raise InputError(f"{options.data} has subwords of subword-nmt (@@): this script joins those of sentencepiece")
    batches = task.get_batch_iterator(
        task.dataset(options.subset), max_sentences=options.batch_size, required_batch_size_multiple=1
    ).next_epoch_itr(shuffle=False)
    found = []
    with torch.no_grad():
        for batch in tqdm(batches, desc=options.subset, unit="batch", disable=None):
            ids = batch["id"].tolist()
            taken = torch.tensor([key < (options.sentences or count) for key in ids])
            if not bool(taken.any()):
                continue
            encoder_out = model.encoder(batch["net_input"]["src_tokens"])
            if search is None:
                forbidden = decoder.alignment.forbidden
                symbols = best_symbols(decoder.canvas(encoder_out), decoder.project, forbidden, decoder.blank)
            else:
                symbols = decoder.candidates(encoder_out, search)
            tables = type(symbols)(*(table[taken] for table in symbols))
            read = sentences_of(batch["net_input"], taken, task.source_dictionary.pad())
            kept = [key for key, here in zip(ids, taken.tolist()) if here]
            found.append(Canvas(kept, tables, encoder_out["bound"][taken], read))
    return Canvases(found, references[: options.sentences], decoder.blank, decoder.eos, task)
