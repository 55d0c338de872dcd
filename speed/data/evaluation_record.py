"""A finished evaluation as a record: the scores, and everything that another one must share to be compared with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from speed.core.errors import UserError
from speed.core.spec import Json, Spec
from speed.data.records import Scores

SERVERS_OWN = "endpoint"
"""Precision and batch of a model behind a server: part of the model, as far as one can know."""


class Pins(Spec):
    """What scores depend on beside the model: two evaluations that differ here do not measure the same."""

    mteb: str
    """Version of mteb: scoring changes between versions."""
    precision: str
    """Of the arithmetic inside the model; `endpoint` where a server decides, as on the batch."""
    batch: str
    """How texts are put together; in half precision a vector depends on its neighbours."""
    instructions: str
    """Digest of the instruction table, shared by all models under the protocol `e5`."""
    datasets: dict[str, str]
    """Revision of the data of every task."""


class Judged(Spec):
    """One model on some tasks."""

    name: str
    model: str
    """Identity of the model under its protocol: what its result files lie under."""
    protocol: str
    """`e5` or `native`: the model's own affair, so shown and not compared."""
    max_length: int | None
    """Tokens of a text, likewise."""
    pins: Pins
    kinds: dict[str, str]
    """Type of each task."""
    scores: Scores


def scores_of(tasks: dict[str, float], kinds: dict[str, str]) -> Scores:
    """Scores by task, mean by type, mean over tasks and over types.

    Args:
        tasks: main score of each task, 0..100.
        kinds: type of each task.
    """
    types = {
        kind: mean([tasks[name] for name in tasks if kinds[name] == kind])
        for kind in sorted({kinds[name] for name in tasks})
    }
    return Scores(tasks=tasks, types=types, mean=mean(list(tasks.values())), mean_of_types=mean(list(types.values())))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return sum(values) / len(values)


def refuse_other_pins(runs: Sequence[Judged]) -> None:
    """Nothing, when these evaluations may stand side by side.

    Raises:
        UserError: naming what differs between which two.
    """
    first = runs[0]
    for other in runs[1:]:
        differences = [
            f"{name} {getattr(first.pins, name)} and {getattr(other.pins, name)}"
            for name in ("mteb", "precision", "batch")
            if len({getattr(first.pins, name), getattr(other.pins, name)} - {SERVERS_OWN}) > 1
        ]
        if first.protocol == other.protocol == "e5" and first.pins.instructions != other.pins.instructions:
            differences.append(f"instructions {first.pins.instructions[:12]} and {other.pins.instructions[:12]}")
        for task in sorted(set(first.pins.datasets) & set(other.pins.datasets)):
            one, two = first.pins.datasets[task], other.pins.datasets[task]
            if one != two:
                differences.append(f"data of {task} {one} and {two}")
        if differences:
            raise UserError(
                f"{first.name} and {other.name} were not measured in the same way, so their scores do not compare:\n"
                + "\n".join(f"  {difference}" for difference in differences)
                + "\n  evaluate one of them again with the other's setting"
            )


def judged(run: Path) -> Judged:
    """The evaluation of a run's folder: of `speed.evaluate`, or of a whole experiment.

    Raises:
        UserError: when there is none, or it was made before pins were kept.
    """
    for file in (run, run / "evaluation.json", run / "summary.json"):
        if file.is_file():
            return _read(file, file.name == "summary.json")
    raise UserError(f"{run} holds no evaluation: give the folder of a run (it has evaluation.json or summary.json)")


def _read(file: Path, of_experiment: bool) -> Judged:
    try:
        found: Json = json.loads(file.read_text(encoding="utf-8"))
        if of_experiment:
            metrics = next(line["metrics"] for line in found["stages"] if "judged" in line["metrics"])
            return Judged.model_validate({**metrics["judged"], "name": found["name"]})
        return Judged.model_validate(found)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{file} is no record of an evaluation with its pins: {error!r:.200}") from error
