"""What a user can do wrong at the command line: each gives one sentence with what to change."""

import argparse
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.dataclass.utils import gen_parser_from_dataclass

from fairseq_convtext.errors import ConvTextError, too_long, user_error
from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig
from fairseq_convtext.models.checks import check_task
from tests.command_lines.commands import run
from tests.command_lines.conftest import ALIGNMENTS
from tests.command_lines.processes import start
from tests.small_model import make_model

SMALL = ["--arch", "bytenet_deconv_tiny", "--encoder-channels", 16, "--encoder-layers", 1, "--decoder-layers", 1]
TRAINING = ["--optimizer", "adam", "--batch-size", 64, "--num-workers", 0, "--max-update", 1, "--no-save"]


def sentence_of(call, *arguments):
    """The message of the ConvTextError that ``call(*arguments)`` ends with; one sentence."""
    with pytest.raises(ConvTextError) as info:
        call(*arguments)
    message = str(info.value)
    assert message.endswith(".") and "\n" not in message
    return message


def binarise(folder, target):
    """A corpus of one pair, repeated."""
    for split in ("train", "valid"):
        (folder / f"{split}.d").write_text("1 2 3\n" * 8, encoding="utf-8")
        (folder / f"{split}.l").write_text(f"{target}\n" * 8, encoding="utf-8")
    prefixes = [f"--{split}pref={folder / split}" for split in ("train", "valid")]
    run("preprocess", "--source-lang", "d", "--target-lang", "l", *prefixes, "--destdir", folder / "bin")
    return folder / "bin"


@pytest.fixture(scope="module")
def untrained(train, tmp_path_factory):
    """A save-dir with the checkpoint of one update."""
    folder = tmp_path_factory.mktemp("untrained")
    train(folder, 1, *ALIGNMENTS["ctc"])
    return folder


# The options, and what the message says.
SENSELESS = {
    "--kernel-size 4": "--kernel-size must be odd .* found 4",
    "--kernel-size=-3": "--kernel-size must be odd and positive.* found -3",
    "--dilations []": "--dilations must name at least one .* found an empty list",
    "--dilations 1,0": "--dilations must be positive; found 0",
    "--dilations=-1,2": "--dilations must be positive; found -1",
    "--upsample-strides []": r"--upsample-strides must be .* positive integers; found \[\]",
    "--upsample-strides 2,0": r"--upsample-strides must be .* positive integers; found \[2, 0\]",
    "--upsample-strides=-2": r"--upsample-strides must be .* positive integers; found \[-2\]",
    "--encoder-layers 0": "--encoder-layers must be at least 1; found 0",
    "--encoder-channels 1": "--encoder-channels must be at least 2; found 1",
    "--dropout 1": "--dropout must be at least 0 and below 1; found 1",
    "--length-bound-a 0 --length-bound-b 1": "at least 2 positions, .* --length-bound-a 0.0 .* give 1.",
    "--glancing-ratio 2": "--glancing-ratio must be a ratio from 0 to 1, .* found '2'",
    "--longest-jump 0": "--longest-jump must be at least 1; found 0",
    "--target-alignment dag --max-target-positions 2": "dag needs at least 3 canvas positions, .* found .* 2",
    "--target-alignment dag --length-bound-a 1 --length-bound-b 1": "at least 3 positions, a start, .* give 2",
    "--max-target-positions 1": "--max-target-positions must be at least 2 .* found 1",
    "--left-pad-target": "padded on the right; found --left-pad-target: leave it out",
    "--share-all-embeddings": "--share-all-embeddings needs one dictionary .* --joined-dictionary",
}


@pytest.mark.parametrize("flags", list(SENSELESS))
def test_options_that_make_no_sense_are_refused_with_the_flag(train, tmp_path, flags):
    assert re.search(SENSELESS[flags], sentence_of(train, tmp_path, 1, *ALIGNMENTS["ctc"], *flags.split()))


def test_a_target_limit_below_the_shortest_target_is_refused(user_dir, tmp_path):
    corpus = binarise(tmp_path, "a b c d e f")
    flags = ["--user-dir", user_dir, *SMALL, "--max-target-positions", 6, *TRAINING, "--save-dir", tmp_path]
    message = sentence_of(run, "train", corpus, *flags)
    assert "no training target fits --max-target-positions 6: the shortest has 7 tokens (EOS included)" in message


