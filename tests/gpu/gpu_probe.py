"""Part 7: `probe=true` on `preset=one_gpu`, with bases of random weights: its memory beside the plan's estimates.

The bases have Llama-3.2-1B's shape: they are written to the disk and read again by each trial. The evaluation is left
out, since mteb is not needed here.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from gpu_figures import Figures
from gpu_machine import Machine
from gpu_models import TINY, base_folder, composed, random_model

from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.data.costs.model_shapes import KNOWN
from speed.pipeline import pipeline
from speed.runs.gpu_memory import memory_lines
from speed.runs.probe import probe

SMALL = (
    "trainer.precision=fp32", "engine.precision=fp32", "embedder.precision=fp32", "generator.sft.max_length=48",
    "generator.sft.batch_size=4", "preference.dpo.max_length=48", "preference.dpo.batch_size=4",
    "revisor.sft.max_length=48", "revisor.sft.batch_size=4", "engine.block=16", "engine.batch_tokens=1500",
    "embedder.batch_size=8", "embedder.max_length=24",
)  # fmt: skip
"""What a CPU takes seconds for."""


def measure(figures: Figures, machine: Machine, place: Path) -> None:
    """The trials of all stages that train or write texts."""
    shape = TINY if machine.tiny else KNOWN["meta-llama/Llama-3.2-1B"]
    figures.add(about="probe=true of preset=one_gpu, bases of random weights in Llama-3.2-1B's shape")
    bases = {}
    for kind in ("llama", "mistral"):
        base = bases[kind] = base_folder(place / kind, shape, kind)
        model = random_model(base, machine.device, torch.float32 if machine.tiny else torch.bfloat16, kind == "llama")
        model.save_pretrained(base)
        del model
        machine.release()
    overrides = [
        "preset=one_gpu", "engine=gpu", "tracker=none", f"runtime.home={place / 'home'}",
        f"runtime.devices={'cpu' if machine.tiny else '[0]'}", f"generator.base={bases['llama']}",
        f"embedder.base={bases['mistral']}", *(SMALL if machine.tiny else ()),
    ]  # fmt: skip
    config = composed(*overrides)
    config = config.model_copy(update={"runtime": config.runtime.on_this_machine()})
    found = stage_statuses(pipeline(config).goals(), Store(config.runtime.home))
    own = [status for status in found if status.goal.node.name != "evaluation"]
    begun = time.perf_counter()
    measured = probe(config, own)
    figures.add(
        seconds_of_probe=time.perf_counter() - begun,
        estimates=memory_lines(config, found),
        measured={label: each.measured.model_dump() for label, each in measured.items() if each.measured is not None},
        refused={label: each.why for label, each in measured.items() if each.measured is None},
    )
