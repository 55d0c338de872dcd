"""The corpus stage: repeats go, and `scale.keep` leaves equal counts by the mix or says what is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from speed.core.build import build
from speed.core.errors import UserError
from speed.core.graph import goals
from speed.core.stage import Pool, silence
from speed.core.store import Store
from speed.data.mix import Mix
from speed.data.quality.minhash import MinHashConfig
from speed.data.records import Example, Kind, Prompt, Sample
from speed.runs.report import markdown, remarks, retention_table
from speed.runs.stage_lines import stage_line
from speed.runtime import Context, Runtime
from speed.stages.dedup import Dedup

MIX = Mix(retrieval=2, classification=0, sts=1, short_short=0, long_long=0)


@dataclass(frozen=True)
class Written(Pool[Sample]):
    """Rows by the mix; every fifth one says what the row of its kind before said, every seventh is no example."""

    name: ClassVar[str] = "written"
    row: ClassVar[type[Sample]] = Sample

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        for row in range(start, stop):
            kind = MIX.kind_of(row)
            words = " ".join(f"w{(row - (3 if row % 5 == 0 else 0)) * 31 + n}" for n in range(30))
            made = Example(kind=kind, task="t", query=words, positive=words, negative="n")
            sample = Sample(row=row, prompt=Prompt(text="p", template="t", kind=kind), text="", example=made)
            yield sample.reject("bad_syntax") if row % 7 == 6 else sample


def corpus(home: Path, stage: Dedup) -> list[Example]:
    store = Store(home).open()
    for goal in goals([stage]):
        build(goal, store, Runtime(), silence)
    lines = (store.payload(stage) / "examples.jsonl").read_text().splitlines()
    manifest = store.manifest(stage)
    assert manifest is not None
    assert manifest.counts["in"] == manifest.counts["out"] + sum(manifest.rejected.values())
    return [Example.model_validate(json.loads(line)) for line in lines]


def test_kept_are_the_first_of_each_kind(tmp_path: Path) -> None:
    everything = corpus(tmp_path, Dedup(MinHashConfig(), Written().take(60)))
    wanted = MIX.counts(15)
    kept = corpus(tmp_path, Dedup(MinHashConfig(), Written().take(60), wanted))
    assert Counter(example.kind for example in kept) == Counter({kind: n for kind, n in wanted.items() if n})
    for kind in Kind:
        assert [e for e in kept if e.kind is kind] == [e for e in everything if e.kind is kind][: wanted[kind]]
    assert len(everything) > 15


def test_too_few_are_said_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scale.keep=60 .* \d+ of 20 sts\n"):
        corpus(tmp_path, Dedup(MinHashConfig(), Written().take(60), MIX.counts(60)))


def test_each_repeat_is_recorded_with_the_row_that_it_repeats(tmp_path: Path) -> None:
    def texts(stage: Dedup) -> tuple[list[tuple[str, str]], str]:
        kept = corpus(tmp_path, stage)
        return [(str(each.kind), each.query) for each in kept], (
            Store(tmp_path).payload(stage) / "repeats.jsonl"
        ).read_text()

    rows = {row.row: row for row in Written().build(0, 60, Context(Store(tmp_path), Runtime()))}
    kept, recorded = texts(Dedup(MinHashConfig(), Written().take(60)))
    repeats = dict(map(json.loads, recorded.splitlines()))
    accepted = {row: sample for row, sample in rows.items() if sample.example is not None and not sample.rejected}
    assert repeats
    assert len(kept) + len(repeats) == len(accepted)
    for row, first in repeats.items():
        one, other = rows[row].example, rows[first].example
        assert first < row
        assert one is not None
        assert other is not None
        assert (one.kind, one.query) == (other.kind, other.query)
        assert (str(other.kind), other.query) in kept
    assert texts(Dedup(None, Written().take(60)))[1] == "", "nothing is a repeat where none is looked for"


def test_what_bands_notice_is_told_by_hand_counted_chances(tmp_path: Path) -> None:
    store = Store(tmp_path).open()
    stages = [Dedup(config, Written().take(30)) for config in (MinHashConfig(bands=2, rows=1), None)]
    lines = []
    for stage in stages:
        for goal in goals([stage]):
            build(goal, store, Runtime(), silence)
        lines.append(stage_line(goal, store, True))
    told, silent = lines
    assert told.metrics["detection"] == {
        "bands": 2, "rows": 1, "threshold": 0.7,
        "chance": {"0.5": 0.75, "0.6": 0.84, "0.7": 0.91, "0.8": 0.96, "0.9": 0.99, "0.95": 0.9975},
    }  # fmt: skip
    words = remarks([silent])
    assert len(words) == 1
    assert words[0].startswith("dedup: of a query's words its positive has ")
    assert remarks([told]) == [
        *words,
        "dedup notices a pair, by 2 bands of 1 rows, with a chance of 75.0% at 0.5, 84.0% at 0.6, 91.0% at 0.7, "
        "96.0% at 0.8, 99.0% at 0.9, 99.8% at 0.95; a repeat has 0.7 or more.",
    ]


def test_a_report_puts_what_was_kept_beside_table_6(tmp_path: Path) -> None:
    """Rows that `scale.keep` does not want are no repeats."""
    shown = []
    for keep in (None, MIX.counts(15)):
        stage, store = Dedup(MinHashConfig(), Written().take(60), keep), Store(tmp_path).open()
        for goal in goals([stage]):
            build(goal, store, Runtime(), silence)
        table = retention_table(stage_line(goal, store, True))
        assert table is not None
        shown.append(table.rows)
    assert shown[0] == shown[1]
    rows = {kind: (kept, paper) for kind, kept, paper in shown[0]}
    assert {kind: paper for kind, (_, paper) in rows.items()} == {"retrieval": "86.7%", "sts": "84.1%", "all": "80.0%"}
    accepted = [row for row in range(60) if row % 7 != 6]
    repeats = [row for row in accepted if row % 5 == 0 and row >= 3 and row - 3 in accepted]
    assert rows["all"][0] == f"{1 - len(repeats) / len(accepted):.1%}"
    none = Dedup(None, Written().take(60))
    for goal in goals([none]):
        build(goal, store, Runtime(), silence)
    line = stage_line(goal, store, True)
    assert retention_table(line) is None
    assert "What deduplication kept" not in markdown("a", {}, [line], None)
    old = line.model_copy(update={"metrics": {"kept_share_by_kind": {"sts": 1.0}}})
    assert retention_table(old) is None, "a store of before told no such share"
