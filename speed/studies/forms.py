"""Three forms of a law of scores by data size, and their weighted least squares.

    log-linear   S = a + b log2 D
    power        S = limit - A D^-alpha
    saturating   S = limit - B / (D0 + D^beta)

For given exponents each form is linear, so only exponents are searched: over a grid, then from its best places (SciPy).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

STEPS = 6
"""Halvings of the grid's distance in which the fit of a redrawn curve ends."""
AT_END = 0.01
"""Distance of an exponent from the end of its grid, as a share, below which it lies there."""
Array: TypeAlias = NDArray[np.float64]
Name: TypeAlias = Literal["log-linear", "power", "saturating"]
NAMES: tuple[Name, ...] = ("log-linear", "power", "saturating")


class Form(NamedTuple):
    """A form that is linear for given exponents."""

    name: Name
    grid: tuple[tuple[float, ...], ...]
    """Values to try of each exponent."""
    basis: Callable[[Array, Sequence[Any]], Array]
    """What the slope is multiplied with, by size (in units of the middle size) and exponents."""
    parameters: Callable[[Array, Sequence[float], float], dict[str, float]]
    exponents: tuple[str, ...] = ()
    """What its exponents are called."""

    @property
    def free(self) -> int:
        """How many parameters it has."""
        return 2 + len(self.grid)


def _spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(np.geomspace(low, high, count).tolist())


FORMS = (
    Form(
        "log-linear",
        (),
        lambda x, _: np.log2(x),
        lambda c, _, unit: {"a": c[0] - c[1] * math.log2(unit), "b": c[1]},
    ),
    Form(
        "power",
        (_spaced(0.02, 3.0, 40),),
        lambda x, e: -(x ** -e[0]),
        lambda c, e, unit: {"limit": c[0], "A": c[1] * unit ** e[0], "alpha": e[0]},
        ("alpha",),
    ),
    Form(
        "saturating",
        (_spaced(0.05, 4.0, 14), _spaced(0.01, 10.0, 8)),
        lambda x, e: -1 / (e[1] + x ** e[0]),
        lambda c, e, unit: {"limit": c[0], "B": c[1] * unit ** e[0], "D0": e[1] * unit ** e[0], "beta": e[0]},
        ("beta", "D0"),
    ),
)


def at_ends(form: Form, exponents: Sequence[float]) -> tuple[str, ...]:
    """The exponents at the end of those that are tried, by name."""
    return tuple(
        name
        for name, value, grid in zip(form.exponents, exponents, form.grid, strict=True)
        if min(abs(math.log(value / end)) for end in (grid[0], grid[-1])) < AT_END
    )


class Curve(NamedTuple):
    """A form with its exponents, fitted to some sizes."""

    form: Form
    exponents: tuple[float, ...]
    coefficients: Array
    """Level and slope."""

    def at(self, x: Array) -> Array:
        """Scores by size."""
        return np.asarray(self.coefficients[0] + self.coefficients[1] * self.form.basis(x, self.exponents))


def cells(form: Form) -> list[tuple[float, ...]]:
    """All places of the grid of exponents."""
    return list(itertools.product(*form.grid))


def misses_of(form: Form, exponents: Sequence[Any], x: Array, means: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted misses and the two coefficients of the weighted least squares; one row for each row of `means`.

    Args:
        exponents: numbers, or columns with one for each row of `means`.
    """
    basis, shares = form.basis(x, exponents), weights / weights.sum()
    centred = basis - (basis @ shares)[..., None]
    slopes = (means * shares * centred).sum(-1) / (shares * centred**2).sum(-1)
    levels = means @ shares - slopes * (basis @ shares)
    misses = means - levels[:, None] - slopes[:, None] * basis
    return misses * np.sqrt(weights), np.column_stack([levels, slopes])


def predicted(form: Form, x: Array, means: Array, weights: Array, wanted: Array) -> Array:
    """Scores at the wanted sizes by a fit to each row of `means`, from the best place of the grid in smaller steps."""
    lowest = np.full(len(means), np.inf)
    best = [np.full((len(means), 1), values[0]) for values in form.grid]

    def tried(exponents: Sequence[Any]) -> None:
        squares = (misses_of(form, exponents, x, means, weights)[0] ** 2).sum(1)
        better = squares < lowest
        lowest[better] = squares[better]
        for kept, found in zip(best, exponents, strict=True):
            kept[better] = np.broadcast_to(found, kept.shape)[better]

    for place in cells(form):
        tried(place)
    for halvings in range(1, STEPS if form.grid else 0):
        around = list(best)
        best = [each.copy() for each in best]
        reach = [(values[1] / values[0]) ** (0.5**halvings) for values in form.grid]
        for direction in itertools.product((-1, 0, 1), repeat=len(reach)):
            moved = [each * by**way for each, by, way in zip(around, reach, direction, strict=True)]
            ends = [(values[0], values[-1]) for values in form.grid]
            tried([np.clip(each, *end) for each, end in zip(moved, ends, strict=True)])
    coefficients = misses_of(form, best, x, means, weights)[1]
    return np.asarray(coefficients[:, :1] + coefficients[:, 1:] * form.basis(wanted, best))


def fit(form: Form, x: Array, means: Array, weights: Array) -> Curve:
    """Weighted least squares, from the three best places of the grid."""

    def misses(logarithms: Sequence[float]) -> Array:
        found: Array = misses_of(form, np.exp(logarithms).tolist(), x, means[None], weights)[0][0]
        return found

    starts = sorted(cells(form), key=lambda cell: float((misses(np.log(cell).tolist()) ** 2).sum()))[:3]
    exponents = starts[0]
    if form.grid:
        bounds = ([math.log(values[0]) for values in form.grid], [math.log(values[-1]) for values in form.grid])
        inside = [np.clip(np.log(start), np.add(bounds[0], 1e-6), np.subtract(bounds[1], 1e-6)) for start in starts]
        found = min(
            (optimize.least_squares(misses, start, bounds=bounds) for start in inside),
            key=lambda one: float(one.cost),
        )
        exponents = tuple(np.exp(found.x).tolist())
    return Curve(form, exponents, misses_of(form, exponents, x, means[None], weights)[1][0])
