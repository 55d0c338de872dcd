"""Record of a finished evaluation: its scores, and the settings that two evaluations must share to be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from speed.core.errors import UserError
from speed.core.spec import Json, Spec
from speed.data.evaluation_splits import SEVERAL
from speed.data.records import Scores

SERVERS_OWN = "endpoint"
"""Precision and batch of a model behind a server: unknown here, so they count as part of the model."""


class Pins(Spec):
    """Settings, beside the model, that scores depend on. Evaluations that differ here cannot be compared."""

    mteb: str
    """Version of mteb; scoring changes between versions."""
    precision: str
    """Precision of the arithmetic inside the model; `endpoint` if a server decides it, like the batch."""
    batch: str
    """How texts are batched; in half precision a vector depends on the other texts of its batch."""
    instructions: str
    """Digest of the instruction table that all models share under the protocol `e5`."""
    datasets: dict[str, str]
    """Revision of the data of each task."""
    splits: dict[str, str] = {}
    """Split of each task that its score is of (`validation+test` for a mean over two); empty before 0.2.0."""
    subsets: dict[str, int] = {}
    """How many subsets (languages, mostly) the score of each task is a mean over; in earlier records of no task, or of
    those with several alone."""


class EvaluationRecord(Spec):
    """Scores of one model on some tasks."""

    name: str
    model: str
    """Identity of the model under its protocol; its result files are stored under this name."""
    protocol: str
    """`e5` or `native`. It belongs to the model, so it is shown and not compared."""
    max_length: int | None
    """Most tokens of a text; belongs to the model as well."""
    pins: Pins
    kinds: dict[str, str]
    """Type of each task."""
    scores: Scores


def scores_of(tasks: dict[str, float | None], kinds: dict[str, str]) -> Scores:
    """Scores with their means: by type, over tasks and over types.

    Args:
        tasks: main score of each task, 0..100; None where it is undefined.
        kinds: type of each task.
    """
    types = {
        kind: mean([tasks[name] for name in tasks if kinds[name] == kind])
        for kind in sorted({kinds[name] for name in tasks})
    }
    return Scores(tasks=tasks, types=types, mean=mean(list(tasks.values())), mean_of_types=mean(list(types.values())))


def mean(values: Sequence[float | None]) -> float | None:
    """Arithmetic mean of at least one value; None where one of them is undefined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def shown(score: float | None) -> str:
    """A score as tables show it; a dash where it is undefined or was not measured."""
    return "-" if score is None else f"{score:.2f}"


def refuse_other_pins(runs: Sequence[EvaluationRecord]) -> None:
    """Refuse to compare evaluations with different settings.

    Raises:
        UserError: naming two evaluations and the settings in which they differ.
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
            one, two = (run.pins.splits.get(task, "") for run in (first, other))
            if one != two and (task in SEVERAL or (one and two)):
                differences.append(f"split of {task} {one or 'not recorded'} and {two or 'not recorded'}")
            counts = [run.pins.subsets[task] for run in (first, other) if task in run.pins.subsets]
            if len(set(counts)) > 1:
                differences.append(f"languages of {task} {min(counts)} and {max(counts)} subsets")
        if differences:
            raise UserError(
                f"{first.name} and {other.name} were not measured in the same way, so their scores do not compare:\n"
                + "\n".join(f"  {difference}" for difference in differences)
                + "\n  evaluate one of them again with the other's setting"
            )


def read_evaluation(run: Path) -> EvaluationRecord:
    """Read the evaluation in the folder of a run, made by `speed.evaluate` or by a whole experiment.

    Raises:
        UserError: if there is none, or it was made before these settings were recorded.
    """
    for file in (run, run / "evaluation.json", run / "summary.json"):
        if file.is_file():
            return _read(file, file.name == "summary.json")
    raise UserError(f"{run} holds no evaluation: give the folder of a run (it has evaluation.json or summary.json)")


def _read(file: Path, of_experiment: bool) -> EvaluationRecord:
    try:
        record: Json = json.loads(file.read_text(encoding="utf-8"))
        if of_experiment:
            metrics = next(line["metrics"] for line in record["stages"] if "judged" in line["metrics"])
            record = {**metrics["judged"], "name": record["name"]}
        return EvaluationRecord.model_validate(record)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{file} is no record of an evaluation with its pins: {error!r:.200}") from error
