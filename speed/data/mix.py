"""Which kind each row of a pool has: 7:7:7:2 in the paper (Table 6), with its text matching split 1:1 into two kinds.

The kinds follow a repeating pattern, a weighted round robin. After any number of rows, each kind has its exact share to
within one row. So the first rows of a pool are always a smaller pool with the same mix.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property, lru_cache
from math import gcd

from pydantic import Field, model_validator

from speed.core.spec import Spec
from speed.data.records import Kind


class Mix(Spec):
    """Integer weights of the five kinds; 0 leaves a kind out."""

    retrieval: int = Field(7, ge=0)
    classification: int = Field(7, ge=0)
    sts: int = Field(7, ge=0)
    short_short: int = Field(1, ge=0)
    long_long: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _some_kind(self) -> Mix:
        if not any(self.weights.values()):
            raise ValueError("every weight is 0: at least one kind must have a weight above 0")
        if sum(self.weights.values()) > 100_000:
            raise ValueError("weights add up to more than 100,000: divide them by a common factor")
        return self

    @property
    def weights(self) -> dict[Kind, int]:
        """Weight of each kind, zeros included."""
        return {kind: getattr(self, kind.value) for kind in Kind}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds with a weight above 0."""
        return tuple(kind for kind, weight in self.weights.items() if weight)

    def only(self, *kinds: Kind) -> Mix:
        """The same weights for these kinds, and 0 for the others."""
        return Mix(**{kind.value: weight if kind in kinds else 0 for kind, weight in self.weights.items()})

    def pattern(self) -> tuple[Kind, ...]:
        """The kinds of the first rows, up to where they repeat: the sum of the weights over their common divisor."""
        return self._turns.pattern

    def kind_of(self, row: int) -> Kind:
        """Kind of a row; rows count from 0."""
        turns = self._turns
        return turns.pattern[row % len(turns.pattern)]

    def index_within_kind(self, row: int) -> int:
        """Number of earlier rows of the same kind."""
        turns = self._turns
        rounds, place = divmod(row, len(turns.pattern))
        return rounds * len(turns.places[turns.pattern[place]]) + turns.seen[place]

    def row_of(self, kind: Kind, index: int) -> int:
        """Row that has the number `index` within its kind: the inverse of `kind_of` and `index_within_kind`.

        Raises:
            ValueError: if the kind has weight 0.
        """
        turns = self._turns
        places = turns.places[kind]
        if not places:
            raise ValueError(f"{kind} has weight 0 in this mix")
        rounds, place = divmod(index, len(places))
        return rounds * len(turns.pattern) + places[place]

    def counts(self, rows: int) -> dict[Kind, int]:
        """Number of rows of each of the five kinds among the first `rows` rows."""
        turns = self._turns
        rounds, rest = divmod(rows, len(turns.pattern))
        head = turns.pattern[:rest]
        return {kind: rounds * len(turns.places[kind]) + head.count(kind) for kind in Kind}

    @cached_property
    def _turns(self) -> _Turns:
        return _turns_of(tuple(self.weights.values()))


class _Turns:
    """The pattern of some weights, and the tables that are looked up for each row."""

    def __init__(self, pattern: tuple[Kind, ...]) -> None:
        self.pattern = pattern

    @cached_property
    def places(self) -> dict[Kind, list[int]]:
        """Places of each kind in the pattern."""
        return {kind: [place for place, other in enumerate(self.pattern) if other is kind] for kind in Kind}

    @cached_property
    def seen(self) -> list[int]:
        """For each place of the pattern, the number of earlier places of its kind."""
        so_far: dict[Kind, int] = dict.fromkeys(Kind, 0)
        result = []
        for kind in self.pattern:
            result.append(so_far[kind])
            so_far[kind] += 1
        return result


@lru_cache(maxsize=64)
def _turns_of(weights: tuple[int, ...]) -> _Turns:
    """Give each row to the kind that is due and has the earliest deadline (Tijdeman 1980).

    This keeps each count within 1 - 1/(2k-2) rows of the exact share for k kinds, whatever the weights
    ("The chairman assignment problem").
    """
    common = gcd(*weights)
    left = {kind: weight // common for kind, weight in zip(Kind, weights, strict=True) if weight}
    total, slack = sum(left.values()), max(2 * len(left) - 2, 1)
    given = dict.fromkeys(left, 0)
    pattern: list[Kind] = []
    for row in range(1, total + 1):
        due = [kind for kind in left if slack * (left[kind] * row - given[kind] * total) >= total]
        # The deadline is (given + 1 - 1/slack) / share; a common factor does not change which comes first.
        kind = min(due, key=lambda kind: Fraction((given[kind] + 1) * slack - 1, left[kind]))
        given[kind] += 1
        pattern.append(kind)
    return _Turns(tuple(pattern))
