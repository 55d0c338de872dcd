"""Field-DPO: preferences begin where an answer goes wrong (after Step-DPO, Lai et al. 2024, arXiv 2406.18629; ours).

Of each list the first answer with a fault is cut where its first faulty field begins. The junior writes on from there
some times; the first continuation that makes a faultless record is preferred to the one that it had written. Both stand
behind the prompt and the same faultless beginning, so that nothing is learned on what was right. No teacher is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from speed.core.spec import Json
from speed.core.stage import Pool, Stage
from speed.core.work import Work
from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.answers.first_fault import Broken, first_fault
from speed.data.judging import statistics
from speed.data.judging.votes import CHOICES
from speed.data.records import Candidates, Pair
from speed.ports import Generate, Generated, Weights
from speed.runtime import Context
from speed.stages.base import GeneratingPool, in_its_round
from speed.stages.generating import generate_in_order, request_seed


class Cut(NamedTuple):
    """A list, and the answer of it that goes wrong."""

    found: Candidates
    place: int = -1
    broken: Broken | None = None


@dataclass(frozen=True, kw_only=True)
class FieldPairs(GeneratingPool[Pair]):
    """One row, one list, one answer continued anew from its first faulty field."""

    root: Pool[Candidates]
    junior: Stage[Weights]
    continuations: int
    """Tries to write on without a fault."""

    name: ClassVar[str] = "field pairs"
    row: ClassVar[type[Pair]] = Pair
    choices: ClassVar[frozenset[str]] = CHOICES

    @property
    def label(self) -> str:
        return in_its_round(self.name, self.root)

    def work(self, start: int, stop: int) -> Work:
        return Work(generated=(stop - start) * self.continuations)

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return statistics.pair_figures(counts)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Pair]:
        cuts = map(_cut, ctx.rows(self.root.take(stop), start))
        items = ((cut, self._request(cut, cut.broken) if cut.broken else None) for cut in cuts)
        written = generate_in_order(self.engine, ctx.folder(self.junior), items, self.sampling, ctx)
        for done, (cut, texts) in enumerate(written, 1):
            pair = _pair(cut, texts)
            ctx.tally.counts.update(statistics.pair_counts(pair))
            yield pair
            ctx.progress(done, stop - start, "lists")

    def _request(self, cut: Cut, broken: Broken) -> Generate:
        assert cut.found.prompt.kind is not None
        return Generate(
            key=str(cut.found.row),
            prompt=cut.found.prompt.text,
            begun=broken.begun,
            seed=request_seed(self.seed, self.name, cut.found.row),
            n=self.continuations,
            max_tokens=self.max_tokens[cut.found.prompt.kind],
        )


def _cut(found: Candidates) -> Cut:
    """The first answer of a list that goes wrong in a field."""
    for place, text in enumerate(found.texts):
        broken = first_fault(text, found.finish_reasons[place], found.prompt)
        if broken is not None:
            return Cut(found, place, broken)
    return Cut(found)


def _pair(cut: Cut, texts: Sequence[Generated]) -> Pair:
    found, broken = cut.found, cut.broken
    pair = Pair(row=found.row, prompt=found.prompt)
    if found.rejected is not None or not found.texts:
        return pair.reject(found.rejected or "no_candidates")
    if broken is None:
        return pair.reject("no_faulty_field")
    pair = pair.model_copy(update={"begun": broken.begun, "worst": cut.place, "rejected_faults": (broken.cause,)})
    for text in texts:
        whole = accept_or_reject(found.row, found.prompt, broken.begun + text.text, text.finish_reason, text.tokens)
        if whole.rejected is None and not whole.faults:
            return pair.model_copy(update={"chosen": text.text, "rejected_text": broken.rest})
    return pair.reject("none_faultless", broken.cause)
