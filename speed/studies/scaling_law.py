"""The law of scores by data size: three forms, fitted with bands, told apart, and tested on the largest size.

Whatever is measured at several sizes can be fitted: mean scores, scores of a type, or the contrastive entropy of
held-out pairs, as a task of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from speed.core.errors import UserError
from speed.core.spec import Spec
from speed.studies.by_size import BySize, Estimate, Measured, of_shared_seeds
from speed.studies.forms import FORMS, NAMES, Array, Curve, Form, Name, at_ends, fit, predicted

FEWEST_SIZES = 5
"""Below it a curve cannot be told from a line, and only the line is fitted."""
TOLD_APART = 2.0
"""Difference of AICc from which a form is called better than another."""
FIT = 0.05
"""A p-value below which a form does not fit."""
FORETOLD = 100
"""How many times the largest size a law is followed in search of a size; beyond it nothing can be foretold."""


class Extrapolation(Spec):
    """What the law of all sizes but the largest says of the largest."""

    size: int
    predicted: float
    measured: float
    inside: bool | None
    """Whether the two agree within the band of their difference over seeds; None without such a band."""


class Fit(Spec):
    """Whether means by size lie about a form as closely as their noise allows."""

    chi_square: float
    freedom: int
    """Sizes less parameters."""
    p: float
    """Chance of such a chi-square or a larger one if the form is right (F test: the noise is estimated, too)."""

    @property
    def refused(self) -> bool:
        """Whether the form does not fit."""
        return self.p < FIT


class Law(Spec):
    """One form, fitted."""

    form: Name
    parameters: dict[str, float]
    """Under the names that `forms.py` gives them; D in examples."""
    aicc: float | None
    """Akaike's criterion for small samples, over sizes; None where there are too few sizes for the parameters."""
    fit: Fit | None = None
    """None where the noise is unknown, or no size is left to test with. Bands are those of a form that is right."""
    at_ends: tuple[str, ...] = ()
    """Exponents at the end of those that were tried: there the form bends as little, or as much, as it can."""
    extrapolation: Extrapolation | None
    curve: dict[int, Estimate]
    """Score by number of examples."""
    points_a_doubling: Estimate
    """What the next doubling brings at the largest size."""
    dollars_a_tenth: float | None
    """Price of the next tenth of a point by more examples; None without a price, or beyond what can be foretold."""
    doubling_below_noise: int | None
    """Size, by doublings of the smallest measured, from which on each brings less than the noise, up to where something
    can be foretold; None where that ends first, or the noise is unknown."""


class Laws(Spec):
    """The forms, each fitted to the same scores."""

    laws: tuple[Law, ...]
    best: str | None
    """The form that AICc prefers; None where none is clearly better, or the one that is does not fit."""
    remark: str
    """Why there is a best form or none."""
    noise: float | None
    """Standard deviation of one run's score over seeds; None where a size has a single seed."""
    level: float
    same_seeds: bool = True
    """Whether all sizes have the same seeds, so that what lifts a seed at all sizes alike is not in the noise."""
    left_out: int = 0
    """Runs with a seed that some size lacks, where the sizes share two seeds at least."""


def fit_laws(
    measured: Measured,
    at: Sequence[int] = (),
    dollars_per_example: float | None = None,
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    forms: Sequence[Name] = NAMES,
) -> Laws:
    """Fit every form that the sizes allow.

    Where all sizes share two seeds or more, to the runs of these seeds alone: a seed lifts its runs at all sizes alike,
    so one that a size lacks would bend the curve there.

    Args:
        at: sizes of the curve; empty for the measured ones and the next doubling.
        dollars_per_example: what one more example costs.
        level: of the bands.
        resamples: how often seeds, and tasks, are drawn again.
        seed: of these draws.
        forms: to fit.

    Raises:
        UserError: for fewer than two sizes, or runs that share no task.
    """
    sizes = sorted(measured)
    if len(sizes) < 2:
        raise UserError("a law of scores by size needs at least two sizes: run the sweep `scaling`")
    taken, left_out = of_shared_seeds(measured)
    data = BySize(taken, level, resamples, seed)
    sizes_of_curve = sorted(at) or [*sizes, 2 * sizes[-1]]
    enough = len(sizes) >= FEWEST_SIZES
    laws = tuple(
        _law(form, data, sizes_of_curve, dollars_per_example)
        for form in FORMS
        if form.name in forms and (form.free < len(sizes) if enough else form is FORMS[0])
    )
    best, remark = _ranked(laws) if enough else (None, f"not identifiable: {len(sizes)} sizes, and {FEWEST_SIZES} tell")
    return Laws(
        laws=laws,
        best=best,
        remark=remark,
        noise=data.noise,
        level=level,
        same_seeds=data.same_seeds,
        left_out=left_out,
    )


