"""Revision pass: the revisor repairs what the senior wrote (paper 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from speed.core.spec import Json
from speed.core.stage import Pool, Stage
from speed.core.work import Work
from speed.data.answers.parse import parse_revision
from speed.data.prompts.rendering import RolePrompts, revise_prompt
from speed.data.quality import edits
from speed.data.quality.guidelines import Guidelines, faults
from speed.data.records import Rejected, Sample
from speed.ports import Generate, Generated, Weights
from speed.runtime import Context
from speed.stages.base import FineTuning, GeneratingPool
from speed.stages.generating import generate_in_order, request_seed


@dataclass(frozen=True, kw_only=True)
class RevisionPass(GeneratingPool[Sample]):
    """Row i is row i of the synthesis, repaired. What the revisor makes unreadable stays as it was."""

    samples: Pool[Sample]
    revisor: Stage[Weights]
    prompts: RolePrompts
    on_failure: Literal["keep_original", "drop"]
    guidelines: Guidelines
    """A repair that breaks one of those that drop has failed."""

    name: ClassVar[str] = "revision"
    row: ClassVar[type[Sample]] = Sample

    @property
    def writes_like(self) -> str:
        return self.revisor.learns_from if isinstance(self.revisor, FineTuning) else "revise"

    def work(self, start: int, stop: int) -> Work:
        return Work(generated=stop - start)

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return edits.figures(counts)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        rows = ctx.rows(self.samples.take(stop), start)
        items = ((row, self._request(row) if row.prompt.text else None) for row in rows)
        written = generate_in_order(self.engine, ctx.folder(self.revisor), items, self.sampling, ctx)
        for done, (row, texts) in enumerate(written, 1):
            yield self._row(row, texts[0], ctx) if texts else row
            ctx.progress(done, stop - start, "examples")

    def _request(self, row: Sample) -> Generate:
        assert row.prompt.kind is not None
        return Generate(
            key=str(row.row),
            prompt=revise_prompt(row.prompt.text, row.text, self.prompts.config).text,
            seed=request_seed(self.seed, self.name, row.row),
            max_tokens=self.max_tokens[row.prompt.kind],
        )

    def _row(self, row: Sample, written: Generated, ctx: Context) -> Sample:
        about = row.prompt
        assert about.kind is not None
        found = parse_revision(
            about.kind, about.task, written.text, written.finish_reason, ctx.tally.counts, about.ground
        )
        if isinstance(found, Rejected):
            return self._failed(row, found.cause, found.detail, ctx)
        example = found[1]
        broken = tuple(fault.cause for fault in faults(example, row.prompt))
        if dropped := next(filter(self.guidelines.drops, broken), None):
            return self._failed(row, dropped, "", ctx)
        ctx.tally.counts["unchanged" if example == row.example else "changed"] += 1
        ctx.tally.counts.update(edits.counts(row.example, example))
        return Sample(
            row=row.row,
            prompt=row.prompt,
            text=written.text,
            finish_reason=written.finish_reason,
            tokens=written.tokens,
            example=example,
            faults=broken,
            revised=True,
        )

    def _failed(self, row: Sample, cause: str, detail: str, ctx: Context) -> Sample:
        ctx.tally.counts[f"revision failed: {cause}"] += 1
        return row if self.on_failure == "keep_original" else row.reject(cause, detail)
