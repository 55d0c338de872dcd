"""What a run would take of disks and GPUs: the last lines of a plan."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from speed.config import Config
from speed.core.graph import StageStatus
from speed.core.machine import GIGABYTE
from speed.data.costs.gpu_hours import (
    BANDWIDTH,
    BANDWIDTH_USED,
    CARD,
    CHARACTERS_PER_TOKEN,
    PEAKS_FP32,
    ROW_BYTES,
    evaluation_hours,
    generation_hours,
    peak_of,
    record_bytes,
)
from speed.data.costs.loads import EmbedderLoad
from speed.data.costs.memory import PEAKS, UTILISATION, Fit, checkpoint_bytes, fit, trained_weights, training_hours
from speed.data.costs.model_shapes import Shape, shape_of
from speed.ports import Training
from speed.runs.tables import paragraph
from speed.stages.base import GeneratingPool, tokens_about
from speed.stages.embedder import Embedder
from speed.stages.evaluation import Evaluation

WORTH_A_LINE = 100_000_000
"""Weights below which any machine will do."""
CHECKPOINTS = 2
"""Checkpoints of a training on disk while the newer one is written."""
COPIES = 2
"""Times that the text of evaluation data lies on disk: as it was fetched, and prepared."""
TOKEN_BYTES = 4
"""Of a token of a record, in the cache that the embedder's training reads."""


CHARACTERS_A_TEXT = 430
"""Of an evaluation's texts, about: as in MTEB(eng, v1), 690 in v2, by mteb's own statistics."""
VECTORS_GB = 1e9
"""Bytes of a GB of `runtime.vectors_gb`."""
ENOUGH = 1.1
"""Of what vectors take about, what would keep all."""


@dataclass
class Resources:
    """GPU-hours by group and stage, and bytes by what they hold."""

    hours: dict[str, dict[str, float]] = field(
        default_factory=lambda: {"generation": {}, "training": {}, "evaluation": {}}
    )
    unknown: list[str] = field(default_factory=list)
    """Stages with a model of unknown sizes, or a training that fits nowhere."""
    disk: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def resource_lines(config: Config, found: list[StageStatus], measured: Mapping[str, float] | None = None) -> list[str]:
    """The last lines of a plan: GB of disk, GPU-hours by stage, and what both assume.

    Args:
        measured: GPU-hours that take the place of estimates, by label.
    """
    measured = measured or {}
    needed = resources(config, [status for status in found if status.state != "hit"])
    for of_group in needed.hours.values():
        of_group.update({label: measured[label] for label in of_group if label in measured})
    disk = {what: size / GIGABYTE for what, size in needed.disk.items() if size / GIGABYTE >= 0.05}
    whole = sum(needed.disk.values()) / GIGABYTE
    parts = f": {', '.join(f'{what} {size:,.1f}' for what, size in disk.items())}" if len(disk) > 1 else ""
    lines = [
        f"disk still to fill: {f'about {whole:,.0f} GB' if whole >= 1 else 'under 1 GB'}{parts}; and text vectors, at "
        f"most {config.runtime.vectors_gb:g} GB (runtime.vectors_gb)"
    ]
    if not any(needed.hours.values()) and not needed.unknown:
        return [paragraph(line) for line in [*lines, "GPU-hours: none; models of this size train and write on a CPU"]]
    groups = [
        f"{group} {sum(hours.values()):,.1f} ({', '.join(_hours_shown(hours, measured))})"
        for group, hours in needed.hours.items()
        if hours
    ]
    total = sum(sum(hours.values()) for hours in needed.hours.values())
    lines.append(f"GPU-hours still to spend on {CARD} GB: about {total:,.0f}: {', '.join(groups)}")
    if needed.unknown:
        unknown = ", ".join(needed.unknown)
        lines.append(f"not estimated, since the size of a model is unknown or a training fits nowhere: {unknown}")
    lines += _evaluation_lines(config, needed.hours["evaluation"], measured)
    lines.append(
        f"assumed: {UTILISATION:.0%} of {PEAKS[CARD] / 1e12:g} Tflop/s in 16 bits "
        f"({PEAKS_FP32[CARD] / 1e12:g} in fp32) and {BANDWIDTH_USED:.0%} of {BANDWIDTH / 1e12:g} TB/s, as of an A100; "
        "texts as long as their prompts ask for (the paper's were shorter), written side by side as vLLM does "
        f"(engine=transformers is slower); {CHARACTERS_PER_TOKEN:g} characters a token; evaluation data uncut; two "
        f"checkpoints of the largest training; {ROW_BYTES} bytes a row beside its texts"
    )
    return [paragraph(line) for line in lines]


