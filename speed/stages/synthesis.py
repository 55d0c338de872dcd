"""Synthesis: the aligned small model writes examples at scale (paper 3.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from speed.core.spec import Json
from speed.core.stage import Pool, Stage
from speed.core.work import Work
from speed.data.answers.accept_or_reject import accept_or_reject, counts_by_kind, figures_by_kind
from speed.data.answers.schemas import example_form
from speed.data.assignment import Assignment, Draft, load_topics
from speed.data.quality.guidelines import Guidelines
from speed.data.records import UNASKED, Kind, Prompt, Sample, TaskList, Topic
from speed.ports import Engine, Generate, Generated, Sampling, Weights
from speed.runtime import Context, Runtime
from speed.stages.asking import request_seed


@dataclass(frozen=True)
class Synthesis(Pool[Sample]):
    """One row, one prompt, one example by the senior (or the junior, in ablations)."""

    writer: Stage[Weights]
    assignment: Assignment
    topics: Stage[Topic]
    tasks: Pool[TaskList]
    engine: Engine
    sampling: Sampling
    max_tokens: dict[Kind, int]
    seed: int
    attempts: int
    """Candidates that a row may take; with more than one, exactly as many examples of each kind as rows, or a shortfall
    that the report tells."""
    guidelines: Guidelines

    name: ClassVar[str] = "synthesis"
    row: ClassVar[type[Sample]] = Sample
    whole_blocks: ClassVar[bool] = True

    @property
    def block(self) -> int:
        return self.engine.block

    def rows_needed(self, upstream: str, rows: int) -> int:
        return self.assignment.brainstorm_rows(rows)

    def divisible(self, runtime: Runtime) -> bool:
        return self.engine.divisible(runtime)

    def work(self, start: int, stop: int) -> Work:
        return Work(generated=stop - start)

    def work_at_most(self, start: int, stop: int) -> Work:
        return Work(generated=self.attempts * (stop - start))

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return figures_by_kind(counts, self.attempts)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        topics = load_topics(ctx.folder(self.topics))
        tasks = ctx.rows(self.tasks.take(self.assignment.brainstorm_rows(stop)))
        drafts = self.assignment.drafts(start, stop, tasks, topics)
        asked: deque[tuple[list[Draft], list[tuple[Draft, Prompt | None]], int]] = deque()
        found: dict[int, Sample] = {}

        def calls() -> Iterator[list[Generate]]:
            """A block, then what is left of it after each attempt; the engine has answered one call before the next."""
            for _ in range(start, stop, self.block):
                found.clear()
                block = left = list(islice(drafts, self.block))
                for attempt in range(self.attempts):
                    left = [draft for draft in left if attempt == 0 or found[draft.row].rejected is not None]
                    if left:
                        prompts = [(draft, self.assignment.prompt(draft, attempt)) for draft in left]
                        asked.append((block, prompts, attempt))
                        yield [self._request(draft, prompt, attempt) for draft, prompt in prompts if prompt]

        done = 0
        for texts in self.engine.generate(ctx.folder(self.writer), calls(), self.sampling, ctx):
            block, tried, attempt = asked.popleft()
            by_row = {text.key: text for text in texts}
            ctx.tally.cost["generated_tokens"] += sum(text.tokens for text in texts)
            for draft, prompt in tried:
                found[draft.row] = self._row(draft.row, prompt, attempt, by_row.get(str(draft.row)))
            if attempt + 1 < self.attempts and any(found[draft.row].rejected is not None for draft, _ in tried):
                continue
            for draft in block:
                ctx.tally.counts.update(counts_by_kind(found[draft.row], draft.kind))
                yield found[draft.row]
            done += len(block)
            ctx.progress(done, stop - start, "examples")

    def _request(self, draft: Draft, prompt: Prompt, attempt: int) -> Generate:
        return Generate(
            key=str(draft.row),
            prompt=prompt.text,
            seed=request_seed(self.seed, self.name, draft.row, attempt),
            max_tokens=self.max_tokens[draft.kind],
            form=example_form(draft.kind),
        )

    def _row(self, row: int, prompt: Prompt | None, attempt: int, text: Generated | None) -> Sample:
        if prompt is None or text is None:
            made = Sample(row=row, prompt=UNASKED).reject("no_task")
        else:
            made = accept_or_reject(row, prompt, text.text, text.finish_reason, text.tokens, self.guidelines)
        return made.model_copy(update={"attempt": attempt}) if attempt else made
