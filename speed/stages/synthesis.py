"""Synthesis: the aligned small model writes examples at scale (paper 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee
from typing import ClassVar

from speed.core.context import Context
from speed.core.stage import Pool, Stage, Work
from speed.data.assignment import Assignment, load_topics
from speed.data.outcome import sample
from speed.data.records import Kind, Prompt, Sample, TaskList, Topic
from speed.ports import Engine, Generate, Sampling, Weights, request_seed


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

    name: ClassVar[str] = "synthesis"
    row: ClassVar[type[Sample]] = Sample
    whole_blocks: ClassVar[bool] = True

    @property
    def block(self) -> int:
        return self.engine.block

    def rows_needed(self, upstream: str, rows: int) -> int:
        return self.assignment.brainstorm_rows(rows)

    def work(self, start: int, stop: int) -> Work:
        return Work(generated=stop - start)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        topics = load_topics(ctx.folder(self.topics))
        tasks = ctx.rows(self.tasks.take(self.assignment.brainstorm_rows(stop)))
        prompts = self.assignment.prompts_of(start, stop, tasks, topics)
        given, kept = tee([next(prompts) for _ in range(self.block)] for _ in range(start, stop, self.block))
        requests = ([self._request(row, prompt) for row, prompt in block if prompt] for block in given)
        answers = self.engine.generate(ctx.folder(self.writer), requests, self.sampling, ctx)
        for done, (block, texts) in enumerate(zip(kept, answers, strict=True), 1):
            by_row = {text.key: text for text in texts}
            ctx.tally.cost["generated_tokens"] += sum(text.tokens for text in texts)
            for row, prompt in block:
                if prompt is None:
                    yield Sample(row=row, prompt=Prompt(text="", template="")).turned_away("no_task")
                else:
                    text = by_row[str(row)]
                    yield sample(row, prompt, text.text, text.finish_reason, text.tokens)
            ctx.progress(done * self.block, stop - start, "examples")

    def _request(self, row: int, prompt: Prompt) -> Generate:
        assert prompt.kind is not None
        return Generate(
            key=str(row),
            prompt=prompt.text,
            seed=request_seed(self.seed, self.name, row),
            max_tokens=self.max_tokens[prompt.kind],
        )
