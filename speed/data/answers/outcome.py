"""From a prompt and a raw answer to a row: parsed and verified against the prompt's own guidelines, or rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from speed.core.spec import Json
from speed.data.answers.parse import example as read_example
from speed.data.answers.parse import mended
from speed.data.quality.guidelines import Guidelines, faults
from speed.data.records import Kind, Prompt, Rejected, Sample

KEEP = Guidelines()
"""Faults are recorded and cost nothing."""


def sample(
    row: int, prompt: Prompt, text: str, finish_reason: str, tokens: int, guidelines: Guidelines = KEEP
) -> Sample:
    """The row of one answer to a data prompt."""
    assert prompt.kind is not None
    made = Sample(row=row, prompt=prompt, text=text, finish_reason=finish_reason, tokens=tokens)
    found = read_example(prompt.kind, prompt.task, text, finish_reason)
    if isinstance(found, Rejected):
        return made.reject(found.cause, found.detail)
    broken = faults(found, prompt)
    read = {"example": found, "faults": tuple(fault.cause for fault in broken), "mended": mended(text)}
    made = made.model_copy(update=read)
    dropped = next((fault for fault in broken if guidelines.drops(fault.cause)), None)
    return made if dropped is None else made.reject(dropped.cause, dropped.detail)


def counts_by_kind(row: Sample, kind: Kind) -> Counter[str]:
    """What a row adds to the figures of its kind."""
    names = Counter({"rows": 1, "accepted": int(row.rejected is None), "candidates": row.attempt + 1})
    found = Counter({f"{name}/{kind}": count for name, count in names.items()})
    found.update(f"mended/{name}" for name in row.mended)
    return found


def figures_by_kind(counts: Mapping[str, int], attempts: int) -> dict[str, Json]:
    """Rows accepted and candidates tried, by kind; where all rows were to be filled, how many are not; what had to be
    mended in how many answers, by name."""
    seen = [kind for kind in Kind if counts.get(f"rows/{kind}")]

    def by_kind(name: str) -> dict[str, int]:
        return {kind.value: counts.get(f"{name}/{kind}", 0) for kind in seen}

    accepted, rows = by_kind("accepted"), by_kind("rows")
    short = {kind: rows[kind] - accepted[kind] for kind in rows if accepted[kind] < rows[kind]}
    found: dict[str, Json] = {"accepted": accepted, "candidates": by_kind("candidates")}
    if mended := {name.removeprefix("mended/"): count for name, count in counts.items() if name.startswith("mended/")}:
        found["mended"] = dict(sorted(mended.items()))
    return {**found, "short": short} if attempts > 1 else found
