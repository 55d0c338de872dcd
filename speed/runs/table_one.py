"""The paper's Table 1 with rows of our own below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from speed.data.evaluation_record import shown
from speed.data.evaluation_splits import of_published_scores
from speed.data.published_scores import published
from speed.runs.tables import Table


class OwnRow(NamedTuple):
    """An embedder of ours, scored on the whole benchmark."""

    name: str
    trained_on: str
    types: Mapping[str, float | None]
    mean: float | None


def is_comparable(tasks: Iterable[str], splits: Mapping[str, str]) -> bool:
    """Whether scores are of all 56 tasks of Table 1, on the splits that were published; others do not compare with it.

    Args:
        splits: those that tasks were scored on; tasks that are not in it have one only.
    """
    tasks = list(tasks)
    return set(tasks) == published().benchmark and all(
        splits.get(task) in (None, of_published_scores(task)) for task in tasks
    )


def table_one(own: Iterable[OwnRow]) -> Table:
    """Published rows, then our own."""
    rows = published().table_1.rows
    types = list(rows[0].types)
    table = Table("model", "trained on", *types, "Avg")
    for row in rows:
        table.add(row.name, f"{row.group}, {row.examples}", *(row.types[kind] for kind in types), row.mean)
    for ours in own:
        table.add(ours.name, ours.trained_on, *(shown(ours.types[kind]) for kind in types), shown(ours.mean))
    return table
