"""Whether each training and generation of a plan fits into the GPUs that it is for, and what would make it fit.

A run is refused for what does not fit, before its first call, by the estimates of `data/costs/memory`. No GPU has
confirmed these: `runtime.beyond_memory=try` starts it all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from speed.config import Config
from speed.core.allocation import most_of
from speed.core.errors import refuse_for
from speed.core.graph import StageStatus
from speed.core.machine import GIGABYTE
from speed.data.costs.auto_fit import first_that_fits
from speed.data.costs.memory import RESERVED, embedder_bytes, fit_on, state_bytes, training_bytes
from speed.data.costs.model_shapes import shape_of
from speed.ports import Training
from speed.runs.tables import paragraph
from speed.runtime import Runtime
from speed.stages.base import GeneratingPool
from speed.stages.embedder import Embedder

LEAST_CHUNK = 512
"""Tokens of the smallest chunk that is proposed to an embedder's training."""


LEAST_TOKENS = 8_192
"""Tokens of the smallest batch, or cache, that is proposed to an engine."""


class Need(NamedTuple):
    """What a training or a generation takes of each of its GPUs."""

    label: str
    gpus: int
    """On each node."""
    gigabytes: float
    remedy: str
    """Settings under which it fits; empty where it fits as it is."""
    chosen: str = ""
    """What takes the place of `auto`."""


def refuse_beyond_memory(config: Config, found: Sequence[StageStatus]) -> None:
    """Refuse what does not fit into the GPUs that are found or declared, unless it is to be tried.

    Raises:
        UserError: with the settings under which each of it fits.
    """
    runtime = config.runtime.on_this_machine()
    if runtime.beyond_memory == "try":
        return
    mistakes = [
        f"{need.label} takes about {need.gigabytes:,.0f} GB of {_gpus_of(need)} has {runtime.device_gb:g}\n"
        f"  {need.remedy}; or runtime.beyond_memory=try, since this is an estimate"
        for need in gpu_needs(config, [status for status in found if status.state != "hit"])
        if need.remedy
    ]
    refuse_for(mistakes)


def _gpus_of(need: Need) -> str:
    return f"each of {need.gpus} GPUs, and each" if need.gpus > 1 else "its GPU, which"


def memory_lines(config: Config, found: Sequence[StageStatus]) -> list[str]:
    """A line for each stage that is not built yet and computes, where the memory of the GPUs is known."""
    gigabytes = config.runtime.on_this_machine().device_gb
    needs = gpu_needs(config, [status for status in found if status.state != "hit"])
    return [
        paragraph(
            f"{need.label}: {need.gigabytes:,.0f} of {gigabytes:g} GB on "
            + (f"each of {need.gpus}" if need.gpus > 1 else "one GPU")
            + (f" with {need.chosen}" if need.chosen else "")
            + (f", which does not fit: {need.remedy}" if need.remedy else "")
        )
        for need in needs
    ]


def gpu_needs(config: Config, missing: Sequence[StageStatus]) -> list[Need]:
    """What each stage takes; none where there are no GPUs, or their memory is not known."""
    runtime = config.runtime.on_this_machine()
    if not isinstance(runtime.devices, tuple) or runtime.device_gb is None:
        return []
    needs = []
    for status in missing:
        node = status.goal.node
        training: Training | None = node.training()
        need = None
        if training is not None:
            key = "revisor.trainer" if training.trainer is config.revisor.trainer else "trainer"
            numbers = training.trainer.devices(training.config, runtime)
            need = _of_training(
                status.goal.label, key, training, numbers, len(runtime.devices), runtime.device_gb,
                runtime.strategy == "zero3", runtime.nodes,
            )  # fmt: skip
        elif isinstance(node, Embedder):
            numbers = node.trainer.devices(runtime)
            partitioned = runtime.strategy == "zero3"
            need = _of_embedder(node, numbers, len(runtime.devices), runtime.device_gb, partitioned, runtime.nodes)
        elif isinstance(node, GeneratingPool):
            need = _of_generation(status.goal.label, node, runtime)
        if need is not None:
            needs.append(need)
    return needs


