"""Revision data: the teacher repairs root answers, for the revisor to learn from (paper 3.2.4, Figure 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from speed.core.spec import Json
from speed.core.stage import Pool
from speed.core.work import Work
from speed.data.answers.parse import example_json, parse_example, parse_revision
from speed.data.answers.schemas import revision_form
from speed.data.draws import generator
from speed.data.prompts.rendering import RolePrompts, revise_prompt
from speed.data.quality import edits
from speed.data.quality.guidelines import Guidelines, faults
from speed.data.records import Candidates, Rejected, RevisedAnswer
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context
from speed.stages.asking import ask_in_order, readable
from speed.stages.base import price_of, tokens_about


@dataclass(frozen=True)
class RevisionData(Pool[RevisedAnswer]):
    """One row, one list, one of its answers repaired: any one, not only the best, so that flaws are seen."""

    root: Pool[Candidates]
    teacher: Teacher
    prompts: RolePrompts
    temperature: float
    max_tokens: int
    seed: int
    guidelines: Guidelines

    name: ClassVar[str] = "revisions"
    row: ClassVar[type[RevisedAnswer]] = RevisedAnswer
    purpose: ClassVar[str] = "revise"

    def work(self, start: int, stop: int) -> Work:
        return price_of(self.teacher, self.purpose, stop - start, tokens_about(self.root, self.purpose))

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        built = list(ctx.rows(self.take(rows)))
        drawn = built or map(self._drawn, self.root.sample_rows(rows, ctx))
        return ((row.prompt.kind, row.revise_prompt) for row in drawn if row.prompt.kind and row.revise_prompt)

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return edits.figures(counts)

    def known_asks(self, start: int, stop: int, ctx: Context) -> Iterator[tuple[Teacher, Ask] | None]:
        for drawn in map(self._drawn, ctx.rows(self.root.take(stop), start)):
            request = self._request(drawn)
            yield None if request is None else (self.teacher, request[0])

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[RevisedAnswer]:
        drawn_rows = map(self._drawn, ctx.rows(self.root.take(stop), start))
        requests = ((drawn, self._request(drawn)) for drawn in drawn_rows)
        for done, (drawn, answer) in enumerate(ask_in_order(self.teacher, requests, ctx), 1):
            yield self._row(drawn, answer, ctx)
            ctx.progress(done, stop - start, "revisions")

    def _drawn(self, found: Candidates) -> RevisedAnswer:
        if found.rejected is not None or not found.texts:
            return RevisedAnswer(row=found.row, prompt=found.prompt).reject(found.rejected or "no_candidates")
        place = int(generator(self.seed, "revise", found.row).random() * len(found.texts))
        original = found.texts[place]
        text = revise_prompt(found.prompt.text, original, self.prompts.config).text
        return RevisedAnswer(row=found.row, prompt=found.prompt, original=original, revise_prompt=text)

    def _request(self, drawn: RevisedAnswer) -> tuple[Ask, Check] | None:
        kind, task, ground = drawn.prompt.kind, drawn.prompt.task, drawn.prompt.ground
        if drawn.rejected is not None or kind is None:
            return None
        ask = Ask(
            prompt=drawn.revise_prompt,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            purpose=self.purpose,
            kind=kind,
            index=drawn.row,
            form=revision_form(kind, ground is not None),
        )
        return ask, readable(lambda text: parse_revision(kind, task, text, "stop", ground=ground))

    def _row(self, drawn: RevisedAnswer, answer: Answer | None, ctx: Context) -> RevisedAnswer:
        if answer is None:
            return drawn
        drawn = drawn.model_copy(update={"answer": answer.text})
        if answer.cause != "ok":
            return drawn.reject(answer.cause, answer.detail)
        kind, task, ground = drawn.prompt.kind, drawn.prompt.task, drawn.prompt.ground
        assert kind is not None
        found = parse_revision(kind, task, answer.text, answer.finish_reason, ctx.tally.counts, ground)
        if isinstance(found, Rejected):
            return drawn.reject(found.cause, found.detail)
        reason, example = found
        drawn = drawn.model_copy(update={"reason": reason, "revision": example_json(example)})
        broken = (fault for fault in faults(example, drawn.prompt) if self.guidelines.drops(fault.cause))
        if dropped := next(broken, None):
            return drawn.reject(dropped.cause, dropped.detail)
        before = parse_example(kind, task, drawn.original, "stop", ground=ground)
        ctx.tally.counts.update(edits.counts(None if isinstance(before, Rejected) else before, example))
        return drawn.with_remark(answer.detail)
