"""fairseq-train with activations in bfloat16 and parameters in float32, for fairseq's own models.

fairseq's --bf16 does not work in fairseq-train and its --fp16 needs a GPU. Baselines that are trained on a CPU get by
this what --compute-dtype bfloat16 gives to the models of this project.
"""

import torch
from fairseq_cli.train import cli_main

if __name__ == "__main__":
    # Without a cache: it is emptied when the outermost autocast ends, and this one ends with the training, so every
    # update would go on with the weights that the first one cast.
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        cli_main()
