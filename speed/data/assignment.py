"""Assign a kind, a topic, a task and a prompt to every row. Diversity is defined here and nowhere else.

Seed data, root data (of each round) and synthesis are roles. Each draws topics and tasks of its own, because the junior
must not be judged on the tasks that it was taught. Row i of a role has the kind that the mix gives it, and is number j
of that kind. `samples_per_task` consecutive j share a task; `tasks_per_topic` consecutive tasks share a topic and a
brainstorm call (paper, Table 3: fewer tasks per topic are better).
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from pydantic import Field

from speed.core.spec import Json, Spec, fields_of
from speed.data.answers.parse import parse_tasks
from speed.data.draws import generator, permutation
from speed.data.mix import Mix
from speed.data.prompts.rendering import RolePrompts, data_prompt, query_prompt
from speed.data.records import STS_INSTRUCTION, UNASKED, Ground, Kind, Passage, Prompt, Rejected, TaskList
from speed.data.topics.documents import PASSAGES, Library
from speed.data.topics.sources import topic_index

Role: TypeAlias = Literal["seed", "root", "root 2", "root 3", "synthesis"]
ROUNDS: tuple[Role, ...] = ("root", "root 2", "root 3")
"""Roles of the root data that seniors are trained on, one after the other."""


class BrainstormPlan(Spec):
    """Kind of each brainstorm row: the mix without STS, whose task is fixed."""

    role: Role
    seed: int
    mix: Mix

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds whose tasks are brainstormed."""
        return tuple(kind for kind in self.mix.kinds if kind is not Kind.STS)

    @cached_property
    def asked(self) -> Mix:
        """Mix of the brainstorm calls."""
        return self.mix.only(*self.kinds)

    def kind_and_call(self, row: int) -> tuple[Kind, int]:
        """Kind of a row, and the number of its call within that kind."""
        return self.asked.kind_of(row), self.asked.index_within_kind(row)

    def row_of(self, kind: Kind, call: int) -> int:
        """Row of the call number `call` of a kind."""
        return self.asked.row_of(kind, call)


class TopicList(list[str]):
    """Topics in order, and the passages that queries are written for, where topics are of documents."""

    library: Library | None = None


@lru_cache(maxsize=1)
def load_topics(folder: Path) -> TopicList:
    """What the topics stage wrote, in its order; read once, since the name of its folder is that of the content."""
    with (folder / "topics.jsonl").open(encoding="utf-8") as file:
        topics = TopicList(json.loads(line)["topic"] for line in file)
    if (folder / PASSAGES).is_file():
        topics.library = Library([passage for passage in load_passages(folder) if not passage.held_out])
    return topics


def load_passages(folder: Path) -> list[Passage]:
    """Read all passages that the topics stage wrote, in its order."""
    with (folder / PASSAGES).open(encoding="utf-8") as file:
        return [Passage.model_validate_json(line) for line in file]


@lru_cache(maxsize=1024)
def drawn_tasks(answer: str, count: int, seed: int, role: Role, row: int) -> tuple[str, ...]:
    """The first `count` tasks of a teacher's list in drawn order; none of an answer that is no list."""
    found = parse_tasks(answer, "stop")
    if isinstance(found, Rejected):
        return ()
    order = permutation(generator(seed, "tasks kept", role, row), len(found))
    return tuple(found[place] for place in order[:count])


UNKNOWN = "(not known yet)"
"""A task that has yet to be brainstormed."""
ATTEMPT = 10**9
"""Distance between the sample indices of two attempts: more than any pool has rows."""


TaskRows: TypeAlias = Callable[[int], Iterable[TaskList]]
"""The rows of a brainstorm pool from one on, in order."""
LOOKED_BACK = 64
"""Rows that are read at first in search of an earlier list."""


class About(NamedTuple):
    """The task and topic that an example is written for."""

    task: str
    topic: str


