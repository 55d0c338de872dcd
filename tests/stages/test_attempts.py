"""Exactly N accepted of each kind, within a budget of candidates: for the teacher's seed data and for synthesis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_judge import Scripted, built
from scripted_writer import GivenTasks, GivenTopics, NoWeights, Writer

from speed.core.graph import Goal
from speed.core.stage import Pool
from speed.core.store import Store
from speed.data.answers.accept_or_reject import KEEP
from speed.data.assignment import Assignment, BrainstormPlan
from speed.data.draws import generator
from speed.data.mix import Mix
from speed.data.prompts.rendering import PromptsConfig
from speed.data.quality.guidelines import Guidelines
from speed.data.records import KEYS, Kind, Sample
from speed.ports import Answer, Ask, Check, Generate, Sampling
from speed.runs.report import remarks
from speed.runs.stage_lines import stage_line
from speed.runtime import Context, Runtime
from speed.stages.seed import SeedData
from speed.stages.synthesis import Synthesis

ROWS = 69
MIX = Mix()
LONGEST = dict.fromkeys(Kind, 100)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


def example_for(prompt: str) -> str:
    """A record of the kind that a prompt asks for."""
    kind = next(kind for kind in Kind if all(f'"{key}"' in prompt for key in KEYS[kind].all))
    return json.dumps({key: f"some {place} words of {key}" for place, key in enumerate(KEYS[kind].all)})


def lucky(*path: str | int) -> bool:
    """Three times of five."""
    return generator(1, *path).random() < 0.6


def says(model: str, ask: Ask) -> str:
    return example_for(ask.prompt) if lucky(ask.prompt, ask.index) else "no"


def says_no_retrieval(model: str, ask: Ask) -> str:
    return "no" if ask.kind is Kind.RETRIEVAL else example_for(ask.prompt)


def always(model: str, ask: Ask) -> str:
    return example_for(ask.prompt)


def writes(one: Generate) -> str:
    return example_for(one.prompt) if lucky(one.prompt, one.seed) else "no"


def writes_no_sts(one: Generate) -> str:
    return "no" if '"S1"' in one.prompt else example_for(one.prompt)


def assigned(role: Any, failed: tuple[int, ...] = ()) -> tuple[Assignment, GivenTasks]:
    assignment = Assignment(role=role, seed=0, mix=MIX, prompts=PromptsConfig().of("synthesis"))
    return assignment, GivenTasks(BrainstormPlan(role=role, seed=0, mix=MIX), failed)


def seed_data(
    teacher: Scripted, attempts: int, failed: tuple[int, ...] = (), guidelines: Guidelines = KEEP
) -> SeedData:
    assignment, tasks = assigned("seed", failed)
    return SeedData(
        assignment=assignment, topics=GivenTopics(), tasks=tasks, teacher=teacher, temperature=1.0, max_tokens=LONGEST,
        attempts=attempts, guidelines=guidelines,
    )  # fmt: skip


def synthesis(engine: Writer, attempts: int, failed: tuple[int, ...] = (), guidelines: Guidelines = KEEP) -> Synthesis:
    assignment, tasks = assigned("synthesis", failed)
    return Synthesis(
        writer=NoWeights(), assignment=assignment, topics=GivenTopics(), tasks=tasks, engine=engine,
        sampling=Sampling(temperature=1.0), max_tokens=LONGEST, seed=0, attempts=attempts, guidelines=guidelines,
    )  # fmt: skip


def pools(attempts: int, failed: tuple[int, ...] = ()) -> list[Pool[Sample]]:
    return [
        seed_data(Scripted.saying(says), attempts, failed), synthesis(Writer.writing(writes), attempts, failed)
    ]  # fmt: skip


def accepted(rows: list[Sample]) -> Counter[Kind]:
    return Counter(row.prompt.kind for row in rows if row.rejected is None and row.prompt.kind)


@pytest.mark.parametrize("place", [0, 1])
def test_one_attempt_accepts_what_it_gets(store: Store, place: int) -> None:
    rows, manifests = built(store, pools(1)[place], ROWS)
    assert 0.4 * ROWS < accepted(rows).total() < 0.8 * ROWS
    assert {row.attempt for row in rows} == {0}
    assert "short" not in manifests[0].metrics


@pytest.mark.parametrize("place", [0, 1])
def test_attempts_fill_every_kind_exactly(store: Store, place: int) -> None:
    """The budget is twenty candidates a row; five in three are spent. What one attempt accepted stays as it was."""
    pool, plain = pools(20)[place], pools(1)[place]
    rows, _ = built(store, pool, ROWS)
    assert accepted(rows) == {kind: count for kind, count in MIX.counts(ROWS).items() if count}
    line = stage_line(Goal(pool, ROWS, ()), store, True)
    assert line.metrics["short"] == {}
    assert line.metrics["accepted"] == {kind.value: count for kind, count in MIX.counts(ROWS).items()}
    tried = sum(row.attempt + 1 for row in rows)
    assert sum(line.metrics["candidates"].values()) == tried
    assert 1.3 * ROWS < tried < 2.2 * ROWS
    # nothing is short; two examples of the script may be alike, which is told too
    assert [remark for remark in remarks([line]) if "repeat those to the prompt before" not in remark] == []
    for row, first in zip(rows, built(store, plain, ROWS)[0], strict=True):
        assert (row == first) is (first.rejected is None)


@pytest.mark.parametrize("attempts", [1, 3])
def test_progress_comes_with_the_answers_and_not_with_the_rows(store: Store, attempts: int) -> None:
    """Behind a slow teacher the first attempts of all rows take an hour, and the first row comes after the last."""
    pool, told = seed_data(Scripted.saying(says), attempts), list[int]()
    built(store, pool, ROWS)  # with what it reads
    ctx = Context(store, Runtime(home=store.home), send=lambda event: told.append(event["done"]))
    for number, _ in enumerate(pool.build(0, ROWS, ctx)):
        if not number:
            assert not told if attempts == 1 else told[0] <= 1, "after the first answer, and not after the last"
    assert told[-1] == ROWS
    assert told == sorted(told)


class InBatches(Scripted):
    """Reads everything before it answers, as a teacher does whose answers come in batches."""

    @property
    def reads_ahead(self) -> int:
        return 1000

    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        return super().ask(list(requests), ctx)


def test_all_rows_are_tried_together_where_answers_come_in_batches(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SeedData, "block", 7)
    asked: list[int] = []
    whole = InBatches.ask

    def counted(self: InBatches, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        asked.append(len(some := list(requests)))
        return whole(self, some, ctx)

    monkeypatch.setattr(InBatches, "ask", counted)
    rows, manifests = built(store, seed_data(InBatches.saying(says), 3), ROWS)
    assert asked == [ROWS, *(sum(row.attempt >= attempt for row in rows) for attempt in (1, 2))]
    assert len(manifests) == 10
    single = Store(store.home.parent / "single").open()
    assert rows == built(single, seed_data(Scripted.saying(says), 3), ROWS)[0]


def test_what_was_mended_is_counted_by_name(store: Store) -> None:
    def fences(model: str, ask: Ask) -> str:
        return f"Here:\n{example_for(ask.prompt)[:-1]},}}" if ask.kind is Kind.STS else example_for(ask.prompt)

    pool = seed_data(Scripted.saying(fences), 1)
    rows, _ = built(store, pool, ROWS)
    mended = [row for row in rows if row.mended == ("around", "marks")]
    assert {row.prompt.kind for row in mended} == {Kind.STS}
    assert {row.mended for row in rows if row not in mended} == {()}
    line = stage_line(Goal(pool, ROWS, ()), store, True)
    assert line.metrics["mended"] == {"around": len(mended), "marks": len(mended)}
    assert len(mended) == MIX.counts(ROWS)[Kind.STS]


@pytest.mark.parametrize("place", [0, 1])
def test_a_pool_that_grows_is_the_pool_that_was_built_at_once(tmp_path: Path, place: int) -> None:
    grown, whole = Store(tmp_path / "grown").open(), Store(tmp_path / "whole").open()
    built(grown, pools(3)[place], 20)
    assert built(grown, pools(3)[place], ROWS)[0] == built(whole, pools(3)[place], ROWS)[0]


@pytest.mark.parametrize(
    ("pool", "kind", "label"),
    [
        (seed_data(Scripted.saying(says_no_retrieval), 3), "retrieval", "seed data"),
        (synthesis(Writer.writing(writes_no_sts), 3), "sts", "synthesis"),
    ],
)
def test_a_shortfall_is_said(store: Store, pool: Pool[Sample], kind: str, label: str) -> None:
    rows, manifests = built(store, pool, ROWS)
    assert Counter(row.rejected for row in rows) == {None: 48, "no_json": 21}
    assert {row.attempt for row in rows if row.rejected} == {2}
    assert sum(manifest.metrics["short"].get(kind, 0) for manifest in manifests) == 21
    line = stage_line(Goal(pool, ROWS, ()), store, True)
    assert line.metrics["short"] == {kind: 21}
    assert remarks([line]) == [
        f"{label} is short of 21 {kind}: all attempts are spent, after {48 + 3 * 21} candidates."
    ]


@pytest.mark.parametrize("place", [0, 1])
def test_a_row_without_a_task_borrows_one(store: Store, place: int) -> None:
    failed = (2, 3)
    once, _ = built(store, pools(1, failed)[place], ROWS)
    assert Counter(row.rejected for row in once)["no_task"] == 3 * 2 * 2  # samples a task, calls, kinds that have them
    rows, _ = built(store, pools(20, failed)[place], ROWS)
    assert accepted(rows).total() == ROWS
    borrowed = {row.prompt.task for row, first in zip(rows, once, strict=True) if first.rejected == "no_task"}
    assert borrowed == {"retrieval task 1", "classification task 1"}


def test_no_two_candidates_are_the_same_request(store: Store) -> None:
    """The journal would answer it with the very text that was rejected."""
    teacher = Scripted.saying(says)
    rows, _ = built(store, seed_data(teacher, 20), ROWS)
    asks = [ask for _, ask in teacher._heard]
    assert len({(ask.prompt, ask.index) for ask in asks}) == len(asks) > 1.3 * ROWS
    last = {ask.index % 10**9 * 5 + list(Kind).index(ask.kind): ask for ask in asks if ask.kind}
    for row in rows:
        assert row.prompt.kind is not None
        number = MIX.index_within_kind(row.row) * 5 + list(Kind).index(row.prompt.kind)
        assert row.prompt.text == last[number].prompt


def test_synthesis_loads_its_model_once_and_records_what_it_sent(store: Store) -> None:
    engine = Writer.writing(writes)
    rows, _ = built(store, synthesis(engine, 20), ROWS)
    assert engine._loaded == 1
    assert [len(call) for call in engine._asked if len(call) == 23] == [23] * 3
    sent = {one.key: one for call in engine._asked for one in call}
    assert all(sent[str(row.row)].prompt == row.prompt.text for row in rows)
    seeds = [one.seed for call in engine._asked for one in call]
    assert len(set(seeds)) == len(seeds)


def test_a_guideline_that_drops_costs_the_example_its_place(store: Store) -> None:
    kept, _ = built(store, seed_data(Scripted.saying(always), 1), ROWS)
    assert all(row.rejected is None for row in kept)
    assert any("query_length" in row.faults for row in kept)
    drops = Guidelines(drop=("query_length",))
    strict, manifests = built(store, seed_data(Scripted.saying(always), 1, guidelines=drops), ROWS)
    assert [row.rejected for row in strict] == [
        "query_length" if "query_length" in row.faults else None for row in kept
    ]
    assert manifests[0].rejected == {"query_length": sum("query_length" in row.faults for row in kept)}
    engine = Writer.writing(writes)
    both, _ = built(store, synthesis(engine, 1, guidelines=Guidelines(drop="all")), ROWS)
    assert all(row.rejected for row in both if row.faults)
    assert any(row.faults for row in both)