def test_a_source_limit_below_the_shortest_source_is_refused(user_dir, tmp_path):
    corpus = binarise(tmp_path, "a b c d e f")
    flags = ["--user-dir", user_dir, *SMALL, "--max-source-positions", 3, *TRAINING, "--save-dir", tmp_path]
    message = sentence_of(run, "train", corpus, *flags)
    assert "no training source fits --max-source-positions 3: the shortest has 4 tokens (EOS included)" in message


def test_a_source_that_is_cut_need_not_fit(user_dir, tmp_path):
    corpus = binarise(tmp_path, "a b c d e f")
    flags = ["--user-dir", user_dir, *SMALL, "--max-source-positions", 3, "--truncate-source", *TRAINING]
    run("train", corpus, *flags, "--save-dir", tmp_path)


def test_a_target_that_holds_the_symbol_of_the_blank_is_refused(user_dir, tmp_path):
    corpus = binarise(tmp_path, "a <s> b")
    flags = ["--user-dir", user_dir, *SMALL, *ALIGNMENTS["ctc"], *TRAINING, "--save-dir", tmp_path]
    message = sentence_of(run, "train", corpus, *flags)
    assert "holds '<s>', which a canvas keeps for the blank: take it out of the text" in message


def test_the_ctc_criterion_refuses_a_position_model(train, tmp_path):
    message = sentence_of(train, tmp_path, 1, "--target-alignment", "position", "--criterion", "convtext_ctc")
    assert "convtext_ctc needs --target-alignment ctc; found --target-alignment position" in message


@pytest.mark.parametrize("criterion", ["cross_entropy", "label_smoothed_cross_entropy", "ctc"])
def test_a_criterion_of_fairseqs_own_refuses_a_ctc_model(train, tmp_path, criterion):
    message = sentence_of(train, tmp_path, 1, "--target-alignment", "ctc", "--criterion", criterion)
    assert "--target-alignment ctc" in message and "use --criterion convtext_ctc" in message


STOCK = {
    "fconv": "--encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-layers [(8,3)] --decoder-layers [(8,3)]",
    "transformer": "--encoder-embed-dim 8 --encoder-layers 1 --decoder-layers 1 --encoder-attention-heads 1 "
    "--decoder-attention-heads 1 --encoder-ffn-embed-dim 8 --decoder-ffn-embed-dim 8",
}


@pytest.mark.parametrize("arch", list(STOCK))
def test_the_ctc_criterion_refuses_a_stock_model(corpus, user_dir, tmp_path, arch):
    flags = ["--user-dir", user_dir, "--arch", arch, *STOCK[arch].split(), "--save-dir", tmp_path, *TRAINING]
    message = sentence_of(run, "train", corpus, "--criterion", "convtext_ctc", *flags)
    assert re.search("convtext_ctc needs .* such as --arch bytenet_deconv; found (FConv|Transformer)Model", message)
    assert not list(tmp_path.iterdir())  # as fairseq's crash.pt, which --no-save does not prevent


def test_a_dictionary_without_room_for_the_blank_is_refused():
    dictionary = Dictionary(bos="</s>")
    task = SimpleNamespace(cfg=SimpleNamespace(), source_dictionary=dictionary, target_dictionary=dictionary)
    ctc = BytenetDeconvConfig(target_alignment="ctc", max_target_positions=50)
    assert re.search("takes .* for the blank, .* it is also '</s>'", sentence_of(check_task, ctc, task))
    check_task(BytenetDeconvConfig(target_alignment="position", max_target_positions=50), task)


def test_a_source_beyond_the_limit_of_the_model_is_refused():
    encoder = make_model(max_source_positions=5).encoder
    assert encoder(torch.full((1, 5), 4))["lengths"].tolist() == [5]
    message = sentence_of(encoder, torch.full((1, 6), 4))
    assert "6 tokens (EOS included), the limit is 5" in message and "--max-source-positions" in message


