"""Pairs by a judge that is a retriever: what an embedder could learn from each answer, and no teacher is asked.

The paper's teacher judges how well an answer is written; that better text makes a better embedder is left open (its
second limitation). Here an embedder that was trained on none of it says for which answers it finds the positive, and
how hard they are (`speed.data.judging.retrieval`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, NamedTuple

from speed.core.allocation import Demand
from speed.core.content import HubRepository
from speed.core.spec import Json
from speed.core.stage import Pool
from speed.data.judging import statistics
from speed.data.judging.retrieval import Worth, worth
from speed.data.judging.votes import CHOICES, read_candidates
from speed.data.quality.guidelines import Guidelines
from speed.data.records import Candidates, Example, Pair, Sample
from speed.ports import Group, Retriever
from speed.runtime import Context, Runtime
from speed.stages.base import in_its_round
from speed.stages.own_judges import refuse_own_probe

FOUND = statistics.PREFIX + "found_first"
ASKED = statistics.PREFIX + "looked_for"


class Read(NamedTuple):
    """A list, its answers as they are read, and the places of those that are examples."""

    found: Candidates
    read: list[Sample]
    places: list[int]

    @property
    def examples(self) -> list[Example]:
        """Of the answers that can be read."""
        return [example for sample in self.read if not sample.rejected and (example := sample.example) is not None]


@dataclass(frozen=True)
class RetrieverPairs(Pool[Pair]):
    """One row, one list: the answer that is worth most to the probe, and the one that is worth least. An answer that
    cannot be read is worth less than any other."""

    root: Pool[Candidates]
    probe: Retriever
    guidelines: Guidelines
    """An answer that breaks one of those that drop is never the chosen one."""

    name: ClassVar[str] = "retriever pairs"
    row: ClassVar[type[Pair]] = Pair
    choices: ClassVar[frozenset[str]] = CHOICES

    @property
    def label(self) -> str:
        return in_its_round(self.name, self.root)

    def demand(self, runtime: Runtime) -> Demand:
        return Demand((1,), workers=isinstance(runtime.devices, tuple))  # on cores each would hold a probe of its own

    def check(self, runtime: Runtime) -> None:
        refuse_own_probe(self.probe, self.root, runtime.home.expanduser())

    def check_models(self) -> None:
        self.probe.check_model()

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return self.probe.hub_repositories()

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        asked = counts.get(ASKED, 0)
        found = round(counts.get(FOUND, 0) / asked, 4) if asked else None
        return {"positives_found_first": found, **statistics.pair_figures(counts)}

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Pair]:
        lists = [_read(found) for found in ctx.rows(self.root.take(stop), start)]
        for done, (one, worths) in enumerate(zip(lists, self._worths(lists, ctx), strict=True), 1):
            pair = self._pair(one, worths)
            ctx.tally.counts.update({ASKED: len(worths), FOUND: sum(each.rank == 1 for each in worths)})
            ctx.tally.counts.update(statistics.pair_counts(pair))
            yield pair
            ctx.progress(done, stop - start, "lists")

    def _worths(self, lists: list[Read], ctx: Context) -> Iterator[list[Worth]]:
        """Of each list what each of its examples is worth; encoded together, compared list by list."""
        examples = [one.examples for one in lists]
        documents = [[text for each in listed for text in _documents(each)] for listed in examples]
        groups, queries, texts = [], 0, 0
        for listed, said in zip(examples, documents, strict=True):
            groups.append(Group(range(queries, queries + len(listed)), range(texts, texts + len(said))))
            queries, texts = queries + len(listed), texts + len(said)
        if not queries:
            yield from ([] for _ in lists)
            return
        asked = [(each.task, each.query) for listed in examples for each in listed]
        pairs = ((query, text) for group in groups for query in group.queries for text in group.documents)
        with (
            TemporaryDirectory() as scratch,
            self.probe.compared(asked, chain(*documents), groups, Path(scratch) / "vectors", ctx) as compared,
        ):
            similarities = compared.similarities(pairs)
            for listed, said in zip(examples, documents, strict=True):
                yield [_worth(each, said, [next(similarities) for _ in said]) for each in listed]

    def _pair(self, one: Read, worths: list[Worth]) -> Pair:
        found = one.found
        pair = Pair(row=found.row, prompt=found.prompt)
        if found.rejected is not None or not found.texts:
            return pair.reject(found.rejected or "no_candidates")
        if not one.places:
            return pair.reject("none_readable", ", ".join(str(row.rejected) for row in one.read))
        faults = [(row.rejected,) if row.rejected else row.faults for row in one.read]
        judged = dict(zip(one.places, worths, strict=True))
        clean = [place for place in one.places if not any(map(self.guidelines.drops, faults[place]))]
        if not clean:
            return pair.reject("all_faulty", "each answer breaks a guideline that drops")
        best = min(clean, key=lambda place: (judged[place], place))
        unread = [place for place in range(len(one.read)) if place not in judged]
        worst = unread[0] if unread else max(one.places, key=lambda place: (judged[place], -place))
        if not unread and judged[worst] <= judged[best]:
            return pair.reject("no_margin", f"{judged[best]}; {judged[worst]}")
        taken = {"best": best, "worst": worst, "chosen": found.texts[best], "rejected_text": found.texts[worst]}
        taken |= {"chosen_faults": faults[best], "rejected_faults": faults[worst]}
        why = f"best: {judged[best]}; worst: {judged.get(worst, 'cannot be read')}"
        return pair.model_copy(update=taken).with_remark(why)


def _read(found: Candidates) -> Read:
    read = [] if found.rejected is not None else read_candidates(found)
    return Read(found, read, [place for place, row in enumerate(read) if not row.rejected and row.example is not None])


def _documents(example: Example) -> list[str]:
    return [example.positive, *([example.negative] if example.negative else [])]


def _worth(example: Example, documents: list[str], similarities: list[float]) -> Worth:
    """What an example is worth beside the documents of its list; texts equal to its own are no others."""
    near = dict(zip(documents, similarities, strict=True))
    own = near[example.negative] if example.negative else None
    others = [value for text, value in near.items() if text not in _documents(example)]
    return worth(near[example.positive], own, others)
