"""Which calls of a plan are answered already: by the journal, or by points of its sweep that were planned before.

The prompts of brainstorm calls follow from topics, those of seed data from tasks, those of judgements and revisions
from root data. What cannot be rendered yet is counted as bought, at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from speed.core.errors import CorruptArtifact, UserError
from speed.core.graph import Goal, StageStatus
from speed.core.stage import Pool
from speed.core.store import Store
from speed.runs.glance import Glance
from speed.runs.tables import money, paragraph
from speed.runtime import Runtime

PLANNED: list[Goal] = []
"""What the points of a sweep need that were planned before in this process. At module level, since Hydra calls a
function for each point and hands nothing from one to the next."""


class Answered(NamedTuple):
    """The calls that a stage has still to make, as a plan counts them."""

    status: StageStatus
    journal: int
    """Answered by the journal."""
    before: int
    """Made by points planned before."""
    spared: int
    """Of rows that ask nothing, since a task or an answer is missing."""
    unknown: int
    """Whose prompts cannot be told yet."""

    @property
    def bought(self) -> int:
        """Calls that this run pays for, at most."""
        return self.status.work.calls - self.journal - self.before - self.spared


def answered_calls(
    found: Iterable[StageStatus], store: Store, runtime: Runtime, before: Sequence[Goal]
) -> list[Answered]:
    """How the calls of each stage that has still to ask a teacher are answered.

    Args:
        before: goals of points that were planned before.
    """
    asking = [status for status in found if status.work.calls]
    with TemporaryDirectory() as scratch:
        glance = Glance(store, runtime, scratch=Path(scratch))
        told: list[Answered] = []
        for status in asking:
            try:
                told.append(_answered(status, glance, before))
            except (UserError, CorruptArtifact):  # topics that cannot be read, or damage: both are told elsewhere
                told.append(Answered(status, 0, 0, 0, status.work.calls))
        return told


def _answered(status: StageStatus, glance: Glance, before: Sequence[Goal]) -> Answered:
    pool = status.goal.node
    if not isinstance(pool, Pool):  # its texts are yet to be written
        calls, planned_before = status.work.calls, any(goal.key == pool.key for goal in before)
        return Answered(status, 0, calls * planned_before, 0, calls * (not planned_before))
    planned = max((goal.rows for goal in before if goal.key == pool.key), default=0)
    gaps = [(gap.start, gap.stop) for gap in glance.store.missing(pool, status.goal.rows)]
    made = sum(pool.work(start, min(stop, planned)).calls for start, stop in gaps if start < planned)
    left = [(max(start, planned), stop) for start, stop in gaps if stop > planned]
    others = {goal.key: goal for goal in before if goal.label == pool.label and goal.key != pool.key}
    if not left or not (others or any((glance.store.home / "journal").glob("*.jsonl*"))):
        return Answered(status, 0, made, 0, status.work.calls - made)
    found = [_keys(pool, start, stop, glance) for start, stop in left]
    keys, teachers = [key for keys, _ in found for key in keys], [teacher for _, teacher in found if teacher]
    asked = [key for key in keys if key is not None]
    journaled = set[str](teachers[0].journaled(asked, glance.store.home) if teachers else ())
    theirs = {key for goal in others.values() for key in _keys(goal.node, 0, goal.rows, glance)[0]}
    return Answered(
        status,
        journal=sum(key in journaled for key in asked),
        before=made + sum(key in theirs and key not in journaled for key in asked),
        spared=len(keys) - len(asked),
        unknown=status.work.calls - made - len(keys),
    )


def _keys(node: Any, start: int, stop: int, glance: Glance) -> tuple[list[str | None], Any]:
    """Journal keys of the requests of some rows that can be told, None for rows that ask nothing; and who is asked."""
    keys: list[str | None] = []
    who: Any = None
    for ask in node.known_asks(start, stop, glance):
        who = who if ask is None else ask[0]
        keys.append(None if ask is None else who.journal_key(ask[1]))
    return keys, who


def answered_lines(found: Sequence[Answered]) -> list[str]:
    """What is answered already and what is left to buy, for a plan; nothing where nothing could be looked up."""
    calls = sum(each.status.work.calls for each in found)
    if all(each.unknown == each.status.work.calls for each in found):
        return []
    lines = [
        f"{sum(counts):,} of {calls:,} calls are answered already by {who}: {_listed(found, counts)}"
        for who, counts in (
            ("the journal", [each.journal for each in found]),
            ("points of this sweep that were planned before", [each.before for each in found]),
        )
        if any(counts)
    ]
    bought = [each.bought for each in found]
    unknown = sum(each.unknown for each in found)
    least = sum(bought) - unknown
    amount = f"{sum(bought):,}" if not unknown else f"at least {least:,} and at most {sum(bought):,}"
    price = sum((each.status.work.dollars or 0.0) * each.bought / each.status.work.calls for each in found)
    about = f" (about {money(price)}{' at most' if unknown else ''})" if price else ""
    listed = f": {_listed(found, bought)}" if any(bought) else ""
    later = f"; {unknown:,} prompts cannot be rendered yet, and more may be answered" if unknown else ""
    return [paragraph(line) for line in [*lines, f"left to buy: {amount} calls{about}{listed}{later}"]]


def _listed(found: Sequence[Answered], counts: Sequence[int]) -> str:
    """`tasks for seed 5,806 (all), seed data 7,608`."""
    return ", ".join(
        f"{each.status.goal.label} {count:,}{' (all)' if count == each.status.work.calls else ''}"
        for each, count in zip(found, counts, strict=True)
        if count
    )