def test_a_source_beyond_the_limit_of_the_command_is_refused(corpus, user_dir, untrained):
    flags = ["--user-dir", user_dir, "--path", untrained / "checkpoint_last.pt", "--batch-size", 100]
    flags += ["--num-workers", 0, "--task", "translation_convtext", "--max-source-positions", 7]
    message = sentence_of(run, "generate", corpus, *flags)
    assert re.search(r"sentence \d+ .* lengths \(8, \d\) in tokens, EOS included; the limits are \(7, 1024\)", message)
    assert "--max-source-positions" in message
    run("generate", corpus, *flags, "--skip-invalid-size-inputs-valid-test")


@pytest.mark.parametrize("override", ["'generation_dtype': 'int9'", "'blank_penalty': 'much'"])
def test_an_override_with_a_wrong_value_is_refused(corpus, user_dir, untrained, override):
    model = ["--user-dir", user_dir, "--path", untrained / "checkpoint_last.pt", "--batch-size", 100]
    message = sentence_of(run, "generate", corpus, *model, "--num-workers", 0, "--model-overrides", f"{{{override}}}")
    assert "(--model-overrides) has a wrong value: " in message and override.split("'")[3] in message


@pytest.mark.parametrize("flags", [["--print-alignment"], ["--print-step"], ["--replace-unk"], ["--retain-dropout"],
                                   ["--retain-iter-history"]])  # fmt: skip
@pytest.mark.parametrize("task", [["translation"], ["translation_convtext"], ["translation_convtext", "--ctc-beam", 2]])
def test_options_for_other_models_are_refused(corpus, user_dir, untrained, flags, task):
    model = ["--user-dir", user_dir, "--path", untrained / "checkpoint_last.pt", "--task", *task]
    languages = ["--source-lang", "d", "--target-lang", "l"]
    with pytest.raises(ConvTextError) as info:
        run("interactive", corpus, *model, *languages, *flags, stdin="1 2\n")
    said = str(info.value)
    assert re.search(f"{flags[0]} is not for this model, for it.*: leave it out", said)


@pytest.mark.parametrize("task", ["translation", "translation_convtext"])
def test_scores_of_references_are_refused_for_a_ctc_canvas(corpus, user_dir, untrained, task):
    flags = ["--user-dir", user_dir, "--path", untrained / "checkpoint_last.pt", "--batch-size", 100]
    message = sentence_of(run, "generate", corpus, *flags, "--num-workers", 0, "--task", task, "--score-reference")
    assert "--score-reference needs one position per target token" in message and "fairseq-validate" in message


def test_a_reference_that_is_larger_than_its_canvas_is_not_scored(train, corpus, user_dir, tmp_path):
    train(tmp_path, 1, *ALIGNMENTS["position"], "--length-bound-a", 0.5, "--length-bound-b", 1)
    flags = ["--user-dir", user_dir, "--path", tmp_path / "checkpoint_last.pt", "--num-workers", 0, "--score-reference"]
    message = sentence_of(run, "generate", corpus, *flags, "--batch-size", 100)
    assert re.search(r"--score-reference: a reference has \d+ tokens .*, and its canvas \d+ positions: ", message)


@pytest.mark.parametrize("command", ["train", "validate", "generate", "interactive"])
def test_a_sentence_beyond_the_limit_is_named_by_the_stock_task(train, corpus, user_dir, untrained, tmp_path, command):
    limit = ["--task", "translation", "--max-source-positions", 7]
    stored = ["--user-dir", user_dir, "--path", untrained / "checkpoint_last.pt", *limit]
    stored += [] if command == "interactive" else ["--batch-size", 100]
    with pytest.raises(Exception, match="Size of sample") as info:
        if command == "train":
            train(tmp_path, 1, *ALIGNMENTS["ctc"], *limit)
        else:
            run(command, corpus, *stored, "--num-workers", 0, stdin="1 2 3 4 5 6 7\n")
    message = str(too_long(info.value))
    target = 0 if command == "interactive" else 8
    assert re.match(rf"sentence \d+ .* lengths \(8, {target}\) .* EOS included; the limits are \(7, 1024\), ", message)
    assert "--max-source-positions" in message
    assert message.endswith("--skip-invalid-size-inputs-valid-test.") and "\n" not in message


