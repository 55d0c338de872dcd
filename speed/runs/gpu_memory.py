"""Whether each training, generation and encoding of a plan fits into the GPUs that it is for, and what would make it
fit.

A run is refused for what does not fit, before its first call, by the estimates of `data/costs/memory`. No GPU has
confirmed these: `runtime.beyond_memory=try` starts it all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from speed.config import Config
from speed.core.allocation import most_of
from speed.core.errors import refuse_for
from speed.core.graph import StageStatus
from speed.core.machine import GIGABYTE
from speed.core.stage import Node, Pool
from speed.data.costs.auto_fit import first_that_fits
from speed.data.costs.memory import (
    CHUNK_TOKENS,
    RESERVED,
    Fit,
    embedder_bytes,
    encoding_bytes,
    fit_on,
    state_bytes,
    training_bytes,
)
from speed.data.costs.model_shapes import shape_of
from speed.ports import Engine, Training
from speed.runs.tables import paragraph
from speed.stages.base import GeneratingPool
from speed.stages.embedder import Embedder
from speed.stages.evaluation import Evaluation
from speed.stages.filter import NegativeFilter
from speed.stages.held_out_pairs import HeldOutPairs
from speed.stages.negatives import MinedNegatives
from speed.stages.own_domain import OwnDomain
from speed.stages.retriever_pairs import RetrieverPairs

LEAST_CHUNK = 512
"""Tokens of the smallest chunk that is proposed to an embedder's training, or counted on in an encoding."""


LEAST_TOKENS = 8_192
"""Tokens of the smallest batch, or cache, that is proposed to an engine."""


class Need(NamedTuple):
    """What a training, a generation or an encoding takes of each of its GPUs."""

    label: str
    gpus: int
    """On each node."""
    gigabytes: float
    remedy: str
    """Settings under which it fits; empty where it fits as it is."""
    chosen: str = ""
    """What takes the place of `auto`, or of usual chunks."""
    workers: int = 1
    """That have so many GPUs each."""


class Gpus(NamedTuple):
    """The GPUs of a plan."""

    per_node: int
    gigabytes: float
    """Of each."""
    nodes: int
    partitioned: bool
    """Whether those that share a training have a part of the model each, as under ZeRO-3."""

    def alternatives(self, used: int, numbers: Sequence[int]) -> list[int]:
        """Of the numbers of GPUs that can share a training, those on which ZeRO-3 would take less of each than now, the
        nearest first."""
        return sorted(number for number in numbers if number > used or (number == used and not self.partitioned))

    def remedy(self, used: int, number: int, settings: str, gigabytes: float) -> str:
        """ZeRO-3 on one of these numbers, with settings under which a training takes so many GB of each."""
        if number == used:
            return " ".join(filter(None, ["runtime.strategy=zero3", settings, f"takes {gigabytes:,.0f} GB"]))
        return f"{number} such GPUs with {' '.join(filter(None, ['runtime.strategy=zero3', settings]))} would do"


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
            + (f" by each of {need.workers} workers" if need.workers > 1 else "")
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
    gpus = Gpus(len(runtime.devices), runtime.device_gb, runtime.nodes, runtime.strategy == "zero3")
    needs = []
    for status in missing:
        label, node = status.goal.label, status.goal.node
        training: Training | None = node.training()
        need = None
        if training is not None:
            key = "revisor.trainer" if training.trainer is config.revisor.trainer else "trainer"
            need = _of_training(label, key, training, training.trainer.devices(training.config, runtime), gpus)
        elif isinstance(node, Embedder):
            need = _of_embedder(node, node.trainer.devices(runtime), gpus)
        elif isinstance(node, GeneratingPool):
            need = _of_generation(label, node.written_by, node.engine, gpus)
        elif (encoding := _encoding(node)) is not None:
            need = _of_encoding(label, encoding, isinstance(node, Pool), gpus)
        if need is not None:
            needs.append(need)
    return needs


