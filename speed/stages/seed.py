"""Seed data: the little that the teacher itself writes (paper 3.2.1; 25K examples in Appendix B)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from speed.core.spec import Json
from speed.core.stage import Pool, Stage
from speed.core.work import Work
from speed.data.answers.accept_or_reject import accept_or_reject, counts_by_kind, figures_by_kind
from speed.data.answers.parse import parse_example
from speed.data.answers.schemas import example_form
from speed.data.assignment import Assignment, Draft, load_topics
from speed.data.costs.prices import EXPECTED_TOKENS
from speed.data.quality.guidelines import Guidelines
from speed.data.records import UNASKED, Kind, Prompt, Sample, TaskList, Topic
from speed.ports import Ask, Check, Teacher
from speed.runtime import Context
from speed.stages.asking import ask_in_order, readable


@dataclass(frozen=True)
class SeedData(Pool[Sample]):
    """One row, one prompt, one example by the teacher."""

    assignment: Assignment
    topics: Stage[Topic]
    tasks: Pool[TaskList]
    teacher: Teacher
    temperature: float
    max_tokens: dict[Kind, int]
    attempts: int
    """Candidates that a row may take; with more than one, exactly as many examples of each kind as rows, or a shortfall
    that the report tells."""
    guidelines: Guidelines

    name: ClassVar[str] = "seed data"
    row: ClassVar[type[Sample]] = Sample

    @property
    def label(self) -> str:
        """Seed data, unless the teacher writes the corpus itself."""
        return self.name if self.assignment.role == "seed" else f"{self.assignment.role} by the teacher"

    def rows_needed(self, upstream: str, rows: int) -> int:
        return self.assignment.brainstorm_rows(rows)

    def work(self, start: int, stop: int) -> Work:
        return self._candidates(stop - start)

    def work_at_most(self, start: int, stop: int) -> Work:
        return self._candidates(self.attempts * (stop - start))

    def _candidates(self, calls: int) -> Work:
        tokens_in, tokens_out = EXPECTED_TOKENS["seed"]
        return self.teacher.price(calls, tokens_in * calls, tokens_out * calls)

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return figures_by_kind(counts, self.attempts)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        topics = load_topics(ctx.folder(self.topics))
        tasks = ctx.rows(self.tasks.take(self.assignment.brainstorm_rows(stop)))
        drafts = self.assignment.drafts(start, stop, tasks, topics)
        rows = self._tried(drafts, 0, ctx) if self.attempts == 1 else self._settled(drafts, ctx)
        for done, row in enumerate(rows, 1):
            ctx.tally.counts.update(counts_by_kind(row, self.assignment.mix.kind_of(row.row)))
            yield row
            ctx.progress(done, stop - start, "calls")

    def _settled(self, drafts: Iterator[Draft], ctx: Context) -> Iterator[Sample]:
        """The rows of one block after another, each tried until a candidate is accepted or the attempts are spent."""
        while block := list(islice(drafts, self.block)):
            found: dict[int, Sample] = {}
            left = block
            for attempt in range(self.attempts):
                if left:
                    found.update((row.row, row) for row in self._tried(left, attempt, ctx))
                    left = [draft for draft in left if found[draft.row].rejected is not None]
            yield from (found[draft.row] for draft in block)

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
                made = made.noted(answer.detail)
            yield made.model_copy(update={"attempt": attempt}) if attempt else made

    def _request(self, row: int, prompt: Prompt | None, attempt: int) -> tuple[Ask, Check] | None:
        if prompt is None:
            return None
        kind, task = prompt.kind, prompt.task
        assert kind is not None
        ask = Ask(
            prompt=prompt.text,
            temperature=self.temperature,
            max_tokens=self.max_tokens[kind],
            purpose="seed",
            kind=kind,
            index=self.assignment.sample_index(row, attempt),
            form=example_form(kind),
        )
        return ask, readable(lambda text: parse_example(kind, task, text, "stop"))
