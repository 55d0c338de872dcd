"""What a plan says of a machine that computes on cores: memory, arithmetic, and hours by what was measured here.

A run writes down how fast the first steps of its trainings and the first blocks of its texts went, in operations a
second (`cache/rates.json` of the root); a later plan of the same base counts with that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from speed.config import Config
from speed.core.cache import write_aside
from speed.core.graph import Goal, StageStatus
from speed.core.machine import memory_gigabytes, processor_has_bf16
from speed.core.spec import Json
from speed.core.stage import Node
from speed.data.costs.memory import Footprint
from speed.data.costs.model_shapes import shape_of
from speed.ports import Training
from speed.runs.tables import paragraph
from speed.stages.base import GeneratingPool, tokens_about
from speed.stages.embedder import Embedder

WORTH_A_LINE = 100_000_000
"""Weights below which any machine will do."""
FIRST = 20
"""Steps after the first, which is slower, that a rate is measured over at most."""
BF16 = (270, 140)
"""Tokens a second of two cores in a LoRA training of 135M weights, in bf16 and in fp32, on a processor with AMX."""

SLOWER = 40
"""Times that a matrix product in bf16 took of one in fp32, on one core of a processor without bf16."""


class Computed(NamedTuple):
    """What a stage computes."""

    kind: str
    """training or writing."""
    base: str
    operations: float
    """Of one row: a training's record in one epoch, or a text."""


def computed(node: Node) -> Computed | None:
    """What a stage computes; None where it does not, or where the sizes of its model are unknown."""
    training: Training | None = node.training()
    if training is not None:
        return _training(training.base, training.trainer.footprint(), training.tokens_a_row)
    if isinstance(node, Embedder):
        load = node.trainer.load()
        return None if load is None else _training(load.base, load.footprint, tokens_about(node, "seed")[1])
    if isinstance(node, GeneratingPool):
        base = node.written_by
        shape = shape_of(base) if base else None
        tokens = sum(tokens_about(node, node.writes_like))
        return None if shape is None else Computed("writing", _any_commit(base), 2.0 * shape.parameters * tokens)
    return None


def _any_commit(base: str) -> str:
    """A model is as fast at every commit of the hub."""
    return re.sub("@[0-9a-f]{40}$", "", base)


def _training(base: str, footprint: Footprint | None, tokens: int) -> Computed | None:
    shape = shape_of(base)
    if shape is None or footprint is None:
        return None
    passes = (6 if footprint.lora is None else 4) + (2 if footprint.checkpointing else 0)
    return Computed("training", _any_commit(base), float(passes) * shape.parameters * tokens)


