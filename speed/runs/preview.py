"""What the teacher would be sent: five prompts of each kind, for each of its four tasks. Nothing is asked or built.

Where rows are built, their recorded prompts are shown. Otherwise prompts are rendered as they will be, with the same
draws; what a model has yet to write (a task, an answer) is marked by a stand-in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from speed.core.escape import escape
from speed.core.graph import Goal
from speed.core.stage import Pool
from speed.core.store import Store
from speed.data.assignment import Assignment, BrainstormPlan, load_topics
from speed.data.costs.prices import estimated_tokens
from speed.data.prompts.rendering import judge_prompt, revise_prompt
from speed.data.records import UNASKED, Kind, Prompt, TaskList
from speed.data.topics.sources import topic_index
from speed.runtime import Context, Runtime
from speed.stages.preferences import Preferences
from speed.stages.revisions import Revisions
from speed.stages.root import RootData
from speed.stages.seed import SeedData
from speed.stages.tasks import Tasks
from speed.stages.topics import Topics

EACH = 5
"""Prompts shown of each kind."""
TASK = "(a task that the teacher has yet to think of)"
ANSWER = "(answer {} of the junior, which is yet to be trained)"


def previews(order: Iterable[Goal], store: Store, runtime: Runtime) -> Iterator[str]:
    """The prompts, one text each under a line that says what it is."""
    goals = list(order)
    topics = next(goal.node for goal in goals if isinstance(goal.node, Topics))
    subjects = _topics(topics, store, runtime)
    for goal in goals:
        node = goal.node
        if isinstance(node, Tasks) and node.plan.role == "seed":
            prompts, kinds = _brainstorm(node, store, subjects), len(node.plan.kinds)
        elif isinstance(node, SeedData):
            prompts, kinds = _seed(node, store, subjects), len(Kind)
        elif isinstance(node, (Preferences, Revisions)):
            prompts, kinds = _about_answers(node, store, subjects), len(Kind)
        else:
            continue
        yield from _each(goal.label, islice(prompts, goal.rows), kinds)  # a small run asks for fewer than five


def _each(label: str, prompts: Iterator[tuple[Kind, str]], kinds: int) -> Iterator[str]:
    """The first prompts of every kind, in the order in which they come."""
    seen: Counter[Kind] = Counter()
    for kind, text in prompts:
        seen[kind] += 1
        if seen[kind] <= EACH:
            head = f"{label}, {kind.value}, {seen[kind]} of {EACH}, about {estimated_tokens(text):,} tokens"
            yield f"=== {head}\n{escape(text)}\n"
        if len(seen) == kinds and min(seen.values()) >= EACH:
            return


def _topics(node: Topics, store: Store, runtime: Runtime) -> list[str]:
    if store.manifest(node) is not None:
        return load_topics(store.folder(node))
    with TemporaryDirectory() as folder:
        node.run(Path(folder), Context(store, runtime))
        return load_topics(Path(folder))


def _built(pool: Pool[Any], store: Store) -> list[Any]:
    """The first rows that are built without a gap."""
    rows = 0
    for span in store.shards(pool):
        if span.start > rows:
            break
        rows = max(rows, span.stop)
    return list(store.rows(pool.take(min(rows, MOST)))) if rows else []


MOST = 500
"""Rows looked at: enough for five of the rarest kind."""


def _brainstorm(node: Tasks, store: Store, topics: list[str]) -> Iterator[tuple[Kind, str]]:
    if built := _built(node, store):
        yield from ((row.kind, row.prompt.text) for row in built)
        return
    for _, prompt in node.prompts_of(0, MOST, topics):
        yield _kind(prompt), prompt.text


def _seed(node: SeedData, store: Store, topics: list[str]) -> Iterator[tuple[Kind, str]]:
    for prompt in _data_prompts(node, node.assignment, node.tasks, store, topics):
        yield _kind(prompt), prompt.text


def _about_answers(node: Preferences | Revisions, store: Store, topics: list[str]) -> Iterator[tuple[Kind, str]]:
    root = node.root
    assert isinstance(root, RootData)
    if built := _built(node, store):
        for row in built:
            sent = [vote.prompt for vote in row.votes][:1] if isinstance(node, Preferences) else [row.revise_prompt]
            yield from ((_kind(row.prompt), text) for text in sent if text and row.prompt.kind is not None)
        return
    answers = [ANSWER.format(place) for place in range(root.candidates)]
    for prompt in _data_prompts(root, root.assignment, root.tasks, store, topics):
        if isinstance(node, Preferences):
            yield _kind(prompt), judge_prompt(prompt.text, answers, node.prompts.config).text
        else:
            yield _kind(prompt), revise_prompt(prompt.text, answers[0], node.prompts.config).text


def _data_prompts(
    pool: Pool[Any], assignment: Assignment, tasks: Pool[TaskList], store: Store, topics: list[str]
) -> Iterator[Prompt]:
    """Prompts for examples: recorded ones, or those of tasks that are there, or those of stand-ins."""
    if built := _built(pool, store):
        yield from (row.prompt for row in built if row.prompt.kind is not None)
        return
    known = _built(tasks, store)
    rows = range(MOST)
    if known:
        rows = range(max(n for n in range(MOST + 1) if assignment.brainstorm_rows(n) <= len(known)))
    lists = known or _stand_ins(BrainstormPlan(role=assignment.role, seed=assignment.seed, mix=assignment.mix), topics)
    found = assignment.prompts_of(0, len(rows), lists, topics)
    yield from (prompt for _, prompt in found if prompt is not None)


def _stand_ins(plan: BrainstormPlan, topics: list[str]) -> Iterator[TaskList]:
    for row in count():
        kind, call = plan.kind_and_call(row)
        topic = topics[topic_index(call, len(topics), plan.seed, plan.role, kind)]
        yield TaskList(row=row, kind=kind, topic=topic, prompt=UNASKED, answer="", tasks=(TASK,))


def _kind(prompt: Prompt) -> Kind:
    assert prompt.kind is not None
    return prompt.kind
