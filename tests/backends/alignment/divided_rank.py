"""A rank that loads a generator of its own under ZeRO-3, as a training does: torchrun divided_rank.py FOLDER

It reads `base-RANK`, and writes what all ranks then hold together into `gathered-RANK.safetensors`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import deepspeed
import torch
from safetensors.torch import save_file

from speed.backends.alignment.options import TrlOptions
from speed.backends.alignment.start import load_start
from speed.runtime import Runtime


def main(folder: Path) -> None:
    rank = os.environ["RANK"]
    options = TrlOptions(method="full", precision="fp32", prompt_format="plain")
    model = load_start(options, folder / f"base-{rank}", "cpu", Runtime(devices="cpu", strategy="zero3")).model
    weights = dict(model.named_parameters())
    assert not any(weight.numel() for weight in weights.values()), "what is divided is empty while it is not used"
    with deepspeed.zero.GatheredParameters(list(weights.values())):
        whole = {name: weight.detach().clone() for name, weight in weights.items()}
    save_file(whole, folder / f"gathered-{rank}.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