@dataclass
class Rates:
    """Operations a second by what computes, of one root."""

    home: Path
    rows: Mapping[str, float]
    """Rows or records that each stage of this run has still to go through, by label."""
    goals: Mapping[str, Goal]
    _begun: dict[str, tuple[int, float]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def see(self, label: str, event: Mapping[str, Json], at: float) -> None:
        """Take a point of a stage's progress; its first steps give a rate, which is written down."""
        if event.get("event") != "progress" or label not in self.goals or label in self._told:
            return
        done, total, unit = event["done"], event["total"], event["unit"]
        if unit not in ("steps", "examples", "lists") or not 0 < done <= total or not self.rows.get(label):
            return
        first, begun = self._begun.setdefault(label, (done, at))
        if done - first < min(FIRST, (total - 1) // 2) or done == first or at <= begun:
            return
        self._told.add(label)
        found = computed(self.goals[label].node)
        if found is not None:
            rows = self.rows[label] * (done - first) / total
            _remember(self.home, f"{found.kind} {found.base}", found.operations * rows / (at - begun))


def _file(home: Path) -> Path:
    return home / "cache" / "rates.json"


def known_rates(home: Path) -> dict[str, float]:
    """Operations a second, by `training BASE` and `writing BASE`, as runs of this root have measured them."""
    try:
        read = json.loads(_file(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    items = read.items() if isinstance(read, dict) else ()
    return {name: float(rate) for name, rate in items if isinstance(rate, (int, float)) and rate > 0}


def _remember(home: Path, name: str, rate: float) -> None:
    with write_aside(_file(home)) as aside:
        aside.write_text(json.dumps(known_rates(home) | {name: rate}, indent=1))


def host_lines(config: Config, found: Sequence[StageStatus], home: Path) -> list[str]:
    """What a plan says where models worth a line compute on cores: nothing where there are GPUs, or none such."""
    if isinstance(config.runtime.devices, tuple):
        return []
    missing = [status for status in found if status.state != "hit"]
    large = [status for status in missing if _is_large(status.goal.node)]
    if not large:
        return []
    lines = [*_memory(config, large), *_arithmetic(config), *_hours(large, known_rates(home))]
    return [paragraph(line) for line in lines]


def _is_large(node: Node) -> bool:
    found = computed(node)
    shape = None if found is None else shape_of(found.base)
    return shape is not None and shape.parameters >= WORTH_A_LINE


def _memory(config: Config, large: Sequence[StageStatus]) -> Iterator[str]:
    needs = {status.goal.label: status.goal.node.demand(config.runtime).gigabytes for status in large}
    needs = {label: need for label, need in needs.items() if need >= 1}
    most = memory_gigabytes()
    if not needs or most is None:
        return
    told = ", ".join(f"{label} {need:.0f}" for label, need in needs.items())
    yield (
        f"memory on cores, about, in GB of this machine's {most:.0f}: {told}; stages that do not fit beside one "
        "another run one after the other"
    )
    if over := [label for label, need in needs.items() if need > most]:
        yield (
            f"{', '.join(over)} may not fit at all: set trainer.micro_batch to a small divisor of the batch, or "
            "trainer.gradient_checkpointing=true (neither changes what is learned, but for rounding)"
        )


def _arithmetic(config: Config) -> Iterator[str]:
    footprint, load = config.trainer.footprint(), config.embedder.load()
    parts = {"trainer.precision": footprint, "embedder.precision": load and load.footprint}
    single = [name for name, part in parts.items() if part is not None and part.weight_bytes == 4]
    half = [name for name, part in parts.items() if part is not None and part.weight_bytes == 2]
    written = {"fp32": single, "bf16": half}.get(getattr(config.engine, "precision", ""))
    if written is not None:
        written.append("engine.precision")
    able = processor_has_bf16()
    if able and single:
        yield (
            f"fp32 by {', '.join(single)}: this processor multiplies in bf16 too, which took {BF16[1] / BF16[0]:.0%} "
            f"of the time on one like it ({BF16[0]} tokens a second in a training where fp32 made {BF16[1]}); it is "
            "part of the keys"
        )
    if able is False and half:
        yield (
            f"bf16 by {', '.join(half)}: this processor does not multiply in bf16, and fp32 is faster on it, often "
            f"many times ({SLOWER} times in a matrix product on an AMD EPYC without it); it is part of the keys"
        )


def _hours(large: Sequence[StageStatus], rates: Mapping[str, float]) -> Iterator[str]:
    hours: dict[str, float] = {}
    unknown = []
    for status in large:
        found = computed(status.goal.node)
        assert found is not None
        rows = status.work.generated or status.work.trained
        if rate := rates.get(f"{found.kind} {found.base}"):
            hours[status.goal.label] = rows * found.operations / rate / 3600
        else:
            unknown.append(status.goal.label)
    if hours:
        told = ", ".join(f"{label} {of:.1f}" for label, of in hours.items())
        yield f"hours on this machine, by the first steps of earlier runs: about {sum(hours.values()):.1f} ({told})"
    if unknown:
        yield (
            f"hours not known yet for {', '.join(unknown)}: no run of this root has computed with such a base; its "
            "first steps will tell"
        )
