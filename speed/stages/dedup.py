"""Dedup: MinHash removes near-repeats within a kind (paper 4.1, Table 6), after the texts are final."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.context import Context
from speed.core.stage import Stage, Take
from speed.data.dedup import MinHashConfig, duplicates
from speed.data.records import Example, Sample


@dataclass(frozen=True)
class Dedup(Stage[Example]):
    """The training corpus: `examples.jsonl`, in the order of the rows."""

    config: MinHashConfig | None
    """None keeps everything."""
    samples: Take[Sample]

    name: ClassVar[str] = "dedup"
    packages: ClassVar[tuple[str, ...]] = ("datasketch",)

    def run(self, out: Path, ctx: Context) -> None:
        kept: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        verdicts = (
            duplicates(self._examples(ctx), self.config) if self.config else ((i, None) for i in self._count(ctx))
        )
        with (out / "examples.jsonl").open("w", encoding="utf-8") as file:
            for done, (example, (_, first)) in enumerate(zip(self._examples(ctx), verdicts, strict=True), 1):
                seen[example.kind] += 1
                if first is None:
                    kept[example.kind] += 1
                    file.write(example.model_dump_json() + "\n")
                ctx.progress(done, self.samples.rows, "examples")
        ctx.tally.counts.update({"in": seen.total(), "out": kept.total()})
        ctx.tally.rejected["duplicate"] = seen.total() - kept.total()
        ctx.tally.metrics["kept_by_kind"] = dict(kept)
        ctx.tally.metrics["kept_share_by_kind"] = {kind: round(kept[kind] / seen[kind], 4) for kind in seen}

    def _examples(self, ctx: Context) -> Iterator[Example]:
        return (row.example for row in ctx.accepted(self.samples) if row.example is not None)

    def _count(self, ctx: Context) -> Iterator[int]:
        return (place for place, _ in enumerate(self._examples(ctx)))
