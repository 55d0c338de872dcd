"""Mined negatives: for each query, documents of the corpus that are near to it and are not its positive."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.content import HubRepository
from speed.core.spec import Json
from speed.core.stage import Stage
from speed.data.hard_negatives import Record, TextNumbers, read_records, text_code
from speed.data.quality.negative_rules import nearly
from speed.data.records import Example
from speed.ports import Group, Retriever
from speed.runtime import Context, Runtime

NEAR = 0.95
"""Share of the positive's similarity from which a negative is counted as perhaps an answer (NV-Retriever)."""
MANY = 0.01
"""Share of such negatives from which a report names the filter."""


@dataclass(frozen=True)
class MinedNegatives(Stage[Example]):
    """`examples.jsonl`: the corpus in its order, with hard negatives; `scores.jsonl`: line by line their similarities.

    Candidates are the positives of other records of the same kind, by exact search. Left out are documents that
    equal the query, its positive or a positive of an equal query.
    """

    corpus: Stage[Example]
    miner: Retriever
    ranks: tuple[int, int]
    """First and last rank of the window that negatives are taken from."""
    count: int | None
    """Negatives of a record at most, the nearest ones; None takes the whole window."""
    keep_generated: bool
    """Whether the negative that was written with the record stays, before the mined ones."""

    name: ClassVar[str] = "negatives"

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(runtime.any_number)

    def check_models(self) -> None:
        self.miner.check_model()

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return self.miner.hub_repositories()

    def run(self, out: Path, ctx: Context) -> None:
        file = ctx.folder(self.corpus) / "examples.jsonl"
        numbers = TextNumbers(file)
        first, last = self.ranks
        width = last - first + 1
        found = array("q", [-1]) * (len(numbers) * width)
        near = array("f", [0.0]) * len(found)
        groups = [Group(*span) for span in numbers.groups]
        with self.miner.compared(numbers.queries(), numbers.documents(), groups, out / "vectors", ctx) as compared:
            positive = array("f", compared.similarities(enumerate(numbers.positive)))
            for query, nearest in enumerate(compared.nearest(last, numbers.excluded)):
                for place, (document, similarity) in enumerate(nearest[first - 1 :], query * width):
                    found[place], near[place] = document, similarity
        mined = above = 0
        with ExitStack() as stack:
            texts = stack.enter_context(numbers.positives())
            examples = stack.enter_context((out / "examples.jsonl").open("w", encoding="utf-8"))
            scores = stack.enter_context((out / "scores.jsonl").open("w", encoding="utf-8"))
            for number, record in enumerate(read_records(file)):
                query = numbers.query_of[number]
                places = range(query * width, (query + 1) * width)
                window = [(first + place % width, found[place], near[place]) for place in places if found[place] >= 0]
                kept, told = self._chosen(record, window, texts.text)
                examples.write(record._replace(negatives=kept).line())
                scores.write(json.dumps({"positive": round(positive[query], 6), "negatives": told}) + "\n")
                similarities = [each["similarity"] for each in told if each["rank"] is not None]
                mined += len(similarities)
                above += sum(similarity >= nearly(positive[query], NEAR) for similarity in similarities)
                ctx.tally.counts.update({"in": 1, "out": 1, "mined_negatives": len(similarities)})
                ctx.tally.counts["generated_negatives"] += len(kept) - len(similarities)
                ctx.tally.counts["records_without_negative"] += not kept
                ctx.progress(number + 1, len(numbers), "examples")
        self._tell(above, mined, len(numbers), ctx)

    def _chosen(
        self, record: Record, window: list[tuple[int, int, float]], text: Callable[[int], str]
    ) -> tuple[tuple[str, ...], list[dict[str, Json]]]:
        """The negatives of a record, and what is told of each.

        Args:
            window: (rank, document, similarity) of the candidates, nearest first.
            text: of a document.
        """
        kept = list(record.negatives) if self.keep_generated else []
        told: list[dict[str, Json]] = [{"rank": None, "similarity": None} for _ in kept]
        known = {text_code(negative) for negative in kept}
        for rank, document, similarity in window:
            if self.count is not None and len(kept) >= self.count:
                break
            negative = text(document)
            if text_code(negative) not in known:
                kept.append(negative)
                told.append({"rank": rank, "similarity": round(similarity, 6)})
        return tuple(kept), told

    def _tell(self, above: int, mined: int, records: int, ctx: Context) -> None:
        share = above / mined if mined else 0.0
        ctx.tally.metrics["near_the_positive"] = round(share, 4)
        told = (
            f"{mined:,} hard negatives mined, {mined / max(1, records):.1f} a record; {share:.0%} of them are at least "
            f"{NEAR:g} times as near to the query as its positive, and may answer it as well"
        )
        advised = self.count is not None and share >= MANY
        ctx.tally.metrics["remarks"] = [told + (": filter=positive_aware leaves them out" if advised else "")]
