"""Root data: the junior answers each prompt K times, for the teacher to judge (paper 3.2.3; K = 5 in Figure 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from speed.core.stage import Stage
from speed.core.work import Work
from speed.data.answers.schemas import example_form
from speed.data.records import UNASKED, Candidates, Prompt
from speed.ports import Generate, Generated, Weights
from speed.runtime import Context
from speed.stages.base import AssignedPool, GeneratingPool
from speed.stages.generating import generate_in_order, request_seed

ANSWER = "(answer {} of the junior, which is yet to be trained)"


@dataclass(frozen=True, kw_only=True)
class RootData(AssignedPool[Candidates], GeneratingPool[Candidates]):
    """One row, one prompt, K answers."""

    junior: Stage[Weights]
    candidates: int

    name: ClassVar[str] = "root data"
    row: ClassVar[type[Candidates]] = Candidates

    @property
    def label(self) -> str:
        return self.name + self.assignment.role.removeprefix("root")

    def work(self, start: int, stop: int) -> Work:
        return Work(generated=(stop - start) * self.candidates)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Candidates]:
        drafts = self.drafts(start, stop, ctx)
        prompts = ((draft.row, self.assignment.prompt(draft)) for draft in drafts)
        items = (((row, prompt), self._request(row, prompt) if prompt else None) for row, prompt in prompts)
        written = generate_in_order(self.engine, ctx.folder(self.junior), items, self.sampling, ctx)
        for done, ((row, prompt), texts) in enumerate(written, 1):
            yield _list(row, prompt, texts)
            ctx.progress(done, stop - start, "lists")

    def stand_in(self, row: int, prompt: Prompt) -> Candidates:
        texts = tuple(map(ANSWER.format, range(self.candidates)))
        return Candidates(row=row, prompt=prompt, texts=texts, finish_reasons=("stop",) * self.candidates)

    def _request(self, row: int, prompt: Prompt) -> Generate:
        assert prompt.kind is not None
        return Generate(
            key=str(row),
            prompt=prompt.text,
            seed=request_seed(self.seed, self.name, row),
            n=self.candidates,
            max_tokens=self.max_tokens[prompt.kind],
            form=example_form(prompt.kind, prompt.ground is not None),
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
