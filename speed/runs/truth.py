"""Which share of a run's examples is right, where its teacher knows: the rules of the miniature do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from speed.core.errors import CorruptArtifact
from speed.core.graph import Goal
from speed.core.spec import Json
from speed.core.stage import Pool
from speed.core.store import Store
from speed.data.records import Prompt, Sample
from speed.runs.stage_lines import StageLine
from speed.stages.dedup import Dedup
from speed.stages.revision_pass import RevisionPass

MOST = 2_000
"""Rows that are looked at: the first ones."""
Verdict = Callable[[Prompt, str], list[str] | None]
"""Takes a prompt and an answer; says what is wrong with it, or None where nobody knows."""


def answer_of(sample: Sample) -> str:
    """The example of a row as it was read; what was written where it could not be read."""
    return json.dumps(sample.example.fields(), ensure_ascii=False) if sample.example else sample.text


def with_truth(lines: Iterable[StageLine], order: Sequence[Goal], store: Store, verdict: Verdict) -> list[StageLine]:
    """The lines; those of the stages that write the corpus with the share of flawless rows in `metrics`, and that of
    deduplication with the share of the rows that it is given.

    A row is flawless that could be read, breaks no guideline of its prompt, and has no fault by the truth.
    """
    found, given = dict[str, tuple[float, int] | None](), dict[str, str]()
    for goal in order:
        if isinstance(goal.node, Dedup):
            pool, rows = goal.node.samples.pool, goal.node.samples.rows
            for each in (pool, pool.samples) if isinstance(pool, RevisionPass) else (pool,):
                with suppress(CorruptArtifact, OSError):  # who reads the lives of records says so
                    found[each.key] = _flawless(each, rows, store, verdict)
            given[goal.key] = pool.key
    told = [_told(line, *judged) if (judged := found.get(line.key)) else line for line in lines]
    return [_with(line, judged[0]) if (judged := found.get(given.get(line.key, ""))) else line for line in told]


def _flawless(pool: Pool[Sample], rows: int, store: Store, verdict: Verdict) -> tuple[float, int] | None:
    """Share and number of rows; None where the truth of one of them is not known, or there is none."""
    wanted, flawless = min(rows, MOST), 0
    if store.missing(pool, wanted):
        return None
    for row in store.rows(pool.take(wanted)):
        if row.example is None or row.rejected or row.faults:
            continue
        faults = verdict(row.prompt, answer_of(row))
        if faults is None:
            return None
        flawless += not faults
    return flawless / wanted, wanted


def _told(line: StageLine, share: float, rows: int) -> StageLine:
    remark = f"{share:.1%} of {rows:,} examples are without a flaw, by the truth, which no model sees"
    return _with(line, share, remarks=[*line.metrics.get("remarks", []), remark])


def _with(line: StageLine, share: float, **more: Json) -> StageLine:
    return line.model_copy(update={"metrics": {**line.metrics, "flawless": round(share, 4), **more}})
