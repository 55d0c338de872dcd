"""Root data: the junior answers each prompt K times, for the teacher to judge (paper 3.2.2; K = 5 in Figure 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from speed.core.stage import Pool, Stage
from speed.core.work import Work
from speed.data.answers.schemas import example_form
from speed.data.assignment import Assignment, load_topics
from speed.data.records import UNASKED, Candidates, Kind, Prompt, TaskList, Topic
from speed.ports import Engine, Generate, Generated, Sampling, Weights
from speed.runtime import Context, Runtime
from speed.stages.asking import generate_in_order, request_seed


@dataclass(frozen=True)
class RootData(Pool[Candidates]):
    """One row, one prompt, K answers."""

    junior: Stage[Weights]
    assignment: Assignment
    topics: Stage[Topic]
    tasks: Pool[TaskList]
    engine: Engine
    sampling: Sampling
    candidates: int
    max_tokens: dict[Kind, int]
    seed: int

    name: ClassVar[str] = "root data"
    row: ClassVar[type[Candidates]] = Candidates
    whole_blocks: ClassVar[bool] = True

    @property
    def block(self) -> int:
        return self.engine.block

    def rows_needed(self, upstream: str, rows: int) -> int:
        return self.assignment.brainstorm_rows(rows)

    def divisible(self, runtime: Runtime) -> bool:
        return self.engine.divisible(runtime)

    def work(self, start: int, stop: int) -> Work:
        return Work(generated=(stop - start) * self.candidates)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Candidates]:
        topics = load_topics(ctx.folder(self.topics))
        tasks = ctx.rows(self.tasks.take(self.assignment.brainstorm_rows(stop)))
        prompts = self.assignment.prompts_of(start, stop, tasks, topics)
        items = (((row, prompt), self._request(row, prompt) if prompt else None) for row, prompt in prompts)
        written = generate_in_order(self.engine, ctx.folder(self.junior), items, self.sampling, ctx)
        for done, ((row, prompt), texts) in enumerate(written, 1):
            yield _list(row, prompt, texts)
            ctx.progress(done, stop - start, "lists")

    def _request(self, row: int, prompt: Prompt) -> Generate:
        assert prompt.kind is not None
        return Generate(
            key=str(row),
            prompt=prompt.text,
            seed=request_seed(self.seed, self.name, row),
            n=self.candidates,
            max_tokens=self.max_tokens[prompt.kind],
            form=example_form(prompt.kind),
        )


def _list(row: int, prompt: Prompt | None, texts: Sequence[Generated]) -> Candidates:
    if prompt is None:
        return Candidates(row=row, prompt=UNASKED).reject("no_task")
    return Candidates(
        row=row,
        prompt=prompt,
        texts=tuple(text.text for text in texts),
        finish_reasons=tuple(text.finish_reason for text in texts),
    )
