"""The calibration spoils what it says and nothing else, and its smallest difference is that of the tables."""

from __future__ import annotations

import random
from typing import Any

import pytest
from calibrate_miniature import (
    KINDS,
    SPOILT,
    calibrated,
    in_other_words,
    pooled_deviation,
    seeds_for,
    smallest_difference,
    spoilt,
    table,
)

from speed.data.calibration import Calibration
from speed.miniature.lexicon import meaning
from speed.miniature.world import seeded

PLACES = ("coast", "forest", "village", "desert", "river", "hills", "market", "station")
ROWS: list[dict[str, Any]] = [
    {
        "kind": "retrieval",
        "task": "Given a question, find notes.",
        "query": f"repair of boats near the {place}",
        "positive": f"Mending of vessels near the {place} for students.",
        "negative": f"Repair of cars near the {place}.",
    }
    for place in PLACES
]
FEWER = [row | {"query": f"other {number}"} for number, row in enumerate(ROWS)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_dose_spoils_so_many_examples(kind: str) -> None:
    half, whole = (spoilt(ROWS, FEWER, kind, dose, 0, len(ROWS)) for dose in (50, 100))
    assert spoilt(ROWS, FEWER, kind, 0, 0, len(ROWS)) == ROWS
    if kind == "half as many":
        assert (len(half), len(whole)) == (6, 4)
        assert all(row in ROWS for row in whole)
        return
    changed = [place for place, row in enumerate(half) if row != ROWS[place]]
    assert len(changed) == 4
    assert all(row != good for row, good in zip(whole, ROWS, strict=True))
    assert all(half[place] == whole[place] for place in changed if kind == "query copied")


def test_what_is_spoilt() -> None:
    rng = seeded("test")
    row = {name: spoil(ROWS[0], ROWS, rng) for name, spoil in SPOILT.items()}
    assert row["wrong positive"]["positive"] in {each["positive"] for each in ROWS[1:]}
    assert row["easy negative"]["negative"] in {each["negative"] for each in ROWS[1:]}
    assert row["query copied"]["positive"] == ROWS[0]["query"]
    right = row["negative that is right"]
    assert meaning(right["negative"]) == meaning(right["positive"])
    assert right["negative"] != right["positive"]
    pair = {"kind": "short_short", "query": "a", "positive": "b"}
    assert SPOILT["easy negative"](pair, [pair], rng) == SPOILT["negative that is right"](pair, [pair], rng) == pair


def test_other_words_keep_the_meaning() -> None:
    text = "Mending of vessels for pupils."
    other = in_other_words(text, seeded("words"))
    assert meaning(other) == meaning(text)
    assert not {"Mending", "vessels", "pupils"} & set(other.strip(".").split())


def test_smallest_difference() -> None:
    """Of a two-sided paired t-test at 5 % with power 0.8: 1.68 standard deviations of five pairs, 0.50 of 34.

    A deviation that is known exactly gives 2.80 / sqrt(5) = 1.25.
    """
    assert smallest_difference(1.0, 5, 4) == pytest.approx(1.68, abs=0.01)
    assert smallest_difference(2.0, 34, 33) == pytest.approx(1.0, abs=0.02)
    assert smallest_difference(1.0, 5, 1e6) == pytest.approx(1.253, abs=0.001)
    assert seeds_for(2.0, 1.0, 1e6) == 32


def test_the_degrees_of_freedom_are_those_of_differences_with_a_run_in_common() -> None:
    """Simulated: the variance of the pooled variance is 2 / freedom."""
    rng = random.Random(0)
    squares = []
    for _ in range(400):
        points = []
        for seed in range(5):
            common = rng.gauss(0, 0.5**0.5)
            points.append({"kind": "none", "dose": 0, "seed": seed, "tasks": {"A": common}})
            for kind in KINDS:
                points.append({"kind": kind, "dose": 50, "seed": seed, "tasks": {"A": rng.gauss(0, 0.5**0.5)}})
        pooled = pooled_deviation(points)
        assert pooled is not None
        squares.append(pooled[0] ** 2)
    middle = sum(squares) / len(squares)
    assert middle == pytest.approx(1.0, abs=0.05)
    assert 2 / (sum((each - middle) ** 2 for each in squares) / len(squares)) == pytest.approx(pooled[1], rel=0.2)


def test_the_spread_of_differences_is_pooled_and_kept_for_reports() -> None:
    """Differences of -1 and -3 have a variance of 2, those of 0 and 0 none: 1 together."""
    scores = {("none", 0): (50.0, 60.0), ("one topic", 50): (49.0, 57.0), ("query copied", 50): (50.0, 60.0)}
    points = [
        {"kind": kind, "dose": dose, "seed": seed, "size": 46, "tasks": {"A": score - 1, "B": score + 1}}
        for (kind, dose), both in scores.items()
        for seed, score in enumerate(both)
    ]
    (row,) = calibrated(points, ["local-b", "local-a"], 46)["rows"]
    found = Calibration.model_validate(row)
    assert (found.datasets, found.examples, found.deviation) == (("local-a", "local-b"), 46, 1.0)
    assert found.five_seeds == pytest.approx(smallest_difference(1.0, 5, 1 / (1 / 2 + 1 / 8)), abs=0.01)
    assert "standard deviation of 1.00 points" in table(points)
    with pytest.raises(SystemExit, match="two seeds"):
        calibrated(points[::2], ["local-a"], 46)
