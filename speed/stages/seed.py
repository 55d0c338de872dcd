"""Seed data: the little that the teacher itself writes (paper 3.2.1; 25K examples in Appendix B)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from speed.core.context import Context
from speed.core.stage import Pool, Stage, Work
from speed.data.assignment import Assignment, load_topics
from speed.data.cost import EXPECTED_TOKENS
from speed.data.outcome import sample
from speed.data.parse import example as read_example
from speed.data.records import Kind, Prompt, Rejected, Sample, TaskList, Topic
from speed.ports import Ask, Check, Teacher, in_step


@dataclass(frozen=True)
class SeedData(Pool[Sample]):
    """One row, one prompt, one example by the teacher."""

    assignment: Assignment
    topics: Stage[Topic]
    tasks: Pool[TaskList]
    teacher: Teacher
    temperature: float
    max_tokens: dict[Kind, int]

    name: ClassVar[str] = "seed data"
    row: ClassVar[type[Sample]] = Sample

    def rows_needed(self, upstream: str, rows: int) -> int:
        return self.assignment.brainstorm_rows(rows)

    def work(self, start: int, stop: int) -> Work:
        tokens_in, tokens_out = EXPECTED_TOKENS["seed"]
        return self.teacher.price(stop - start, tokens_in * (stop - start), tokens_out * (stop - start))

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        topics = load_topics(ctx.folder(self.topics))
        tasks = ctx.rows(self.tasks.take(self.assignment.brainstorm_rows(stop)))
        prompts = self.assignment.prompts_of(start, stop, tasks, topics)
        requests = ((item, self._request(*item)) for item in prompts)
        for done, ((row, prompt), answer) in enumerate(in_step(self.teacher, requests, ctx), 1):
            if prompt is None or answer is None:
                yield Sample(row=row, prompt=Prompt(text="", template="")).turned_away("no_task")
            elif answer.cause != "ok":
                yield Sample(row=row, prompt=prompt, text=answer.text).turned_away(answer.cause, answer.detail)
            else:
                made = sample(row, prompt, answer.text, answer.finish_reason, answer.tokens_out)
                yield made.noted(answer.detail)
            ctx.progress(done, stop - start, "calls")

    def _request(self, row: int, prompt: Prompt | None) -> tuple[Ask, Check] | None:
        if prompt is None:
            return None
        kind, task = prompt.kind, prompt.task
        assert kind is not None

        def fault(text: str) -> str | None:
            found = read_example(kind, task, text, "stop")
            return found.cause if isinstance(found, Rejected) else None

        ask = Ask(
            prompt=prompt.text,
            temperature=self.temperature,
            max_tokens=self.max_tokens[kind],
            purpose="seed",
            kind=kind,
            index=self.assignment.sample_index(row),
        )
        return ask, fault
