"""A few records of a stage, spread over all that it wrote: for a tracker's tables."""

from __future__ import annotations

from collections.abc import Iterator

from speed.core.escape import escape
from speed.core.graph import Goal
from speed.core.row import Row
from speed.core.spec import Json
from speed.core.stage import Pool
from speed.core.store import Store
from speed.data.records import Candidates, RevisedAnswer, Sample

COUNT = 20
WRITTEN = (Sample, Candidates, RevisedAnswer)
"""Rows that somebody wrote a text for."""


def has_excerpts(goal: Goal) -> bool:
    """Whether a stage writes texts that a reader may want to see."""
    return isinstance(goal.node, Pool) and goal.node.row in WRITTEN


def excerpts(goal: Goal, store: Store, count: int = COUNT) -> list[dict[str, Json]]:
    """Records of a built stage at even distances, as plain text.

    Raises:
        CorruptArtifact: where a shard is damaged.
    """
    count = min(count, goal.rows)
    places = {(2 * number + 1) * goal.rows // (2 * count) for number in range(count)}
    return [_plain(row) for row in _rows_at(goal, store, places)]


def _rows_at(goal: Goal, store: Store, places: set[int]) -> Iterator[Row]:
    pool = goal.node
    assert isinstance(pool, Pool)
    for span in store.shards(pool):
        if any(span.start <= place < span.stop for place in places):
            yield from (row for row in store.shard_rows(pool, span) if row.row in places)


def _plain(row: Row) -> dict[str, Json]:
    assert isinstance(row, WRITTEN)
    match row:
        case Sample():
            text = row.text
        case Candidates():
            text = "\n\n".join(f"{number}. {text}" for number, text in enumerate(row.texts, 1))
        case RevisedAnswer():
            text = f"{row.original}\n\n{row.reason}\n\n{row.revision}"
    faults = ", ".join(row.faults) if isinstance(row, Sample) else ""
    told = {
        "kind": str(row.prompt.kind or ""), "topic": row.prompt.topic, "task": row.prompt.task,
        "prompt": row.prompt.text, "text": text, "rejected": row.rejected or "", "breaks": faults,
    }  # fmt: skip
    return {"row": row.row, **{name: escape(value) for name, value in told.items()}}
