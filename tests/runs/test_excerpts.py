"""Excerpts of a stage: spread evenly over its shards, only so many of them read, and plain text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from speed.core.build import build
from speed.core.graph import Goal
from speed.core.row import Row
from speed.core.stage import Pool, silence
from speed.core.store import PACKED, Store
from speed.data.records import Kind, Prompt, Sample
from speed.runs.excerpts import excerpts, has_excerpts
from speed.runtime import Context, Runtime


@dataclass(frozen=True)
class Written(Pool[Sample]):
    """Ten rows a shard."""

    name: ClassVar[str] = "written"
    row: ClassVar[type[Sample]] = Sample
    block: ClassVar[int] = 10  # type: ignore[misc]

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        for row in range(start, stop):
            prompt = Prompt(text=f"write {row}", template="t", kind=Kind.STS, topic="bread", task="bake")
            yield Sample(row=row, prompt=prompt, text=f"<b>\x1b[31m{row}", faults=("length",))


@dataclass(frozen=True)
class Counted(Pool[Row]):
    name: ClassVar[str] = "counted"
    row: ClassVar[type[Row]] = Row
    block: ClassVar[int] = 10  # type: ignore[misc]

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Row]:
        yield from (Row(row=row) for row in range(start, stop))


@pytest.mark.parametrize(("rows", "count", "expected"), [(100, 4, [12, 37, 62, 87]), (3, 20, [0, 1, 2]), (35, 1, [17])])
def test_they_are_spread_evenly(tmp_path: Path, rows: int, count: int, expected: list[int]) -> None:
    store, goal = Store(tmp_path).open(), Goal(Written(), rows, ())
    build(goal, store, Runtime(home=tmp_path), silence)
    assert [each["row"] for each in excerpts(goal, store, count)] == expected


def test_they_are_plain_text_of_the_shards_that_hold_them(tmp_path: Path) -> None:
    store, goal = Store(tmp_path).open(), Goal(Written(), 100, ())
    build(goal, store, Runtime(home=tmp_path), silence)
    (store.folder(goal.node) / "rows-000000000-000000010.jsonl.zst").write_text("damaged, and not read")
    [found] = excerpts(goal, store, 1)
    assert found == {
        "row": 50, "kind": "sts", "topic": "bread", "task": "bake", "prompt": "write 50", "text": r"<b>\x1b[31m50",
        "rejected": "", "breaks": "length",
    }  # fmt: skip


def test_datasets_reads_the_shards_as_they_are(tmp_path: Path) -> None:
    import datasets

    store, goal = Store(tmp_path / "home").open(), Goal(Written(), 25, ())
    build(goal, store, Runtime(home=store.home), silence)
    shards = sorted(map(str, store.folder(goal.node).glob(f"rows-*{PACKED}")))
    read = datasets.load_dataset("json", data_files=shards, split="train", streaming=True)
    assert [row["text"] for row in read] == [row.text for row in store.rows(goal.node.take(25))]


def test_only_written_texts_are_shown() -> None:
    assert has_excerpts(Goal(Written(), 1, ()))
    assert not has_excerpts(Goal(Counted(), 1, ()))
