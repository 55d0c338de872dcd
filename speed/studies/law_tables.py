"""The laws by data size as tables and sentences, for a terminal or a page."""

from __future__ import annotations

from speed.runs.tables import Table, money
from speed.studies.by_size import Band, Estimate
from speed.studies.scaling_law import FIT, Laws

_OUTSIDE = {True: "", False: " (outside)", None: ""}


def law_tables(laws: Laws, decimals: int = 2) -> list[Table | str]:
    """What each form says, the curves, and what may be concluded, in the order of reading."""
    return [*([_forms(laws, decimals), _curves(laws, decimals)] if laws.laws else []), *_sentences(laws, decimals)]


def _forms(laws: Laws, decimals: int) -> Table:
    table = Table(
        "form", "AICc", "chi-square", "p", "largest, predicted", "measured", "points a doubling",
        "over tasks", "dollars a tenth", "below the noise from", "parameters",
    )  # fmt: skip
    below = "beyond what can be foretold" if laws.noise else "-"
    for law in laws.laws:
        largest, gain, fit = law.extrapolation, law.points_a_doubling, law.fit
        table.add(
            law.form,
            "-" if law.aicc is None else f"{law.aicc:.1f}",
            "-" if fit is None else f"{fit.chi_square:.1f} ({fit.freedom})",
            "-" if fit is None else f"{fit.p:.3f}" if fit.p >= 0.001 else "<0.001",
            "-" if largest is None else f"{largest.predicted:z.{decimals}f}",
            "-" if largest is None else f"{largest.measured:z.{decimals}f}{_OUTSIDE[largest.inside]}",
            shown_estimate(gain, decimals),
            "-" if gain.tasks is None else _half(gain, gain.tasks, decimals),
            "-" if law.dollars_a_tenth is None else money(law.dollars_a_tenth),
            below if law.doubling_below_noise is None else f"{law.doubling_below_noise:,}",
            ", ".join(
                f"{name} {value:.4g}{' (at its end)' * (name in law.at_ends)}" for name, value in law.parameters.items()
            ),
        )
    return table


def _curves(laws: Laws, decimals: int) -> Table:
    table = Table("examples", *(law.form for law in laws.laws))
    for size in laws.laws[0].curve:
        table.add(f"{size:,}", *(shown_estimate(law.curve[size], decimals) for law in laws.laws))
    return table


def _sentences(laws: Laws, decimals: int) -> list[str]:
    out = [f"Form: {laws.remark}.", *_fits(laws)]
    if laws.left_out:
        told = "1 run" if laws.left_out == 1 else f"{laws.left_out} runs"
        out.append(f"Left out of the law: {told} with a seed that some size lacks.")
    if any(law.points_a_doubling.seeds for law in laws.laws):
        out.append(f"Bands hold {laws.level:.0%} where the form is right, over seeds unless stated.")
    else:
        out.append("No band over seeds: some size has a single seed.")
    if laws.noise is not None:
        beyond = (
            ", beyond what lifts or lowers a seed at all sizes alike"
            if laws.same_seeds
            else "; sizes do not share their seeds, so what lifts or lowers one is in it"
        )
        deviation = f"{laws.noise:z.{decimals}f}"
        out.append(f"Noise: one run's score has a standard deviation of {deviation} over seeds{beyond}.")
    if any(law.at_ends for law in laws.laws):
        out.append(
            "At its end: the form bends as little there, or as much, as any that was tried, and neither this exponent "
            "nor a limit beside it is a finding."
        )
    if laws.noise:
        out.append("Below the noise from: the size from which on each doubling brings less than the noise.")
    if any(law.extrapolation is not None for law in laws.laws):
        out.append("The largest size is predicted by the form fitted to all others.")
    return out


def _fits(laws: Laws) -> list[str]:
    """Which forms the means by size refute, and how that is known."""
    fits = {law.form: law.fit for law in laws.laws if law.fit is not None}
    if not fits:
        return []
    out = [
        "p: chance of such a chi-square (degrees of freedom in brackets) or a larger one if the form is right and only "
        "seeds move the means."
    ]
    refused = [form for form, fit in fits.items() if fit.refused]
    if len(refused) == len(laws.laws):
        out.append(
            f"No form fits within the noise (p below {FIT}): the bands are those of a form that is right, so here they "
            "are too narrow, and how far beyond them the truth may lie nobody can tell."
        )
    elif refused:
        do, their = ("do", "their") if len(refused) > 1 else ("does", "its")
        named = " and ".join(refused)
        out.append(f"{named} {do} not fit within the noise (p below {FIT}): {their} bands are too narrow.")
    return out


def shown_estimate(estimate: Estimate, decimals: int = 2) -> str:
    """A figure with half the width of its band over seeds."""
    half = "" if estimate.seeds is None else f" {_half(estimate, estimate.seeds, decimals)}"
    return f"{estimate.value:z.{decimals}f}{half}"


def _half(estimate: Estimate, band: Band, decimals: int) -> str:
    return f"± {band.high - estimate.value:z.{decimals}f}"