def _of_generation(label: str, base: str, engine: Engine, gpus: Gpus) -> Need | None:
    load, shape = (engine.load(base), shape_of(base)) if base else (None, None)
    if load is None or shape is None:
        return None
    used = most_of(load.groups(gpus.gigabytes), gpus.per_node)
    need = Need(label, used, load.gigabytes(used), "", workers=gpus.per_node // used)
    if need.gigabytes <= gpus.gigabytes:
        return need
    tokens = load.tokens
    while tokens > LEAST_TOKENS and load.gigabytes(used, tokens) > gpus.gigabytes:
        tokens //= 2
    if (takes := load.gigabytes(used, tokens)) <= gpus.gigabytes:
        return need._replace(remedy=f"{load.option}={tokens} takes {takes:,.0f} GB")
    enough = (number for number in shape.shared_by if load.gigabytes(number) <= gpus.gigabytes)
    if (wider := next(enough, None)) is None:
        return need._replace(remedy="GPUs with more memory or a smaller generator would do")
    other = "" if wider in load.shared_by else f" with engine=vllm engine.cache_tokens={load.tokens}"
    return need._replace(remedy=f"{wider} such GPUs{other} would do")


def _of_training(label: str, key: str, training: Training, numbers: Sequence[int], gpus: Gpus) -> Need | None:
    shape, footprint, config = shape_of(training.base), training.trainer.footprint(), training.config
    if shape is None or footprint is None or not numbers:
        return None
    used = most_of(tuple(numbers), gpus.per_node)
    together, partitioned = used * gpus.nodes, gpus.partitioned
    share = config.batch_size // together
    rows = min(footprint.micro_batch or share, share) * config.texts_a_row
    tokens, shared = rows * config.max_length, together if partitioned else 1
    needed = training_bytes(shape, footprint, config, tokens, footprint.checkpointing, shared)
    needed = needed / GIGABYTE + RESERVED
    if footprint.auto_rows or footprint.auto_checkpointing:
        taken = first_that_fits(shape, footprint, config, gpus.gigabytes, together, partitioned)
        needed = taken.gigabytes
        if needed <= gpus.gigabytes:
            return Need(label, used, needed, "", taken.settings)
    if needed <= gpus.gigabytes:
        return Need(label, used, needed, "")

    def settings(found: Fit) -> str:
        more = f" {key}.gradient_checkpointing=true" if found.checkpointing and not footprint.checkpointing else ""
        return f"{key}.micro_batch={found.micro_batch}{more}"

    found = fit_on(shape, footprint, config, gpus.gigabytes, together, partitioned)
    if found is not None:
        return Need(label, used, needed, f"{settings(found)} takes {found.gigabytes:,.0f} GB")
    for number in gpus.alternatives(used, numbers):
        if found := fit_on(shape, footprint, config, gpus.gigabytes, number * gpus.nodes):
            return Need(label, used, needed, gpus.remedy(used, number, settings(found), found.gigabytes))
    if footprint.lora is not None:
        return Need(label, used, needed, "GPUs with more memory or a smaller generator would do")
    lighter = "revisor=paper_lora" if key == "revisor.trainer" else "trainer=lora"
    return Need(label, used, needed, f"no number of such GPUs would do; {lighter} trains an adapter")


def _of_embedder(node: Embedder, numbers: Sequence[int], gpus: Gpus) -> Need | None:
    load = node.trainer.load()
    shape = None if load is None else shape_of(load.base)
    if load is None or shape is None or not numbers:
        return None
    used = most_of(tuple(numbers), gpus.per_node)

    def needed(chunk: int, number: int, partitioned: bool) -> float:
        shared = state_bytes(shape, load.footprint) * (1 - 1 / (number * gpus.nodes)) if partitioned else 0.0
        kept = load.kept if chunk == load.chunk else min(load.kept, chunk)
        return (embedder_bytes(shape, load.footprint, chunk, kept, load.checkpointing) - shared) / GIGABYTE + RESERVED

    def smaller(number: int, partitioned: bool) -> tuple[str, float]:
        """Settings of the largest chunk that fits on so many GPUs, or of the smallest, and what it takes."""
        chunk = load.chunk
        while chunk > LEAST_CHUNK and needed(chunk, number, partitioned) > gpus.gigabytes:
            chunk //= 2
        named = f"embedder.chunk_tokens={chunk}" + (f" embedder.kept_tokens={chunk}" if load.kept > chunk else "")
        return "" if chunk == load.chunk else named, needed(chunk, number, partitioned)

    need = Need(node.label, used, needed(load.chunk, used, gpus.partitioned), "")
    if need.gigabytes <= gpus.gigabytes:
        return need
    settings, takes = smaller(used, gpus.partitioned)
    if takes <= gpus.gigabytes:
        return need._replace(remedy=f"{settings} takes {takes:,.0f} GB")
    for number in gpus.alternatives(used, numbers):
        settings, takes = smaller(number, True)
        if takes <= gpus.gigabytes:
            return need._replace(remedy=gpus.remedy(used, number, settings, takes))
    return need._replace(remedy="GPUs with more memory are needed")


class Encoding(NamedTuple):
    """What encodes texts, on each GPU by itself."""

    base: str
    """The model (a reference); empty where it is not known."""
    precision: str
    remedy: str
    """What would do where no precision does."""
    option: str = ""
    """The setting of the precision; empty where there is none."""


def _encoding(node: Node) -> Encoding | None:
    """What a stage encodes texts with; None where it encodes none, or nothing is known of it."""
    match node:
        case Evaluation(evaluator=evaluator, embedder=embedder) | OwnDomain(evaluator=evaluator, embedder=embedder):
            load, trained = evaluator.load(), embedder.trainer.load() if isinstance(embedder, Embedder) else None
            if load is None or trained is None:
                return None
            remedy = "a smaller embedder.base, or GPUs with more memory, would do"
            return Encoding(trained.base, load.precision, remedy, "eval.precision")
        case HeldOutPairs():
            trained = node.trainer.load()
            remedy = "held_out_pairs=0 goes without, and GPUs with more memory would do"
            return None if trained is None else Encoding(trained.base, "fp32", remedy)
        case MinedNegatives():
            retriever, key = node.miner, "negatives.miner.model"
        case NegativeFilter():
            retriever, key = node.judge, "filter.judge.model"
        case RetrieverPairs():
            retriever, key = node.probe, "judge.retriever.model"
        case _:
            return None
    models = [each.name for each in retriever.hub_repositories()] + [str(file.parent) for file in retriever.weights()]
    return Encoding(next(iter(models), ""), "fp32", f"a smaller embedder as {key}, or GPUs with more memory, would do")


def _of_encoding(label: str, encoding: Encoding, by_blocks: bool, gpus: Gpus) -> Need | None:
    """An encoder reads less at once where it must, so that nothing is refused for its usual chunks.

    Args:
        by_blocks: whether workers encode, with a GPU each.
    """
    shape = shape_of(encoding.base) if encoding.base else None
    if shape is None:
        return None

    def smaller(precision: str) -> tuple[int, float]:
        """Tokens of the largest chunk that fits, or of the smallest, and what it takes."""
        chunk, width = CHUNK_TOKENS, 4 if precision == "fp32" else 2
        while (takes := encoding_bytes(shape, width, chunk) / GIGABYTE + RESERVED) > gpus.gigabytes:
            if chunk <= LEAST_CHUNK:
                break
            chunk //= 2
        return chunk, takes

    chunk, takes = smaller(encoding.precision)
    chosen = f"chunks of {chunk:,} tokens" if chunk < CHUNK_TOKENS else ""
    used, workers = (1, gpus.per_node) if by_blocks else (gpus.per_node, 1)
    need = Need(label, used, takes, "", chosen, workers)
    if takes <= gpus.gigabytes:
        return need
    if encoding.option and encoding.precision == "fp32" and (halved := smaller("bf16")[1]) <= gpus.gigabytes:
        return need._replace(remedy=f"{encoding.option}=bf16 takes {halved:,.0f} GB")
    return need._replace(remedy=encoding.remedy)
