"""fairseq-train with activations in bfloat16 and parameters in float32, for fairseq's own models.

fairseq's --bf16 does not work in fairseq-train and its --fp16 needs a GPU. Baselines that are trained on a CPU get by
this what --compute-dtype bfloat16 gives to the models of this project: training under autocast, validation in float32.
"""

from typing import Any

import torch
from fairseq_cli.train import Trainer, cli_main  # sets up fairseq's log when it is imported first

train_step = Trainer.train_step


def step_in_bfloat16(self: Trainer, *arguments: Any, **options: Any) -> Any:
    # One autocast for each update: it keeps the weights that it has cast until the outermost one ends, so one around
    # the whole training would go on for ever with the weights of the first update.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return train_step(self, *arguments, **options)


if __name__ == "__main__":
    Trainer.train_step = step_in_bfloat16
    cli_main()