def _law(form: Form, data: BySize, curve: list[int], dollars_per_example: float | None) -> Law:
    x = data.units(data.sizes)
    fitted = fit(form, x, data.means, data.weights)
    wanted = data.units([*curve, data.sizes[-1], 2 * data.sizes[-1]])

    def figures(scores: Array) -> Array:
        return np.column_stack([scores[:, :-2], scores[:, -1] - scores[:, -2]])

    *scores, gain = data.estimates(
        figures(fitted.at(wanted)[None])[0],
        lambda means: figures(predicted(form, x, means, data.weights, wanted)),
    )
    parameters = form.parameters(fitted.coefficients, fitted.exponents, data.unit)
    return Law(
        form=form.name,
        parameters={name: float(value) for name, value in parameters.items()},
        aicc=_aicc(form, fitted, x, data),
        fit=_fit(form, fitted, x, data),
        at_ends=at_ends(form, fitted.exponents),
        extrapolation=_extrapolation(form, data),
        curve=dict(zip(curve, scores, strict=True)),
        points_a_doubling=gain,
        dollars_a_tenth=_dollars_a_tenth(fitted, data, dollars_per_example),
        doubling_below_noise=_doubling_below_noise(fitted, data),
    )


def _fit(form: Form, fitted: Curve, x: Array, data: BySize) -> Fit | None:
    freedom = len(x) - form.free
    if not data.noise_is_known or freedom < 1:
        return None
    chi_square = _squares(fitted, x, data)
    p = float(stats.f.sf(chi_square / freedom, freedom, data.freedom_of_noise))
    return Fit(chi_square=chi_square, freedom=freedom, p=p)


def _squares(fitted: Curve, x: Array, data: BySize) -> float:
    return float((data.weights * (data.means - fitted.at(x)) ** 2).sum())


def _aicc(form: Form, fitted: Curve, x: Array, data: BySize) -> float | None:
    """Gaussian AICc over the means by size; without several seeds the noise is one more parameter."""
    squares = _squares(fitted, x, data)
    count, parameters = len(x), form.free + (not data.noise_is_known)
    if count - parameters - 1 <= 0:
        return None
    if not data.noise_is_known:
        squares = count * math.log(max(squares, 1e-12) / count)
    return squares + 2 * parameters + 2 * parameters * (parameters + 1) / (count - parameters - 1)


def _ranked(laws: Sequence[Law]) -> tuple[str | None, str]:
    known = sorted((law.aicc, law.form) for law in laws if law.aicc is not None)
    if len(known) < 2:
        return None, "not identifiable: too few sizes for more than one form"
    (lowest, best), (second, other) = known[:2]
    if second - lowest < TOLD_APART:
        return None, f"not told apart: {best} and {other} differ by {second - lowest:.1f} in AICc"
    if any(law.form == best and law.fit is not None and law.fit.refused for law in laws):
        return None, f"none: {best}, whose AICc is {second - lowest:.1f} below that of {other}, does not fit"
    return best, f"{best}: its AICc is {second - lowest:.1f} below that of {other}"


def _extrapolation(form: Form, data: BySize) -> Extrapolation | None:
    x = data.units(data.sizes)
    if len(x) - 1 < form.free:
        return None
    at_largest = float(fit(form, x[:-1], data.means[:-1], data.weights[:-1]).at(x[-1:])[0])
    [error] = data.estimates(
        np.array([at_largest - data.means[-1]]),
        lambda means: predicted(form, x[:-1], means[:, :-1], data.weights[:-1], x[-1:]) - means[:, -1:],
    )
    inside = None if error.seeds is None else error.seeds.low <= 0 <= error.seeds.high
    return Extrapolation(size=data.sizes[-1], predicted=at_largest, measured=float(data.means[-1]), inside=inside)


def _dollars_a_tenth(fitted: Curve, data: BySize, dollars_per_example: float | None) -> float | None:
    if dollars_per_example is None:
        return None
    largest = data.sizes[-1]

    def lacking(doublings: float) -> float:
        then, now = fitted.at(data.units([largest * 2**doublings, largest]))
        return float(then - now) - 0.1

    if lacking(math.log2(FORETOLD)) <= 0:
        return None
    doublings = float(optimize.brentq(lacking, 0, math.log2(FORETOLD)))
    return dollars_per_example * largest * (2**doublings - 1)


def _doubling_below_noise(fitted: Curve, data: BySize) -> int | None:
    if not data.noise:
        return None
    doublings = int(math.log2(FORETOLD * data.sizes[-1] / data.sizes[0]))
    sizes = [data.sizes[0] * 2**doubling for doubling in range(doublings + 1)]
    gains = np.abs(np.diff(fitted.at(data.units([*sizes, 2 * sizes[-1]]))))
    first = max((place + 1 for place, gain in enumerate(gains) if gain >= data.noise), default=0)
    return sizes[first] if first < len(sizes) else None
