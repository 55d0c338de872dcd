"""Filter: hard negatives that may answer the query, and positives that are not found for theirs, are left out."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.content import HubRepository
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.core.stage import Stage
from speed.data.hard_negatives import TextNumbers, read_records
from speed.data.quality.negative_rules import CAUSES, NegativeRules
from speed.data.records import Example
from speed.ports import Group, Retriever
from speed.runtime import Context, Runtime
from speed.stages.own_judges import refuse_own_judge, refuse_same_records

ENOUGH = "enough"
"""Why a negative goes that nothing speaks against: a record has as many as are wanted."""


@dataclass(frozen=True)
class NegativeFilter(Stage[Example]):
    """`examples.jsonl`: what is left of the corpus, in its order; `scores.jsonl`: a line for each record that was read,
    with all similarities and what became of it."""

    corpus: Stage[Example]
    judge: Retriever
    rules: NegativeRules
    count: int
    """Negatives of a record at most: the first ones that stay."""

    name: ClassVar[str] = "filter"

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(runtime.any_number)

    def check(self, runtime: Runtime) -> None:
        refuse_own_judge(self.judge, self.corpus, runtime.home.expanduser())

    def check_models(self) -> None:
        self.judge.check_model()

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return self.judge.hub_repositories()

    def run(self, out: Path, ctx: Context) -> None:
        file = ctx.folder(self.corpus) / "examples.jsonl"
        refuse_same_records(self.judge, file, ctx.runtime.home.expanduser())
        numbers = TextNumbers(file)
        groups = [Group(*span) for span in numbers.groups]
        ranks = array("q")
        with self.judge.compared(numbers.queries(), numbers.documents(), groups, out / "vectors", ctx) as compared:
            positive = array("f", compared.similarities(enumerate(numbers.positive)))
            pairs = ((q, numbers.negative[place]) for q in range(len(numbers)) for place in numbers.negatives_of(q))
            negative = array("f", compared.similarities(pairs))
            if self.rules.top is not None:
                ranks.extend(compared.ranks(numbers.positive, numbers.excluded))
        with (
            (out / "examples.jsonl").open("w", encoding="utf-8") as examples,
            (out / "scores.jsonl").open("w", encoding="utf-8") as scores,
        ):
            for number, record in enumerate(read_records(file)):
                query = numbers.query_of[number]
                own, told = positive[query], list[dict[str, Json]]()
                kept: list[str] = []
                places = numbers.negatives_of(query)
                for text, similarity in zip(record.negatives, negative[places.start : places.stop], strict=True):
                    cause = self.rules.cause(own, similarity)
                    if not cause and len(kept) == self.count:
                        cause = ENOUGH
                    if not cause:
                        kept.append(text)
                    else:
                        ctx.tally.counts[f"negatives_{cause}"] += 1
                    told.append({"similarity": round(similarity, 6), "left_out": cause})
                rank = ranks[query] if ranks else None
                cause = self._cause(rank, bool(record.negatives), bool(kept))
                ctx.tally.counts["in"] += 1
                if cause:
                    ctx.tally.rejected[cause] += 1
                else:
                    examples.write(record._replace(negatives=tuple(kept)).line())
                    ctx.tally.counts.update({"out": 1, "negatives_kept": len(kept)})
                    ctx.tally.counts["records_without_negative"] += not kept
                line = {"positive": round(own, 6), "rank": rank, "left_out": cause, "negatives": told}
                scores.write(json.dumps(line) + "\n")
                ctx.progress(number + 1, len(numbers), "examples")
        self._tell(ctx)
        if ctx.tally.counts["out"] < 2:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(ctx.tally.rejected.items()))
            raise UserError(
                f"the filter leaves {ctx.tally.counts['out']} of {len(numbers)} records ({causes}): an embedder needs "
                "two\n  raise filter.top, or take filter.removes=negative"
            )

    def _tell(self, ctx: Context) -> None:
        """What became of the hard negatives, in a sentence for the report."""
        counts = ctx.tally.counts
        causes = {cause: counts[f"negatives_{cause}"] for cause in (*CAUSES, ENOUGH)}
        left_out = ", ".join(f"{count:,} {cause}" for cause, count in causes.items() if count) or "none"
        kept, records = counts["negatives_kept"], counts["out"]
        ctx.tally.metrics["remarks"] = [
            f"{kept:,} hard negatives kept, {kept / max(1, records):.1f} a record; left out: {left_out}; "
            f"{counts['records_without_negative']:,} of {records:,} records have none"
        ]

    def _cause(self, rank: int | None, had: bool, has: bool) -> str:
        """Why a record is left out; empty where it stays."""
        if rank is not None and self.rules.top is not None and rank > self.rules.top:
            return "positive_not_found"
        return "no_negative_left" if self.rules.removes == "record" and had and not has else ""
