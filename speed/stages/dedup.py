"""Dedup: MinHash removes near-repeats within a kind (paper 4.1, Table 6), after the texts are final."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from speed.core.errors import UserError
from speed.core.stage import Stage, Take
from speed.data.quality.minhash import MinHashConfig
from speed.data.quality.near_duplicates import duplicates
from speed.data.quality.word_overlap import WordOverlap
from speed.data.records import Example, Kind, Sample
from speed.runtime import Context

CURVE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Similarities at which the chance of being noticed is reported."""


@dataclass(frozen=True)
class Dedup(Stage[Example]):
    """The training corpus: `examples.jsonl`, in the order of the rows; and `repeats.jsonl`, lines of a row that was
    dropped and the kept row that it repeats."""

    config: MinHashConfig | None
    """None keeps everything."""
    samples: Take[Sample]
    keep: dict[Kind, int] | None = None
    """Examples of each kind that are kept, the first ones; None keeps all that are no repeats."""

    name: ClassVar[str] = "dedup"
    packages: ClassVar[tuple[str, ...]] = ("numpy",)

    def run(self, out: Path, ctx: Context) -> None:
        kept: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        repeats: Counter[str] = Counter()
        overlap = WordOverlap()
        rows = array("Q")
        """Row of each example; filled as examples are read."""

        def read() -> Iterator[Example]:
            del rows[:]
            for row in ctx.accepted(self.samples):
                if row.example is not None:
                    rows.append(row.row)
                    yield row.example

        verdicts: Iterator[tuple[Example, int | None]] = ((example, None) for example in read())
        if self.config:
            hashed = partial(ctx.progress, total=self.samples.rows, unit="examples hashed")
            verdicts = duplicates(read, self.config, hashed, ctx.grant.threads)
        with (
            (out / "examples.jsonl").open("w", encoding="utf-8") as file,
            (out / "repeats.jsonl").open("w", encoding="utf-8") as dropped,
        ):
            for done, (example, first) in enumerate(verdicts, 1):
                seen[example.kind] += 1
                if first is not None:
                    repeats[example.kind] += 1
                    dropped.write(f"[{rows[done - 1]}, {rows[first]}]\n")
                elif self.keep is None or kept[example.kind] < self.keep[example.kind]:
                    kept[example.kind] += 1
                    overlap.add(example)
                    file.write(example.line() + "\n")
                ctx.progress(done, self.samples.rows, "examples")
        self._refuse_too_few(kept)
        ctx.tally.counts.update({"in": seen.total(), "out": kept.total()})
        ctx.tally.rejected["duplicate"] = repeats.total()
        if self.keep is not None:
            ctx.tally.rejected["not_wanted"] = seen.total() - kept.total() - repeats.total()
        ctx.tally.metrics["kept_by_kind"] = dict(kept)
        ctx.tally.metrics["kept_share_by_kind"] = {kind: round(kept[kind] / seen[kind], 4) for kind in seen}
        for document in ("positive", "negative"):
            ctx.tally.metrics[f"query_words_in_{document}"] = overlap.shares(document)
        if self.config:
            ctx.tally.metrics["not_repeated_by_kind"] = {
                kind: round(1 - repeats[kind] / seen[kind], 4) for kind in seen
            }
            ctx.tally.metrics["detection"] = {
                "bands": self.config.bands,
                "rows": self.config.rows,
                "threshold": self.config.threshold,
                "chance": {str(similarity): round(self.config.detection(similarity), 4) for similarity in CURVE},
            }

    def _refuse_too_few(self, kept: Counter[str]) -> None:
        short = {kind: count for kind, count in (self.keep or {}).items() if kept[kind] < count}
        if short:
            missing = ", ".join(f"{kept[kind]} of {count} {kind}" for kind, count in short.items())
            raise UserError(
                f"scale.keep={sum((self.keep or {}).values())} wants more examples than are left: there are {missing}\n"
                "  take a smaller scale.keep, or a larger scale.examples"
            )