def test_other_errors_keep_their_traceback():
    text = "Size of sample #1 is invalid (=(8, 8)) since max_positions=(7, 7), skip this example with --skip"
    assert too_long(Exception(text)) is not None
    assert too_long(RuntimeError(text)) is None
    assert too_long(Exception(f"While reading: {text}")) is None
    assert too_long(Exception("Size of sample #1 is odd")) is None


def test_a_search_with_a_model_of_another_kind_is_refused(corpus, user_dir, tmp_path):
    run("train", corpus, "--arch", "fconv", *STOCK["fconv"].split(), *TRAINING[:-1], "--save-dir", tmp_path)
    flags = ["--user-dir", user_dir, "--path", tmp_path / "checkpoint_last.pt", "--batch-size", 100]
    flags += ["--num-workers", 0, "--task", "translation_convtext", "--ctc-beam", 5]
    message = sentence_of(run, "generate", corpus, *flags)
    assert "--ctc-beam does not go together with a model that writes one token after the other" in message


@pytest.mark.parametrize("flags", ["--encoder-channels 32", "--encoder-layers 4"])
def test_a_resumed_checkpoint_of_other_sizes_is_refused(train, untrained, flags):
    # fairseq replaces our error by its own, which names the file only.
    with pytest.raises(Exception, match="checkpoint_last.pt; please ensure that the architectures match") as info:
        train(untrained, 2, *ALIGNMENTS["ctc"], *flags.split())
    message = str(user_error(info.value))
    assert re.search(r"does not fit: encoder\S+ is (\(16, 64\)|missing) in it and \([0-9, ]+\) by", message)
    assert message.endswith("or train into another --save-dir.")


def test_a_checkpoint_with_other_dictionaries_is_refused(user_dir, untrained, tmp_path):
    corpus = binarise(tmp_path, "a b")
    flags = ["--user-dir", user_dir, "--path", untrained / "checkpoint_last.pt", "--gen-subset", "valid"]
    message = sentence_of(run, "generate", corpus, *flags, "--batch-size", 8)
    assert "encoder.network.embed.weight is (16, 64) in it and (8, 64) by the options and dictionaries" in message


def test_the_real_command_line_ends_with_the_sentence_and_exit_code_1(corpus, user_dir, tmp_path):
    # An error from the middle of an epoch, when threads of fairseq are running.
    flags = ["--user-dir", user_dir, *SMALL, "--criterion", "convtext_ctc", *TRAINING]
    process = start("train", corpus, *flags, "--save-dir", tmp_path, folder=tmp_path)
    output, errors = process.communicate()
    assert errors.splitlines()[-1].startswith("error: --criterion convtext_ctc needs --target-alignment ctc;")
    assert "Traceback" not in output + errors
    assert process.returncode == 1


def test_the_real_command_line_names_a_sentence_beyond_the_limit_of_the_stock_task(
    corpus, user_dir, untrained, tmp_path
):
    flags = ["--user-dir", user_dir, "--path", untrained / "checkpoint_last.pt", "--batch-size", 100]
    process = start("generate", corpus, *flags, "--max-source-positions", 7, folder=tmp_path)
    output, errors = process.communicate()
    assert errors.splitlines()[-1].startswith("error: sentence ")
    assert "Traceback" not in output + errors
    assert process.returncode == 1


def test_without_user_dir_fairseq_s_last_line_names_the_cure(corpus, untrained, tmp_path):
    # Under another program name than fairseq-generate an installed plugin does not come by itself.
    command = [sys.executable, "-c", "from fairseq_cli.generate import cli_main; cli_main()"]
    command += [corpus, "--path", untrained / "checkpoint_last.pt"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert "needs_user_dir_fairseq_convtext" in done.stderr.splitlines()[-1]
    assert done.returncode == 1


def test_the_field_that_names_the_cure_is_no_option():
    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, BytenetDeconvConfig())
    options = {option for action in parser._actions for option in action.option_strings}
    assert "--encoder-layers" in options
    assert not [option for option in options if "user-dir" in option]
