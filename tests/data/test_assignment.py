"""Assignment of tasks and topics: shared as the config says, and independent of the row at which reading begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from speed.data.assignment import ATTEMPT, Assignment, BrainstormPlan, Draft, TaskRows
from speed.data.mix import Mix
from speed.data.prompts.rendering import PromptsConfig
from speed.data.records import Kind, Prompt, TaskList

MIX = Mix()
TOPICS = [f"Arts/{number}" for number in range(7)]


def assignment(tasks_per_topic: int = 1, samples_per_task: int = 3, **fields: int) -> Assignment:
    return Assignment(
        role="synthesis", seed=fields.get("seed", 0), mix=MIX, tasks_per_topic=tasks_per_topic,
        samples_per_task=samples_per_task, prompts=PromptsConfig().of("synthesis"),
    )  # fmt: skip


def lists(rows: int, tasks: int = 1, failed: tuple[int, ...] = ()) -> Iterator[TaskList]:
    """The brainstorm pool: call c of a kind is about topic c."""
    plan = BrainstormPlan(role="synthesis", seed=0, mix=MIX)
    for row in range(rows):
        kind, call = plan.kind_and_call(row)
        kept = () if call in failed else tuple(f"{kind} {call}.{number}" for number in range(tasks))
        yield TaskList(row=row, kind=kind, topic=f"T{call}", prompt=Prompt(text="", template=""), tasks=kept)


def drafts(made: Assignment, start: int, stop: int, tasks: int = 1, failed: tuple[int, ...] = ()) -> list[Draft]:
    return list(made.drafts(start, stop, pool(made.brainstorm_rows(stop), tasks, failed), TOPICS))


def pool(rows: int, tasks: int = 1, failed: tuple[int, ...] = (), read: list[int] | None = None) -> TaskRows:
    """The same from a row on; `read` gets the number of each row that is read."""

    def seen(first: int) -> Iterator[TaskList]:
        for listed in islice(lists(rows, tasks, failed), first, None):
            if read is not None:
                read.append(listed.row)
            yield listed

    return seen


@pytest.mark.parametrize(("per_topic", "per_task"), [(1, 3), (3, 1), (5, 2)])
def test_neighbours_share_tasks_and_topics(per_topic: int, per_task: int) -> None:
    made = assignment(per_topic, per_task)
    rows = [draft for draft in drafts(made, 0, 230, tasks=per_topic) if draft.kind is Kind.RETRIEVAL]
    assert len(rows) == 70
    abouts = [draft.about for draft in rows]
    expected = [
        (f"retrieval {call}.{task}", f"T{call}")
        for call in range(70)
        for task in range(per_topic)
        for _ in range(per_task)
    ][:70]
    assert abouts == expected


def test_the_mix_and_the_fixed_task_of_sts() -> None:
    rows = drafts(assignment(), 0, 230)
    assert Counter(draft.kind for draft in rows) == {
        Kind.RETRIEVAL: 70, Kind.CLASSIFICATION: 70, Kind.STS: 70, Kind.SHORT_SHORT: 10, Kind.LONG_LONG: 10,
    }  # fmt: skip
    triples = [draft.about for draft in rows if draft.kind is Kind.STS]
    assert {about.task for about in triples if about} == {"Retrieve semantically similar text."}
    assert Counter(about.topic for about in triples if about) == dict.fromkeys(TOPICS, 10)  # none before all


@pytest.mark.parametrize("start", [1, 50, 199])
def test_where_one_begins_to_read_changes_nothing(start: int) -> None:
    made = assignment()
    assert drafts(made, start, 200, failed=(3, 4)) == drafts(made, 0, 200, failed=(3, 4))[start:]
    assert made.brainstorm_rows(200) <= made.brainstorm_rows(230) < 230 / 3 + 5


@pytest.mark.parametrize("start", [230, 23_000, 115_000])
def test_a_block_reads_as_many_lists_wherever_it_lies(start: int) -> None:
    made, read = assignment(), list[int]()
    stop = start + 115
    assert len(list(made.drafts(start, stop, pool(made.brainstorm_rows(stop), read=read), TOPICS))) == 115
    assert len(read) == len(set(read)) < 60


def test_the_nearest_earlier_list_may_lie_far_before_a_block() -> None:
    made = assignment()
    failed = tuple(range(30, 1_000))
    stop = 6_900
    one = [draft for draft in drafts(made, 6_785, stop, failed=failed) if draft.kind is Kind.CLASSIFICATION]
    assert {(draft.about, draft.spare) for draft in one} == {(None, ("classification 29.0", "T29"))}
    none = [draft for draft in drafts(made, 6_785, stop, failed=tuple(range(1_000))) if draft.kind is not Kind.STS]
    assert {(draft.about, draft.spare) for draft in none} == {(None, None)}


def test_a_list_that_failed_lends_the_nearest_earlier_task() -> None:
    rows = [draft for draft in drafts(assignment(), 0, 230, failed=(0, 2, 3)) if draft.kind is Kind.CLASSIFICATION]
    assert [draft.about is None for draft in rows[:15]] == [*[True] * 3, *[False] * 3, *[True] * 6, *[False] * 3]
    assert rows[0].spare is None
    assert {draft.spare for draft in rows[6:12]} == {("classification 1.0", "T1")}


def test_prompts_are_a_function_of_row_and_attempt() -> None:
    made, other = assignment(), assignment(seed=1)
    rows = [draft for draft in drafts(made, 0, 23) if draft.about]
    first, again, second = ([made.prompt(draft, attempt) for draft in rows] for attempt in (0, 0, 1))
    assert first == again
    assert sum(one != two for one, two in zip(first, second, strict=True)) > 15
    assert sum(one != made for one, made in zip(first, map(other.prompt, rows), strict=True)) > 15
    assert all(one and two and one.task == two.task for one, two in zip(first, second, strict=True))
    nothing = Draft(0, Kind.RETRIEVAL, None)
    assert made.prompt(nothing) is None
    assert made.prompt(nothing, 3) is None


def test_sample_indices_never_meet() -> None:
    made = assignment()
    seen = {(made.mix.kind_of(row), made.sample_index(row, attempt)) for row in range(500) for attempt in range(5)}
    assert len(seen) == 2_500
    assert made.sample_index(22) < 23 < ATTEMPT
