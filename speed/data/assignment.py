"""Which row is about what: row -> kind, topic, task, prompt. The one place where diversity is defined.

Each use of prompts (seed data, root data, synthesis) is a role with topics and tasks of its own draw, because a junior
should not be judged on the very tasks that it was taught. Row i of a role has the kind that the mix gives it and is the
j-th of that kind; `samples_per_task` neighbours j share a task, `tasks_per_topic` neighbouring tasks share a topic and
a brainstorm call (paper, Table 3: fewer tasks a topic are better).
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from pydantic import Field

from speed.core.spec import Spec
from speed.data.draws import generator
from speed.data.mix import Mix
from speed.data.prompts.rendering import RolePrompts, data_prompt
from speed.data.records import STS_INSTRUCTION, Kind, Prompt, TaskList
from speed.data.topics.sources import topic_index

Role: TypeAlias = Literal["seed", "root", "synthesis"]


class Brainstormed(Spec):
    """Which brainstorm row is about what: the mix without STS, whose task is fixed."""

    role: Role
    seed: int
    mix: Mix

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that are brainstormed."""
        return tuple(kind for kind in self.mix.kinds if kind is not Kind.STS)

    @cached_property
    def asked(self) -> Mix:
        """The mix of the calls."""
        return self.mix.only(*self.kinds)

    def kind_and_call(self, row: int) -> tuple[Kind, int]:
        """Kind of a row, and its number among the calls of that kind."""
        return self.asked.kind_of(row), self.asked.index_within_kind(row)

    def row_of(self, kind: Kind, call: int) -> int:
        """The row of a kind's n-th call."""
        return self.asked.row_of(kind, call)


def load_topics(folder: Path) -> list[str]:
    """The topics that the topics stage wrote, in its order."""
    with (folder / "topics.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["topic"] for line in file]


ATTEMPT = 10**9
"""Between the sample indices of two attempts: more than a pool has rows."""


class About(NamedTuple):
    """What an example is to be about."""

    task: str
    topic: str


class Draft(NamedTuple):
    """A row before its prompt is drawn."""

    row: int
    kind: Kind
    about: About | None
    """None where the teacher gave no task."""
    spare: About | None = None
    """What the nearest earlier brainstorm call of the kind gave."""


class Assignment(Spec):
    """Draws the prompt of every row of a role."""

    role: Role
    seed: int
    mix: Mix
    tasks_per_topic: int = Field(1, ge=1)
    samples_per_task: int = Field(3, ge=1)
    prompts: RolePrompts

    @cached_property
    def _plan(self) -> Brainstormed:
        return Brainstormed(role=self.role, seed=self.seed, mix=self.mix)

    def brainstorm_rows(self, rows: int) -> int:
        """Rows of the brainstorm pool that the first `rows` rows need."""
        per_call = self.samples_per_task * self.tasks_per_topic
        counts = self.mix.counts(rows)
        last = [self._plan.row_of(kind, (counts[kind] - 1) // per_call) for kind in self._plan.kinds if counts[kind]]
        return max(last, default=-1) + 1

    def sample_index(self, row: int, attempt: int = 0) -> int:
        """Number of a row among those of its kind. It tells the journal that equal prompts are asked on purpose, and
        it stays when another mix puts the row elsewhere. Further attempts count on far behind all rows."""
        return self.mix.index_within_kind(row) + attempt * ATTEMPT

    def prompts_of(
        self, start: int, stop: int, tasks: Iterable[TaskList], topics: Sequence[str]
    ) -> Iterator[tuple[int, Prompt | None]]:
        """(row, prompt) for rows start..stop-1; None where the teacher gave no task for it. Arguments as `drafts`."""
        return ((draft.row, self.prompt(draft)) for draft in self.drafts(start, stop, tasks, topics))

    def prompt(self, draft: Draft, attempt: int = 0) -> Prompt | None:
        """The prompt of a row. Each further attempt draws its slots anew, and borrows a task where the row has none."""
        about = draft.about or (draft.spare if attempt else None)
        if about is None:
            return None
        index = self.mix.index_within_kind(draft.row)
        further = (attempt,) if attempt else ()
        rng = generator(self.seed, "prompt", self.role, draft.kind.value, index, *further)
        return data_prompt(draft.kind, about.task, about.topic, self.prompts.config, rng)

    def drafts(self, start: int, stop: int, tasks: Iterable[TaskList], topics: Sequence[str]) -> Iterator[Draft]:
        """What rows start..stop-1 are about.

        Args:
            tasks: the brainstorm pool's rows from 0, read once and in order.
            topics: every topic, in the order of the topics stage.
        """
        waiting: dict[Kind, deque[TaskList]] = defaultdict(deque)
        spares: dict[Kind, TaskList] = {}
        stream = iter(tasks)
        for row in range(start, stop):
            kind, index = self.mix.kind_of(row), self.mix.index_within_kind(row)
            if kind is Kind.STS:
                topic = topics[topic_index(index, len(topics), self.seed, self.role, kind)]
                yield Draft(row, kind, About(STS_INSTRUCTION, topic))
                continue
            call = index // (self.samples_per_task * self.tasks_per_topic)
            found = self._task_list(kind, call, waiting, spares, stream)
            yield Draft(row, kind, self._about(found, index), self._about(spares.get(kind), index))

    def _about(self, found: TaskList | None, index: int) -> About | None:
        """The task that a list holds for number `index` of its kind."""
        if found is None or not found.tasks:
            return None
        return About(
            found.tasks[(index // self.samples_per_task) % self.tasks_per_topic % len(found.tasks)], found.topic
        )

    def _task_list(
        self,
        kind: Kind,
        call: int,
        waiting: dict[Kind, deque[TaskList]],
        spares: dict[Kind, TaskList],
        stream: Iterator[TaskList],
    ) -> TaskList:
        """The list of a kind's n-th call; lists of other kinds read on the way wait for their turn. The last earlier
        one that has tasks stays as the kind's spare."""
        while True:
            while waiting[kind]:
                number = self._plan.kind_and_call(waiting[kind][0].row)[1]
                if number == call:
                    return waiting[kind][0]
                passed = waiting[kind].popleft()
                if passed.tasks:
                    spares[kind] = passed
            for found in stream:
                waiting[found.kind].append(found)
                if found.kind == kind:
                    break
            else:
                raise IndexError(f"no brainstorm row for call {call} of {kind}")