def _evaluation_lines(config: Config, of_stages: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """How long the evaluation takes on the GPUs that are there, and which of its vectors are kept.

    Args:
        of_stages: its GPU-hours, by label.
    """
    load, embedder, runtime = config.eval.load(), config.embedder.load(), config.runtime
    if load is None or embedder is None or not of_stages:
        return []
    lines, hours = [], sum(of_stages.values())
    usual, peak = (peak_of(gigabytes, load.precision) for gigabytes in (CARD, runtime.device_gb or CARD))
    if load.precision == "fp32" and hours >= 1:
        share = usual / peak_of(CARD, "bf16")
        lines.append(f"the evaluation's arithmetic is fp32 (eval.precision); bf16 takes {share:.0%} of its hours")
    if hours >= 1:
        gpus = len(runtime.devices) if isinstance(runtime.devices, tuple) else 1
        shared = f"{gpus} GPUs share its texts" if gpus > 1 else "one GPU encodes all of its texts"
        if peak != usual and not measured.keys() & of_stages.keys():
            hours, shared = hours * usual / peak, f"{shared} at {peak / 1e12:g} Tflop/s"
        both = " for the embedder and its base" if embedder.scored > 1 else ""
        lines.append(
            f"evaluation: about {hours / gpus:,.0f} hours{both}, since {shared}; vectors that the root has kept cost "
            "none"
        )
    shape = shape_of(embedder.base)
    texts = embedder.scored * load.characters / CHARACTERS_A_TEXT
    vectors = 0.0 if shape is None else texts * shape.hidden * 4 / VECTORS_GB
    if vectors > runtime.vectors_gb > 0:
        lines.append(
            f"the evaluation's text vectors take about {vectors:,.0f} GB, and runtime.vectors_gb="
            f"{runtime.vectors_gb:g} keeps the first {runtime.vectors_gb:g}: texts beyond are encoded "
            "again after a kill, and for each task that has them; runtime.vectors_gb="
            f"{math.ceil(ENOUGH * vectors / 10) * 10} would keep all"
        )
    return lines


def _hours_shown(hours: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    return [f"{label} {of:,.1f}{' measured' if label in measured else ''}" for label, of in hours.items()]


def resources(config: Config, missing: list[StageStatus]) -> Resources:
    """What the stages that are not built yet take."""
    needed, checkpoints, merged = Resources(), 0.0, 0.0
    trainers = [trainer for trainer in (config.trainer, config.revisor.trainer) if trainer is not None]
    adapted = any(footprint.lora for trainer in trainers if (footprint := trainer.footprint()) is not None)
    models = {repository.name for status in missing for repository in status.goal.node.hub_repositories()}
    needed.disk["models of the hub"] = sum(2.0 * shape.parameters for shape in map(shape_of, models) if shape)
    for status in missing:
        node, work = status.goal.node, status.work
        written = 2 * ROW_BYTES * work.calls + CHARACTERS_PER_TOKEN * (2 * work.tokens_in + 3 * work.tokens_out)
        needed.disk["rows and journal"] += written
        training: Training | None = node.training()
        if isinstance(node, GeneratingPool):
            _add_generation(needed, node, status)
            loaded = node.engine.load(node.written_by)
            merged = max(merged, loaded.merged if loaded is not None and adapted else 0.0)
        elif training is not None:
            divided = config.runtime.strategy == "zero3"
            checkpoints = max(checkpoints, _add_training(needed, status.goal.label, training, work.trained, divided))
        elif isinstance(node, Embedder):
            checkpoints = max(checkpoints, _add_embedder(needed, node, work.trained))
        elif isinstance(node, Evaluation):
            _add_evaluation(needed, node)
    needed.disk["checkpoints"] = checkpoints
    needed.disk["a merged generator"] = merged
    return needed


def _add_generation(needed: Resources, pool: GeneratingPool[Any], status: StageStatus) -> None:
    prompt, answer = tokens_about(pool, pool.writes_like)
    needed.disk["rows and journal"] += status.work.generated * record_bytes(prompt, answer)
    shape = _shape(needed, status.goal.label, pool.written_by)
    if shape is not None:
        hours = generation_hours(shape, status.work.generated, prompt, answer)
        needed.hours["generation"][status.goal.label] = hours


def _add_training(needed: Resources, label: str, training: Training, rows: int, divided: bool) -> float:
    """Adds a generator's training; bytes of its checkpoints.

    Args:
        divided: by ZeRO-3, which writes what it trains in the type of the arithmetic.
    """
    shape, footprint = _shape(needed, label, training.base), training.trainer.footprint()
    if shape is None or footprint is None:
        return 0.0
    config = training.config
    found = fit(shape, footprint, config, CARD)
    if found is None:
        needed.unknown.append(label)
    else:
        tokens = rows * training.tokens_a_row
        needed.hours["training"][label] = found.gpus * training_hours(shape, footprint, tokens, found, CARD, config)
    trained, gathered = trained_weights(shape, footprint), footprint.weight_bytes if divided else 0
    needed.disk["trained models"] += float(gathered or 4) * trained
    return float(CHECKPOINTS * checkpoint_bytes(trained, gathered))


def _add_embedder(needed: Resources, node: Embedder, rows: int) -> float:
    """Adds the embedder's training; bytes of its checkpoints."""
    load = node.trainer.load()
    shape = None if load is None else _shape(needed, node.name, load.base)
    if load is None or shape is None:
        return 0.0
    needed.hours["training"][node.name] = embedder_hours(node, shape, load, rows)
    needed.disk["tokens to train on"] += TOKEN_BYTES * rows * tokens_about(node, "seed")[1]
    trained = trained_weights(shape, load.footprint)
    needed.disk["trained models"] += float(load.footprint.weight_bytes) * shape.parameters + 4.0 * trained
    return float(CHECKPOINTS * checkpoint_bytes(trained))


def embedder_hours(node: Embedder, shape: Shape, load: EmbedderLoad, rows: int) -> float:
    """GPU-hours of an embedder's training in which so many records are seen."""
    tokens = round(rows * node.tokens_a_record)
    return training_hours(shape, load.footprint, tokens, Fit(0, load.footprint.checkpointing, 1, 0.0), CARD)


def _add_evaluation(needed: Resources, node: Evaluation) -> None:
    load, embedder = node.evaluator.load(), node.embedder
    if load is None or not isinstance(embedder, Embedder) or (trained := embedder.trainer.load()) is None:
        return
    needed.disk["evaluation data"] += COPIES * load.characters
    shape = _shape(needed, node.name, trained.base)
    if shape is not None:
        hours = evaluation_hours(shape, load.characters, load.precision)
        needed.hours["evaluation"][node.name] = trained.scored * hours


def _shape(needed: Resources, label: str, base: str) -> Shape | None:
    """Sizes of a model that is worth a GPU."""
    shape = shape_of(base)
    if shape is None:
        needed.unknown.append(label)
    return shape if shape is not None and shape.parameters >= WORTH_A_LINE else None
