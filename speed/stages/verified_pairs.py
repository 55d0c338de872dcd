"""Pairs from guidelines alone: a faultless answer is preferred to a faulty one, and no teacher is asked.

What every judge must beat: it costs nothing, and it knows only what a rule can see (`speed.data.quality.guidelines`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from speed.core.spec import Json
from speed.core.stage import Pool
from speed.data.judging import statistics
from speed.data.judging.votes import CHOICES, Judge, first_alike, read_candidates, shortlist
from speed.data.records import Candidates, Pair, Rejected
from speed.runtime import Context
from speed.stages.base import in_its_round

GUIDELINES_FIRST = Judge(verified=True)


@dataclass(frozen=True)
class VerifiedPairs(Pool[Pair]):
    """One row, one list: its first faultless answer, and the worst by number of faults (one that cannot be read is
    worse than any other)."""

    root: Pool[Candidates]

    name: ClassVar[str] = "verified pairs"
    row: ClassVar[type[Pair]] = Pair
    choices: ClassVar[frozenset[str]] = CHOICES

    @property
    def label(self) -> str:
        return in_its_round(self.name, self.root)

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return statistics.pair_figures(counts)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Pair]:
        for done, found in enumerate(ctx.rows(self.root.take(stop), start), 1):
            pair = self._pair(found)
            ctx.tally.counts.update(statistics.pair_counts(pair))
            yield pair
            ctx.progress(done, stop - start, "lists")

    def _pair(self, found: Candidates) -> Pair:
        pair = Pair(row=found.row, prompt=found.prompt)
        if found.rejected is not None or not found.texts:
            return pair.reject(found.rejected or "no_candidates")
        read = read_candidates(found)
        short = shortlist(read, GUIDELINES_FIRST)
        if isinstance(short, Rejected):
            return pair.reject(short.cause, short.detail)
        if short.worst is None:
            return pair.reject("all_faulty" if read[0].faults else "all_faultless")
        best, worst = (short.shown[0] if short.best is None else short.best), short.worst
        if read[best].faults:
            return pair.reject("none_faultless", ", ".join(read[best].faults))
        if first_alike(read)[best] == first_alike(read)[worst]:
            return pair.reject("identical", "the faultless and the faulty answer say the same")
        why = read[worst].faults or (str(read[worst].rejected),)
        taken = {"best": best, "worst": worst, "chosen": found.texts[best], "rejected_text": found.texts[worst]}
        return pair.model_copy(update={**taken, "rejected_faults": why})
