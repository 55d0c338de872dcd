"""Seed data: what the teacher itself writes (paper 3.2.2; 25K examples in Appendix B).

The corpus of the baseline that GPT-4o writes (4.1) is more rows of the same pool, as the paper samples its seed data
from that corpus (C.2): whoever has bought one has paid for its share of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from speed.core.work import Work
from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.answers.parse import parse_example
from speed.data.answers.schemas import example_form
from speed.data.assignment import Draft, load_topics
from speed.data.records import UNASKED, Kind, Prompt, Sample
from speed.ports import Ask, Check, Teacher
from speed.runtime import Context
from speed.stages.asking import ask_in_order, readable
from speed.stages.base import ExamplePool, price_of, tokens_about


@dataclass(frozen=True, kw_only=True)
class SeedData(ExamplePool):
    """One row, one prompt, one example by the teacher."""

    teacher: Teacher
    temperature: float
    max_tokens: dict[Kind, int]

    name: ClassVar[str] = "seed data"
    purpose: ClassVar[str] = "seed"
    unit: ClassVar[str] = "calls"

    def work(self, start: int, stop: int) -> Work:
        return price_of(self.teacher, self.purpose, stop - start, tokens_about(self, self.purpose))

    def work_at_most(self, start: int, stop: int) -> Work:
        return price_of(self.teacher, self.purpose, self.attempts * (stop - start), tokens_about(self, self.purpose))

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        return ((row.prompt.kind, row.prompt.text) for row in self.sample_rows(rows, ctx) if row.prompt.kind)

    def known_asks(self, start: int, stop: int, ctx: Context) -> Iterator[tuple[Teacher, Ask] | None]:
        tasks, topics = self.task_rows(stop, ctx), load_topics(ctx.folder(self.topics))
        for row, prompt in self.assignment.known_prompts(start, stop, tasks, topics):
            request = self._request(row, prompt, 0)
            yield None if request is None else (self.teacher, request[0])

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        drafts = self.drafts(start, stop, ctx)

        def attempt(some: Iterable[Draft], number: int) -> Iterator[Sample]:
            return self._tried(some, number, ctx)

        if self.attempts == 1:
            return self.counted(attempt(drafts, 0), stop - start, ctx)
        rows = self.try_until_accepted(drafts, attempt, stop - start, ctx, self.teacher.reads_ahead)
        return self.counted(rows, stop - start, ctx)

    def _tried(self, drafts: Iterable[Draft], attempt: int, ctx: Context) -> Iterator[Sample]:
        """One candidate for each row."""
        prompts = ((draft.row, self.assignment.prompt(draft, attempt)) for draft in drafts)
        requests = (((row, prompt), self._request(row, prompt, attempt)) for row, prompt in prompts)
        for (row, prompt), answer in ask_in_order(self.teacher, requests, ctx):
            if prompt is None or answer is None:
                made = Sample(row=row, prompt=UNASKED).reject("no_task")
            elif answer.cause != "ok":
                made = Sample(row=row, prompt=prompt, text=answer.text).reject(answer.cause, answer.detail)
            else:
                made = accept_or_reject(
                    row, prompt, answer.text, answer.finish_reason, answer.tokens_out, self.guidelines
                )
                made = made.with_remark(answer.detail)
            yield made.model_copy(update={"attempt": attempt}) if attempt else made

    def _request(self, row: int, prompt: Prompt | None, attempt: int) -> tuple[Ask, Check] | None:
        if prompt is None:
            return None
        kind, task, ground = prompt.kind, prompt.task, prompt.ground
        assert kind is not None
        ask = Ask(
            prompt=prompt.text,
            temperature=self.temperature,
            max_tokens=self.max_tokens[kind],
            purpose=self.purpose,
            kind=kind,
            index=self.assignment.sample_index(row, attempt),
            form=example_form(kind, prompt.ground is not None),
        )
        return ask, readable(lambda text: parse_example(kind, task, text, "stop", ground=ground))
