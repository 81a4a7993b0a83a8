#!/usr/bin/env python3
"""Joint sentencepiece subwords for a small corpus.

  subwords.py train --model spm.model --vocabulary 4000 train.en train.de
  subwords.py encode --model spm.model --out FOLDER test.en test.de     writes FOLDER/test.en, FOLDER/test.de

A model that exists is kept, and so are files of subwords that are younger than their text and the model. Lines stay
lines: one in, one out.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import List, Optional

import sentencepiece
from corpus_checks import InputError, check_file, iter_lines
from tqdm import tqdm


def load(model: Path) -> sentencepiece.SentencePieceProcessor:
    """The model in a file; InputError when there is none in it."""
    if not model.is_file():
        raise InputError(f"no file {model} (--model)")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model))
    except RuntimeError as error:
        raise InputError(f"{model} is no sentencepiece model") from error


def train(model: Path, vocabulary: int, texts: List[Path], seed: int, sentences: int = 0) -> None:
    """Byte-pair encoding over all ``texts`` together, or over a random sample of ``sentences`` of their lines."""
    if model.exists():
        found = load(model).get_piece_size()
        if found != vocabulary:
            raise InputError(
                f"{model} exists and has {found} pieces, not {vocabulary} (--vocabulary): remove it, or choose another "
                "--model"
            )
        print(f"{model} exists and is kept")
        return
    for text in texts:
        check_file(text)
    model.parent.mkdir(parents=True, exist_ok=True)
    part = model.parent / f"{model.name}.part"
    sentencepiece.set_random_generator_seed(seed)
    with part.open("wb") as stream:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(line for text in texts for line in iter_lines(text)),
                model_writer=stream,
                model_type="bpe",
                vocab_size=vocabulary,
                character_coverage=1.0,
                num_threads=os.cpu_count() or 1,
                minloglevel=2,
                input_sentence_size=sentences,
                shuffle_input_sentence=sentences > 0,
            )
        except RuntimeError as error:
            raise InputError(f"--vocabulary {vocabulary} does not go with this text: {error}") from error
    part.replace(model)
    print(f"{model}: {vocabulary} pieces")


def encode(model: Path, out: Path, texts: List[Path]) -> None:
    """Pieces separated by blanks, file by file."""
    processor = load(model)
    for text in texts:
        check_file(text)
        if (out / text.name).exists() and (out / text.name).samefile(text):
            raise InputError(f"--out {out} is the folder of {text.name}, which its subwords would overwrite")
    names = [text.name for text in texts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two texts are called {twice[0]} and would become one file: encode each to its own --out")
    out.mkdir(parents=True, exist_ok=True)
    for text in tqdm(texts, desc="subwords", unit="file", disable=None):
        target = out / text.name
        if target.exists() and target.stat().st_mtime >= max(path.stat().st_mtime for path in (text, model)):
            tqdm.write(f"{target} exists and is kept", file=sys.stderr)
            continue
        part = target.parent / f"{target.name}.part"
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            for line in iter_lines(text):
                stream.write(" ".join(processor.encode(line, out_type=str)) + "\n")
        part.replace(target)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "encode"):
        command = commands.add_parser(name)
        command.add_argument("texts", nargs="+", type=Path, help="plain text, one sentence a line")
        command.add_argument("--model", type=Path, required=True, help="sentencepiece model")
        if name == "train":
            command.add_argument("--vocabulary", type=int, default=4000, help="number of pieces (default: 4000)")
            command.add_argument("--seed", type=int, default=1)
            command.add_argument("--sentences", type=int, default=0, help="lines to learn from (default: 0, all)")
        else:
            command.add_argument("--out", type=Path, required=True, help="folder for the files of the same names")
    options = parser.parse_args(arguments)
    try:
        if options.command == "train":
            train(options.model, options.vocabulary, options.texts, options.seed, options.sentences)
        else:
            encode(options.model, options.out, options.texts)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
