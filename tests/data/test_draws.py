"""Draws depend on the seed and the path only."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random

from speed.data.draws import generator, permutation, shuffled_order, weighted_choice


def test_paths_and_types_are_told_apart() -> None:
    paths = [(), ("a",), ("b",), (1,), ("1",), ("a", 1), ("a1",), ("a", "b"), ("ab",)]
    firsts = {generator(seed, *path).random() for seed in (0, 1) for path in paths}
    assert len(firsts) == 2 * len(paths)


def test_same_draws_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from speed.data.draws import generator, shuffled_order;"
        "print(generator(7, 'synthesis', 3, 0).random(), shuffled_order(9, 7, 'topics', 'ü'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = f"{generator(7, 'synthesis', 3, 0).random()} {shuffled_order(9, 7, 'topics', 'ü')}"
    assert shown.stdout.strip() == here


def test_draws_are_pinned() -> None:
    """A change of these numbers changes every prompt that was ever paid for: raise versions, do not edit the test."""
    assert generator(0, "synthesis", 0).random() == 0.3173272034498841
    assert shuffled_order(6, 0, "topics") == [1, 0, 5, 3, 2, 4]


def test_weights_are_kept_and_zero_is_never_drawn() -> None:
    rng = Random(1)
    drawn = [weighted_choice(rng, "abc", (0.25, 0.0, 0.75)) for _ in range(20_000)]
    assert drawn.count("b") == 0
    assert abs(drawn.count("a") - 5_000) < 5 * 61  # five standard deviations of a binomial


def test_uniform_without_weights() -> None:
    rng = Random(2)
    drawn = [weighted_choice(rng, range(4)) for _ in range(20_000)]
    assert all(abs(drawn.count(value) - 5_000) < 5 * 61 for value in range(4))


def test_permutations_are_uniform() -> None:
    rng = Random(3)
    seen = [tuple(permutation(rng, 3)) for _ in range(12_000)]
    assert len(set(seen)) == 6
    assert all(abs(seen.count(order) - 2_000) < 5 * 41 for order in set(seen))
