"""Turn an answer into a row: parsed and checked against the guidelines of its prompt, or rejected with a cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from speed.core.spec import Json
from speed.data.answers.parse import mended_in, parse_example
from speed.data.quality.guidelines import Guidelines, faults
from speed.data.records import Kind, Prompt, Rejected, Sample

KEEP = Guidelines()
"""Faults are recorded, and no example is dropped for them."""


def accept_or_reject(
    row: int, prompt: Prompt, text: str, finish_reason: str, tokens: int, guidelines: Guidelines = KEEP
) -> Sample:
    """Row of one answer to a data prompt."""
    assert prompt.kind is not None
    made = Sample(row=row, prompt=prompt, text=text, finish_reason=finish_reason, tokens=tokens)
    met: Counter[str] = Counter()
    example = parse_example(prompt.kind, prompt.task, text, finish_reason, met, prompt.ground)
    if isinstance(example, Rejected):
        return made.reject(example.cause, example.detail)
    broken = faults(example, prompt)
    mended = tuple(sorted({*mended_in(text), *met}))
    parsed = {"example": example, "faults": tuple(fault.cause for fault in broken), "mended": mended}
    made = made.model_copy(update=parsed)
    dropped = next((fault for fault in broken if guidelines.drops(fault.cause)), None)
    return made if dropped is None else made.reject(dropped.cause, dropped.detail)


def counts_by_kind(row: Sample, kind: Kind) -> Counter[str]:
    """Counts that a row adds to the figures of its kind."""
    names = Counter({"rows": 1, "accepted": int(row.rejected is None), "candidates": row.attempt + 1})
    counts = Counter({f"{name}/{kind}": count for name, count in names.items()})
    counts.update(f"mended/{name}" for name in row.mended)
    return counts


def figures_by_kind(counts: Mapping[str, int], attempts: int) -> dict[str, Json]:
    """Accepted rows, tried candidates and mended answers.

    With several attempts, every row should be filled; then `short` says how many of each kind are not.
    """
    seen = [kind for kind in Kind if counts.get(f"rows/{kind}")]

    def by_kind(name: str) -> dict[str, int]:
        return {kind.value: counts.get(f"{name}/{kind}", 0) for kind in seen}

    accepted, rows = by_kind("accepted"), by_kind("rows")
    short = {kind: rows[kind] - accepted[kind] for kind in rows if accepted[kind] < rows[kind]}
    figures: dict[str, Json] = {"accepted": accepted, "candidates": by_kind("candidates")}
    if mended := {name.removeprefix("mended/"): count for name, count in counts.items() if name.startswith("mended/")}:
        figures["mended"] = dict(sorted(mended.items()))
    return {**figures, "short": short} if attempts > 1 else figures
