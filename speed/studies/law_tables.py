"""The laws by data size as tables and sentences, for a terminal or a page."""

from __future__ import annotations

from speed.runs.tables import Table, money
from speed.studies.scaling_law import Band, Estimate, Laws

_OUTSIDE = {True: "", False: " (outside)", None: ""}


def law_tables(laws: Laws, decimals: int = 2) -> list[Table | str]:
    """What each form says, the curves, and what may be concluded, in the order of reading."""
    return [*([_forms(laws, decimals), _curves(laws, decimals)] if laws.laws else []), *_sentences(laws, decimals)]


def _forms(laws: Laws, decimals: int) -> Table:
    table = Table(
        "form", "AICc", "largest size, predicted", "measured", "points a doubling", "over tasks",
        "dollars a tenth", "a doubling is below the noise from", "parameters",
    )  # fmt: skip
    for law in laws.laws:
        largest, gain = law.extrapolation, law.points_a_doubling
        table.add(
            law.form,
            "-" if law.aicc is None else f"{law.aicc:.1f}",
            "-" if largest is None else f"{largest.predicted:.{decimals}f}",
            "-" if largest is None else f"{largest.measured:.{decimals}f}{_OUTSIDE[largest.inside]}",
            shown_estimate(gain, decimals),
            "-" if gain.tasks is None else _half(gain, gain.tasks, decimals),
            "-" if law.dollars_a_tenth is None else money(law.dollars_a_tenth),
            "-" if law.doubling_below_noise is None else f"{law.doubling_below_noise:,}",
            ", ".join(f"{name} {value:.4g}" for name, value in law.parameters.items()),
        )
    return table


def _curves(laws: Laws, decimals: int) -> Table:
    table = Table("examples", *(law.form for law in laws.laws))
    for size in laws.laws[0].curve:
        table.add(f"{size:,}", *(shown_estimate(law.curve[size], decimals) for law in laws.laws))
    return table


def _sentences(laws: Laws, decimals: int) -> list[str]:
    out = [f"Form: {laws.remark}."]
    if any(law.points_a_doubling.seeds for law in laws.laws):
        out.append(f"Bands hold {laws.level:.0%}, over seeds unless stated.")
    else:
        out.append("No band over seeds: some size has a single seed.")
    if laws.noise is not None:
        out.append(f"Noise: one run's score has a standard deviation of {laws.noise:.{decimals}f} over seeds.")
    if any(law.extrapolation is not None for law in laws.laws):
        out.append("The largest size is predicted by the form fitted to all others.")
    return out


def shown_estimate(estimate: Estimate, decimals: int = 2) -> str:
    """A figure with half the width of its band over seeds."""
    half = "" if estimate.seeds is None else f" {_half(estimate, estimate.seeds, decimals)}"
    return f"{estimate.value:.{decimals}f}{half}"


def _half(estimate: Estimate, band: Band, decimals: int) -> str:
    return f"± {band.high - estimate.value:.{decimals}f}"
