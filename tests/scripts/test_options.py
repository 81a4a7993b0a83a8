import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from options import CONFIGS, main  # noqa: E402


def test_every_option_is_shown_with_its_default_beneath_the_flag_it_belongs_to(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    parts = {name: text.index(f"{flag}:") for name, (flag, _) in CONFIGS.items()}
    assert sorted(parts.values()) == list(parts.values())
    assert parts["bytenet_deconv"] < text.index("--upsample-strides") < parts["bytenet"]
    assert parts["convtext_ctc"] < text.index("--glancing-ratio") < parts["translation_convtext"]
    assert parts["translation_convtext"] < text.index("--ctc-beam")
    assert "of the encoder and of the decoder (default: bytenet)" in " ".join(text.split())  # wherever lines break


def test_one_part_can_be_asked_for(capsys):
    main(["convtext_ctc"])
    text = capsys.readouterr().out
    assert "--consistency" in text and "--encoder-layers" not in text


def test_an_unknown_part_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as error:
        main(["transformer"])
    assert error.value.code == 2
    assert "unknown 'transformer'; known are bytenet_deconv, bytenet" in capsys.readouterr().err
