"""What a run took of the teacher, however its answers came about, and whatever else its root holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.build import build
from speed.core.graph import Goal
from speed.core.ledger import Line
from speed.core.row import Row
from speed.core.stage import Pool, silence
from speed.core.store import Store
from speed.runs.report import remarks
from speed.runs.stage_lines import StageLine, stage_line
from speed.runtime import Context, Runtime


@dataclass(frozen=True)
class Asked(Pool[Row]):
    """One answer a row, every second one from the journal; every third row takes another, each sixth is of no use."""

    name: ClassVar[str] = "asked"
    row: ClassVar[type[Row]] = Row
    silent: bool = False

    @property
    def block(self) -> int:
        return 50

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Row]:
        for row in range(start, stop):
            for retry in range(0 if self.silent else 2 if row % 3 == 0 else 1):
                cause, asked = "no_json" if row % 3 == retry == 0 else "ok", "cached" if row % 2 == 0 else "calls"
                ctx.tally.ledger.add(Line(model="m", cause=cause, **{asked: 1}))
            yield Row(row=row).reject("no_json") if row % 6 == 0 else Row(row=row)


@dataclass(frozen=True)
class InBlocks(Asked):
    """The same, whose rows depend on their neighbours."""

    whole_blocks: ClassVar[bool] = True


def line(home: Path, pool: Asked, rows: int) -> StageLine:
    store = Store(home).open()
    goal = Goal(pool, rows, ())
    build(goal, store, Runtime(home=home), silence)
    return stage_line(goal, store, True)


def test_retries_rejected_rows_and_the_journal_are_in_it(tmp_path: Path) -> None:
    """Of 120 rows (three shards) 100 are usable, for 160 answers."""
    found = line(tmp_path, Asked(), 120)
    assert (found.rows_out, found.calls_per_row) == (100, 1.6)
    said = "Calls that a usable row took, second tries and answers from the journal included: 1.60 for asked."
    assert said in remarks([found])


def test_nothing_is_said_where_nobody_was_asked_or_nothing_is_usable(tmp_path: Path) -> None:
    for home, pool, rows in ((tmp_path / "silent", Asked(silent=True), 12), (tmp_path / "spoilt", Asked(), 1)):
        found = line(home, pool, rows)
        assert found.calls_per_row is None
        assert not any("usable row" in remark for remark in remarks([found]))


def test_a_run_that_reads_part_of_what_another_has_asked_for_counts_that_part(tmp_path: Path) -> None:
    """Else its calls would depend on which runs the root has seen before."""
    alone = line(tmp_path / "alone", Asked(), 30)
    line(tmp_path / "shared", Asked(), 50)
    found = line(tmp_path / "shared", Asked(), 30)
    assert (alone.rows_in, alone.rows_out, alone.rejected) == (30, 25, {"no_json": 5})
    assert (found.rows_in, found.rows_out, found.rejected) == (30, 25, {"no_json": 5})
    requests = [sum(each.requests for each in one.ledger) for one in (alone, found)]
    assert requests == [40, 40]
    assert found.calls_per_row == alone.calls_per_row == 1.6


def test_whole_blocks_are_what_a_run_has_built_itself(tmp_path: Path) -> None:
    found = line(tmp_path, InBlocks(), 30)
    assert (found.rows_in, sum(each.requests for each in found.ledger)) == (50, 67)


def test_damage_in_a_row_that_is_read_in_part_costs_no_report(tmp_path: Path) -> None:
    """Whoever reads the rows tells it; a line of the report is counted by the shard's share."""
    line(tmp_path, Asked(), 50)
    (rows,) = tmp_path.glob("store/asked/*/rows-*.jsonl*")
    rows.write_bytes(b"damaged")
    goal = Goal(Asked(), 30, ())
    found = stage_line(goal, Store(tmp_path).open(), False)
    assert (found.rows_in, found.rows_out, found.rejected) == (30, 25, {"no_json": 5})