class Draft(NamedTuple):
    """A row whose prompt is not drawn yet."""

    row: int
    kind: Kind
    about: About | None
    """None if the teacher gave no task."""
    spare: About | None = None
    """Task of the nearest earlier brainstorm call of the kind that gave one, where the row has none."""
    ground: Ground | None = None
    """The passage that a query is to be written for, where topics are of documents; with `about`."""
    spare_ground: Ground | None = None
    """The same with `spare`."""


class Assignment(Spec):
    """The prompts of all rows of a role."""

    role: Role
    seed: int
    mix: Mix
    tasks_per_topic: int = Field(1, ge=1)
    samples_per_task: int = Field(3, ge=1)
    prompts: RolePrompts
    grounded: RolePrompts | None = None
    """Prompts for queries of real passages, where topics are of the user's own documents; in keys only then."""

    def recipe(self) -> Json:
        """Identity: all fields that are in use."""
        return {name: value for name, value in fields_of(self).items() if name != "grounded" or value is not None}

    @cached_property
    def _plan(self) -> BrainstormPlan:
        return BrainstormPlan(role=self.role, seed=self.seed, mix=self.mix)

    def brainstorm_rows(self, rows: int) -> int:
        """Number of brainstorm rows that the first `rows` rows need."""
        counts = self.mix.counts(rows)
        asked = [kind for kind in self._plan.kinds if counts[kind]]
        last = [self._plan.row_of(kind, (counts[kind] - 1) // self._rows_a_call) for kind in asked]
        return max(last, default=-1) + 1

    def sample_index(self, row: int, attempt: int = 0) -> int:
        """Number of a row within its kind, by which the journal tells two requests with equal prompts apart.

        It stays the same if another mix moves the row. Further attempts get numbers far beyond those of all rows.
        """
        return self.mix.index_within_kind(row) + attempt * ATTEMPT

    def prompts_of(
        self, start: int, stop: int, tasks: TaskRows, topics: Sequence[str]
    ) -> Iterator[tuple[int, Prompt | None]]:
        """(row, prompt) of rows start..stop-1; no prompt if the teacher gave no task. Arguments: see `drafts`."""
        return ((draft.row, self.prompt(draft)) for draft in self.drafts(start, stop, tasks, topics))

    def known_prompts(
        self, start: int, stop: int, tasks: TaskRows, topics: Sequence[str]
    ) -> Iterator[tuple[int, Prompt | None]]:
        """The same without rows whose task is not there yet, since the brainstorm pool ends early."""
        rows = self.brainstorm_rows(stop)
        for draft in self.drafts(start, stop, lambda first: self._padded(tasks(first), first, rows), topics):
            if draft.about is None or draft.about.task != UNKNOWN:
                yield draft.row, self.prompt(draft)

    def _padded(self, tasks: Iterable[TaskList], first: int, rows: int) -> Iterator[TaskList]:
        """Some lists from a row on, and unknown ones up to so many rows."""
        built = first
        for listed in tasks:
            yield listed
            built = listed.row + 1
        for row in range(built, rows):
            kind, _ = self._plan.kind_and_call(row)
            yield TaskList(row=row, kind=kind, topic="", prompt=UNASKED, tasks=(UNKNOWN,))

    def prompt(self, draft: Draft, attempt: int = 0) -> Prompt | None:
        """Prompt of a row. Each further attempt draws other slots, and borrows a task if the row has none."""
        about, ground = draft.about, draft.ground
        if about is None and attempt:
            about, ground = draft.spare, draft.spare_ground
        if about is None:
            return None
        index = self.mix.index_within_kind(draft.row)
        further = (attempt,) if attempt else ()
        rng = generator(self.seed, "prompt", self.role, draft.kind.value, index, *further)
        if ground is not None and self.grounded is not None:
            return query_prompt(about.task, about.topic, ground, self.grounded.config, rng)
        return data_prompt(draft.kind, about.task, about.topic, self.prompts.config, rng)

    def drafts(self, start: int, stop: int, tasks: TaskRows, topics: Sequence[str]) -> Iterator[Draft]:
        """Kind, task and topic of rows start..stop-1.

        Args:
            tasks: of the brainstorm pool; read once, from the first row on that these rows need, so that a block costs
                the same wherever it lies. Where a list has no tasks, earlier rows are looked at as well.
            topics: all topics, in the order of the topics stage.
        """
        waiting: dict[Kind, deque[TaskList]] = defaultdict(deque)
        spares: dict[Kind, TaskList | None] = {}
        first = self._first_brainstorm_row(start, stop)
        stream = iter(tasks(first))
        for row in range(start, stop):
            kind, index = self.mix.kind_of(row), self.mix.index_within_kind(row)
            if kind is Kind.STS:
                topic = topics[topic_index(index, len(topics), self.seed, self.role, kind)]
                yield Draft(row, kind, About(STS_INSTRUCTION, topic))
                continue
            listed = self._task_list(kind, index // self._rows_a_call, waiting, spares, stream)
            library = getattr(topics, "library", None) if kind is Kind.RETRIEVAL else None
            about, spare = self._about(listed, index), None
            if about is None:
                if kind not in spares:
                    spares[kind] = _last_before(first, kind, tasks)
                spare = self._about(spares[kind], index)
            grounds = (
                None if library is None or each is None else library.ground(each.topic, self.seed, self.role, index)
                for each in (about, spare)
            )
            yield Draft(row, kind, about, spare, *grounds)

    @property
    def _rows_a_call(self) -> int:
        """Rows of a kind that one brainstorm call is for."""
        return self.samples_per_task * self.tasks_per_topic

    def _first_brainstorm_row(self, start: int, stop: int) -> int:
        """The first row of the brainstorm pool that rows start..stop-1 need; 0 where they need none."""
        before, after = self.mix.counts(start), self.mix.counts(stop)
        asked = [kind for kind in self._plan.kinds if after[kind] > before[kind]]
        return min((self._plan.row_of(kind, before[kind] // self._rows_a_call) for kind in asked), default=0)

    def _about(self, listed: TaskList | None, index: int) -> About | None:
        """The task of a list that belongs to number `index` of its kind."""
        if listed is None or not listed.tasks:
            return None
        tasks = listed.tasks
        if self.tasks_per_topic > len(tasks):
            tasks = drawn_tasks(listed.answer, self.tasks_per_topic, self.seed, self.role, listed.row) or tasks
        place = (index // self.samples_per_task) % self.tasks_per_topic % len(tasks)
        return About(tasks[place], listed.topic)

    def _task_list(
        self,
        kind: Kind,
        call: int,
        waiting: dict[Kind, deque[TaskList]],
        spares: dict[Kind, TaskList | None],
        stream: Iterator[TaskList],
    ) -> TaskList:
        """Task list of a call.

        Lists of other kinds that are read on the way are put into `waiting`. The last earlier list that has tasks
        becomes the spare of the kind.
        """
        while True:
            while waiting[kind]:
                number = self._plan.kind_and_call(waiting[kind][0].row)[1]
                if number == call:
                    return waiting[kind][0]
                passed = waiting[kind].popleft()
                if passed.tasks:
                    spares[kind] = passed
            for listed in stream:
                waiting[listed.kind].append(listed)
                if listed.kind == kind:
                    break
            else:
                raise IndexError(f"no brainstorm row for call {call} of {kind}")


def _last_before(row: int, kind: Kind, tasks: TaskRows) -> TaskList | None:
    """The last list of a kind with tasks before a row of the brainstorm pool; None where no earlier one has any."""
    found, width = None, LOOKED_BACK
    while row and found is None:
        begin = max(0, row - width)
        for listed in islice(tasks(begin), row - begin):
            if listed.kind is kind and listed.tasks:
                found = listed
        row, width = begin, 2 * width
    return found