def _of_generation(label: str, pool: GeneratingPool[Any], runtime: Runtime) -> Need | None:
    base, gigabytes = pool.written_by, runtime.device_gb
    load = pool.engine.load(base) if base else None
    if load is None or gigabytes is None:
        return None
    gpus = most_of(pool.engine.groups(base, runtime), len(runtime.devices))
    takes = load.gigabytes(gpus)
    if takes <= gigabytes:
        return Need(label, gpus, takes, "")
    tokens = load.tokens
    while tokens > LEAST_TOKENS and load.gigabytes(gpus, tokens) > gigabytes:
        tokens //= 2
    if load.gigabytes(gpus, tokens) <= gigabytes:
        return Need(label, gpus, takes, f"{load.option}={tokens} takes {load.gigabytes(gpus, tokens):,.0f} GB")
    return Need(label, gpus, takes, "GPUs with more memory, a smaller generator or engine=vllm would do")


def _of_training(
    label: str,
    key: str,
    training: Training,
    numbers: Sequence[int],
    devices: int,
    gigabytes: float,
    partitioned: bool,
    nodes: int,
) -> Need | None:
    shape, footprint, config = shape_of(training.base), training.trainer.footprint(), training.config
    if shape is None or footprint is None or not numbers:
        return None
    gpus = most_of(tuple(numbers), devices)
    together = gpus * nodes
    share = config.batch_size // together
    rows = min(footprint.micro_batch or share, share) * config.texts_a_row
    tokens, shared = rows * config.max_length, together if partitioned else 1
    needed = training_bytes(shape, footprint, config, tokens, footprint.checkpointing, shared)
    needed = needed / GIGABYTE + RESERVED
    if footprint.auto_rows or footprint.auto_checkpointing:
        taken = first_that_fits(shape, footprint, config, gigabytes, together, partitioned)
        needed = taken.gigabytes
        if needed <= gigabytes:
            return Need(label, gpus, needed, "", taken.settings)
    if needed <= gigabytes:
        return Need(label, gpus, needed, "")
    found = fit_on(shape, footprint, config, gigabytes, together, partitioned)
    if found is not None:
        more = f" {key}.gradient_checkpointing=true" if found.checkpointing and not footprint.checkpointing else ""
        return Need(label, gpus, needed, f"{key}.micro_batch={found.micro_batch}{more} takes {found.gigabytes:,.0f} GB")
    for more_gpus in numbers:
        if more_gpus > gpus and (wider := fit_on(shape, footprint, config, gigabytes, more_gpus * nodes)):
            remedy = f"{more_gpus} such GPUs with runtime.strategy=zero3 {key}.micro_batch={wider.micro_batch} would do"
            return Need(label, gpus, needed, remedy)
    lighter = "revisor=paper_lora" if key == "revisor.trainer" else "trainer=lora"
    return Need(label, gpus, needed, f"no number of such GPUs would do; {lighter} trains an adapter")


def _of_embedder(
    node: Embedder, numbers: Sequence[int], devices: int, gigabytes: float, partitioned: bool, nodes: int
) -> Need | None:
    load = node.trainer.load()
    shape = None if load is None else shape_of(load.base)
    if load is None or shape is None or not numbers:
        return None
    gpus = most_of(tuple(numbers), devices)

    def needed(chunk: int, gpus: int) -> float:
        shared = state_bytes(shape, load.footprint) * (1 - 1 / (gpus * nodes)) if partitioned else 0.0
        kept = load.kept if chunk == load.chunk else min(load.kept, chunk)
        return (embedder_bytes(shape, load.footprint, chunk, kept, load.checkpointing) - shared) / GIGABYTE + RESERVED

    takes = needed(load.chunk, gpus)
    if takes <= gigabytes:
        return Need(node.label, gpus, takes, "")
    chunk = load.chunk
    while chunk > LEAST_CHUNK and needed(chunk, gpus) > gigabytes:
        chunk //= 2
    settings = f"embedder.chunk_tokens={chunk}" + (f" embedder.kept_tokens={chunk}" if load.kept > chunk else "")
    if needed(chunk, gpus) <= gigabytes:
        return Need(node.label, gpus, takes, f"{settings} takes {needed(chunk, gpus):,.0f} GB")
    wider = next((more for more in numbers if more > gpus and needed(chunk, more) <= gigabytes), None)
    if wider is None or not partitioned:
        return Need(node.label, gpus, takes, "GPUs with more memory are needed")
    return Need(node.label, gpus, takes, f"{wider} such GPUs with {settings} would do")
