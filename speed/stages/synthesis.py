"""Synthesis: the aligned small model writes examples at scale (paper 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from speed.core.stage import Stage
from speed.core.work import Work
from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.answers.schemas import example_form
from speed.data.assignment import Draft
from speed.data.records import UNASKED, Prompt, Sample
from speed.ports import Generate, Generated, Weights
from speed.runtime import Context
from speed.stages.base import ExamplePool, GeneratingPool
from speed.stages.generating import Write, request_seed, writing


@dataclass(frozen=True, kw_only=True)
class Synthesis(ExamplePool, GeneratingPool[Sample]):
    """One row, one prompt, one example by the senior (or the junior, in ablations)."""

    writer: Stage[Weights]

    name: ClassVar[str] = "synthesis"

    def work(self, start: int, stop: int) -> Work:
        return Work(generated=stop - start)

    def work_at_most(self, start: int, stop: int) -> Work:
        return Work(generated=self.attempts * (stop - start))

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        drafts = self.drafts(start, stop, ctx)
        with writing(self.engine, ctx.folder(self.writer), self.sampling, ctx) as write:
            count = stop - start
            rows = self.try_until_accepted(drafts, lambda some, attempt: self._tried(some, attempt, write), count, ctx)
            yield from self.counted(rows, count, ctx)

    def _tried(self, drafts: list[Draft], attempt: int, write: Write) -> list[Sample]:
        """One candidate for each row."""
        prompts = {draft: self.assignment.prompt(draft, attempt) for draft in drafts}
        texts = write([self._request(draft, prompt, attempt) for draft, prompt in prompts.items() if prompt])
        by_row = {int(text.key): text for text in texts}
        return [self._row(draft.row, prompt, attempt, by_row.get(draft.row)) for draft, prompt in prompts.items()]

    def _request(self, draft: Draft, prompt: Prompt, attempt: int) -> Generate:
        return Generate(
            key=str(draft.row),
            prompt=prompt.text,
            seed=request_seed(self.seed, self.name, draft.row, attempt),
            max_tokens=self.max_tokens[draft.kind],
            form=example_form(draft.kind, prompt.ground is not None),
        )

    def _row(self, row: int, prompt: Prompt | None, attempt: int, text: Generated | None) -> Sample:
        if prompt is None or text is None:
            made = Sample(row=row, prompt=UNASKED).reject("no_task")
        else:
            made = accept_or_reject(row, prompt, text.text, text.finish_reason, text.tokens, self.guidelines)
        return made.model_copy(update={"attempt": attempt}) if attempt else made
