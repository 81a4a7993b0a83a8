"""What README.md says of options, presets and files is what the code has."""

import os
import re
from argparse import Namespace
from pathlib import Path

import pytest

from fairseq_convtext.criterions.convtext_ctc import ConvtextCtcConfig
from fairseq_convtext.models import presets
from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig
from fairseq_convtext.tasks.translation_convtext import TranslationConvtextConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "scripts").glob("*.md"))]


def table_of_options():
    section = README[README.index("## Options") :]
    return "\n".join(line for line in section[: section.index("\n**")].splitlines() if line.startswith("|"))


def defaults():
    found = {}
    for config in (BytenetDeconvConfig, ConvtextCtcConfig, TranslationConvtextConfig):
        for name, value in vars(config()).items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(getattr(value, "value", value))
            found[f"--{name.replace('_', '-')}"] = text
    return found


def test_every_option_of_the_table_exists_and_has_the_default_that_it_says():
    known, compared = defaults(), 0
    for flag, said in re.findall(r"`(--[a-z-]+)`(?: \(`?([^\s:;,`)]+(?:,\d+)*)`?(?=[):;,]))?", table_of_options()):
        if flag in ("--joined-dictionary", "--model-overrides", "--bf16"):  # fairseq's
            continue
        assert flag in known
        if re.fullmatch(r"[\d.,]+|position|float32", said) and "$" not in known[flag]:  # "$": fairseq's too
            numbers = all(re.fullmatch(r"[\d.]+", text) for text in (said, known[flag]))
            assert float(said) == float(known[flag]) if numbers else said == known[flag], flag
            compared += 1
    assert compared > 15


def test_the_tiny_preset_is_what_the_text_says_of_it():
    options = Namespace()
    presets.bytenet_deconv_tiny(options)
    size = r"`bytenet_deconv_tiny` \((\d+) \+ (\d+) `(\w+)` blocks of width (\d+),\s+dilations (\d+(?:,\d+)*)"
    said = re.search(size, README).groups()
    dilations = ",".join(map(str, options.dilations))
    layers = str(options.encoder_layers), str(options.decoder_layers)
    assert said == (*layers, options.encoder_block, str(options.encoder_channels), dilations)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_script_that_is_named_exists_and_can_be_run(document):
    pattern = r"`([\w/]+\.(?:py|sh))`" if document.parent.name == "scripts" else r"scripts/([\w/]+\.(?:py|sh))"
    named = set(re.findall(pattern, document.read_text(encoding="utf-8")))
    named |= set(re.findall(r"scripts/([\w/]+\.(?:py|sh))", document.read_text(encoding="utf-8")))
    assert named
    others = {"get_ende_bleu.sh"}  # not of this project
    for name in {name.removeprefix("scripts/") for name in named} - others:
        path = ROOT / "scripts" / name
        assert path.is_file(), name
        assert os.access(path, os.X_OK) == path.read_text(encoding="utf-8").startswith("#!"), name
