"""Tasks: the teacher brainstorms what embeddings could be used for, one topic a call (paper 3.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from speed.core.stage import Pool, Stage
from speed.core.work import Work
from speed.data.answers.parse import parse_tasks
from speed.data.answers.schemas import tasks_form
from speed.data.assignment import BrainstormPlan, drawn_tasks, load_topics
from speed.data.costs.call_tokens import call_tokens
from speed.data.draws import generator
from speed.data.prompts.rendering import RolePrompts, brainstorm_prompt
from speed.data.records import Prompt, Rejected, TaskList, Topic
from speed.data.topics.sources import topic_index
from speed.ports import Answer, Ask, Teacher
from speed.runtime import Context
from speed.stages.asking import ask_in_order, readable
from speed.stages.base import price_of

TASK = "(a task that the teacher has yet to think of)"


@dataclass(frozen=True)
class Tasks(Pool[TaskList]):
    """One row, one call: a topic, the teacher's list, and the tasks drawn from it."""

    plan: BrainstormPlan
    topics: Stage[Topic]
    teacher: Teacher
    prompts: RolePrompts
    request: int
    """Tasks asked for in a call."""
    tasks_per_topic: int
    """Tasks recorded of a call. An assignment that uses more of a topic draws them from the recorded answer."""
    temperature: float
    max_tokens: int

    name: ClassVar[str] = "tasks"
    row: ClassVar[type[TaskList]] = TaskList
    purpose: ClassVar[str] = "brainstorm"

    @property
    def label(self) -> str:
        return f"tasks for {self.plan.role}"

    def work(self, start: int, stop: int) -> Work:
        return price_of(
            self.teacher,
            self.purpose,
            stop - start,
            call_tokens(self.purpose, self.prompts.config, self.plan.mix, request=self.request),
        )

    def sample_rows(self, rows: int, ctx: Context) -> Iterator[TaskList]:
        built = list(ctx.rows(self.take(rows)))
        yield from built
        for row, prompt in self._prompts(len(built), rows, load_topics(ctx.folder(self.topics))):
            assert prompt.kind is not None
            yield TaskList(row=row, kind=prompt.kind, topic=prompt.topic, prompt=prompt, tasks=(TASK,))

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        """Those of seed data stand for all: other roles draw theirs in the same way."""
        if self.plan.role == "seed":
            yield from ((row.kind, row.prompt.text) for row in self.sample_rows(rows, ctx))

    def known_asks(self, start: int, stop: int, ctx: Context) -> Iterator[tuple[Teacher, Ask] | None]:
        prompts = self._prompts(start, stop, load_topics(ctx.folder(self.topics)))
        return ((self.teacher, self._ask(row, prompt)) for row, prompt in prompts)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[TaskList]:
        prompts = self._prompts(start, stop, load_topics(ctx.folder(self.topics)))
        check = readable(lambda text: parse_tasks(text, "stop"))
        requests = ((item, (self._ask(*item), check)) for item in prompts)
        for done, ((row, prompt), answer) in enumerate(ask_in_order(self.teacher, requests, ctx), 1):
            assert answer is not None
            yield self._row(row, prompt, answer, ctx)
            ctx.progress(done, stop - start, "calls")

    def _prompts(self, start: int, stop: int, topics: list[str]) -> Iterator[tuple[int, Prompt]]:
        """(row, prompt) for rows start..stop-1."""
        plan = self.plan
        for row in range(start, stop):
            kind, call = plan.kind_and_call(row)
            rng = generator(plan.seed, "brainstorm", plan.role, kind.value, call)
            topic = topics[topic_index(call, len(topics), plan.seed, plan.role, kind)]
            yield row, brainstorm_prompt(kind, topic, self.request, self.prompts.config, rng)

    def _ask(self, row: int, prompt: Prompt) -> Ask:
        return Ask(
            prompt=prompt.text,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            purpose=self.purpose,
            kind=prompt.kind,
            index=self.plan.kind_and_call(row)[1],
            form=tasks_form(),
        )

    def _row(self, row: int, prompt: Prompt, answer: Answer, ctx: Context) -> TaskList:
        assert prompt.kind is not None
        made = TaskList(row=row, kind=prompt.kind, topic=prompt.topic, prompt=prompt, answer=answer.text)
        if answer.cause != "ok":
            return made.reject(answer.cause, answer.detail)
        found = parse_tasks(answer.text, answer.finish_reason, ctx.tally.counts)
        if isinstance(found, Rejected):
            return made.reject(found.cause, found.detail)
        kept = drawn_tasks(answer.text, self.tasks_per_topic, self.plan.seed, self.plan.role, row)
        return made.model_copy(update={"tasks": kept}).with_remark(answer.detail)
