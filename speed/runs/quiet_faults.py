"""What went wrong in a finished run without stopping it: each fault with its figures and what may mend it.

A run that ends with scores can stand on a revisor that repaired nothing, or on a judge that always named the first
answer. The table of stages does not show it; these lines stand under the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from speed.core.spec import Json
from speed.runs.tables import p_value

FAILED = "revision failed: "
"""Beginning of the counts of a revision pass, one for each cause."""
BY_CHANCE = 0.001
"""A spread over places that is less probable than this is no chance."""
FAVOURED = 1.5
"""How many times its even share a place must be named to be called favoured: long runs show small leanings too."""
UNMOVED = 0.005
"""KL from its reference, in nats a token, below which a model has not moved."""
VALID = 0.75
"""Share of the greedy answers after a training that should be one JSON object."""


class Line(Protocol):
    """What is read of a stage (`speed.runs.stage_lines.StageLine`)."""

    @property
    def label(self) -> str: ...
    @property
    def rows_in(self) -> int | None: ...
    @property
    def metrics(self) -> Mapping[str, Json]: ...
    @property
    def noted(self) -> Mapping[str, int]: ...
    @property
    def cost(self) -> Mapping[str, int]: ...


def quiet_faults(lines: Sequence[Line]) -> list[str]:
    """A sentence or two on each, in the order of the stages."""
    return [fault for line in lines for look in LOOKS for fault in look(line)]


def _unrepaired(line: Line) -> Iterator[str]:
    causes = {name.removeprefix(FAILED): count for name, count in line.noted.items() if name.startswith(FAILED)}
    if causes:
        told = ", ".join(f"{count:,} {cause}" for cause, count in sorted(causes.items(), key=lambda item: -item[1]))
        cut = "; raise limits.revision where they are truncated" if "truncated" in causes else ""
        yield (
            f"{line.label}: {sum(causes.values()):,} of {line.rows_in or 0:,} rows could not be repaired ({told}); "
            f"revisor.on_failure says what becomes of them. More revisions to learn from: counts.revisions{cut}."
        )


def _by_place(line: Line) -> Iterator[str]:
    for name in ("best", "worst"):
        places, chance = line.metrics.get(f"{name}_by_place"), line.metrics.get(f"{name}_by_place_p")
        if not places or chance is None or chance >= BY_CHANCE:
            continue
        most, whole = max(places), sum(places)
        if most * len(places) < FAVOURED * whole:
            continue
        remedy = "Take another judge (teacher.model, judge.models)."
        if line.metrics.get("swap_flips") is None:
            remedy = (
                "Ask in both orders (judge=swap), which drops lists on which the two differ, or take another judge."
            )
        yield (
            f"{line.label}: the judge named place {places.index(most) + 1} {name} in {most:,} of {whole:,} lists "
            f"({p_value(chance)}): it follows places and not answers, and the senior learns that. {remedy}"
        )


def _unmoved(line: Line) -> Iterator[str]:
    moved = line.metrics.get("kl_reference")
    if moved is not None and moved < UNMOVED:
        yield (
            f"{line.label}: the training has hardly moved it (KL {moved:.2g} nats a token from where it began): the "
            "preferences taught it little. More pairs (counts.pairs), or a larger preference.dpo.learning_rate."
        )


def _loss(line: Line) -> Iterator[str]:
    first, late = line.metrics.get("first_loss"), line.metrics.get("late_loss", line.metrics.get("last_loss"))
    if first is not None and late is not None and late >= first:
        yield f"{line.label}: its loss did not fall ({first:.4g} at the first step, {late:.4g} in the last)."


def _invalid(line: Line) -> Iterator[str]:
    valid = line.metrics.get("written_valid_json")
    if valid is not None and valid < VALID:
        yield (
            f"{line.label}: {valid:.0%} of its answers after the training, each of the likeliest tokens, are one "
            "JSON object. Small models turn in circles so, and less where tokens are drawn: what counts is what is "
            "rejected later. If that is much: more data, more epochs, a larger learning rate or generator.base."
        )


def _resent(line: Line) -> Iterator[str]:
    if resent := line.cost.get("resent"):
        yield (
            f"{line.label}: {resent:,} requests to the teacher were sent again, for failures on the way. A slow server "
            "needs more seconds (runtime.request_seconds) or fewer requests at once (runtime.concurrency)."
        )


def _untaught(line: Line) -> Iterator[str]:
    trained, untrained = (line.metrics.get(name) or {} for name in ("scores", "untrained"))
    before, after = untrained.get("mean"), trained.get("mean")
    if before is not None and after is not None and after <= before:
        yield (
            f"{line.label}: a mean of {after:.2f} after the embedder's training, and {before:.2f} without any: it has "
            "learnt nothing that these tasks show. A decoder wants some sixty steps, whoever wrote the corpus (more "
            "epochs, embedder.max_steps, a smaller embedder.batch_size); one that was an embedder before gains little."
        )


LOOKS = (_unrepaired, _by_place, _unmoved, _loss, _invalid, _resent, _untaught)
