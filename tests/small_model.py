"""A small model and its task, built in memory: no files, no command line."""

from typing import Any, Dict, List, Optional, Sequence

import torch
from fairseq.data import Dictionary, data_utils
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_convtext.models.bytenet_deconv import BytenetDeconvModel
from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig

SMALL = {
    "encoder_channels": 16,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "growth_channels": 4,
    "dilations": [1, 2],
    "max_source_positions": 40,
    "max_target_positions": 50,
    "dropout": 0.0,
}


def make_dictionary(words: int) -> Dictionary:
    """fairseq's four special symbols and ``words`` others."""
    dictionary = Dictionary()
    for number in range(words):
        dictionary.add_symbol(f"w{number}")
    return dictionary


def make_task(words: int = 12) -> TranslationTask:
    """Both languages share one dictionary."""
    dictionary = make_dictionary(words)
    return TranslationTask(TranslationConfig(), dictionary, dictionary)


def make_model(task: Optional[Any] = None, **options: Any) -> BytenetDeconvModel:
    return BytenetDeconvModel.build_model(BytenetDeconvConfig(**{**SMALL, **options}), task or make_task())


def make_batch(
    sources: Sequence[List[int]], targets: Optional[Sequence[List[int]]] = None, left_pad: bool = False
) -> Dict[str, Any]:
    """fairseq's batch of sentences of ids without EOS; sources are padded on either side, targets on the right."""
    eos, pad = 2, 1

    def collate(sentences: Sequence[List[int]], **flags: bool) -> torch.Tensor:
        return data_utils.collate_tokens([torch.tensor([*s, eos]) for s in sentences], pad, eos, **flags)

    net_input = {
        "src_tokens": collate(sources, left_pad=left_pad),
        "src_lengths": torch.tensor([len(s) + 1 for s in sources]),
    }
    if targets is None:
        return {"net_input": net_input}
    net_input["prev_output_tokens"] = collate(targets, move_eos_to_beginning=True)
    return {
        "net_input": net_input,
        "target": collate(targets),
        "ntokens": sum(len(t) + 1 for t in targets),
        "nsentences": len(targets),
    }
