"""Figures of judging: counted by hand, added up, and compared with scipy's own test of places."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.special import chdtrc
from scipy.stats import chisquare

from speed.data.judging.statistics import PREFIX, chi_square_tail, list_counts, list_figures
from speed.data.records import Pair, Prompt, Vote

PROMPT = Prompt(text="", template="")


@pytest.mark.parametrize("freedom", range(1, 10))
def test_the_tail_of_chi_square_is_scipys(freedom: int) -> None:
    for value in (0.0, 1e-9, 0.3, 2.0, 7.5, 40.0, 900.0):
        assert chi_square_tail(freedom, value) == pytest.approx(chdtrc(freedom, value), rel=1e-9, abs=1e-300)


def vote(order: tuple[int, ...], best: int, worst: int, **fields: str) -> Vote:
    return Vote(order=order, prompt="", best=best, worst=worst, **fields)


@pytest.mark.parametrize("seen", [[10, 10], [14, 6], [3, 9, 12], [7, 1, 0, 4], [1, 2, 3, 4, 5, 6, 7, 8, 40, 0, 3]])
def test_places_are_held_against_an_even_spread(seen: list[int]) -> None:
    counts = {f"{PREFIX}best/{place}": count for place, count in enumerate(seen)}
    found = list_figures({**counts, f"{PREFIX}shown/{len(seen)}": sum(seen)}, {})
    assert found["best_by_place_p"] == pytest.approx(chisquare(seen).pvalue, abs=1e-6)


def test_hand_counted() -> None:
    same = (0, 1, 2, 0)  # candidate 3 says what candidate 0 says
    agreed = Pair(
        row=0, prompt=PROMPT, chosen="long", rejected_text="s",
        votes=(vote((2, 0, 1, 3), 0, 1), vote((3, 1, 0, 2), 3, 1), vote((0, 1, 2, 3), 2, 1)),
    )  # fmt: skip
    spoilt = Pair(
        row=1, prompt=PROMPT, votes=(vote((1, 0), 0, 1), Vote(order=(0, 1), prompt="", cause="no_json"))
    ).reject("no_json")
    total = list_counts(agreed, same) + list_counts(spoilt, (0, 1))
    found = list_figures(Counter({"in": 2, **total}), {"no_json": 1})
    assert found["calls_per_list"] == 2.5
    assert found["best_by_place"] == [0, 2, 1, 0]
    assert found["worst_by_place"] == [1, 1, 1, 0]
    assert found["swap_flips"] == 0.0
    assert found["agreement_best"] == round(1 / 3, 4)
    assert found["agreement_worst"] == 1.0
    assert (found["longer_wins"], found["chosen_characters"], found["rejected_characters"]) == (1.0, 4.0, 1.0)
    assert found["length_gap"] == 3.0
    assert found["dropped"] == {"no_json": 0.5}
    # Expected by place: two lists of four and one of two: 1, 1, 0.5, 0.5.
    assert found["best_by_place_p"] == pytest.approx(0.391625, abs=1e-6), "a chi-square of 3 with 3 degrees of freedom"


def test_a_judge_who_names_another_one_after_the_swap_has_flipped() -> None:
    pair = Pair(row=0, prompt=PROMPT, votes=(vote((0, 1, 2), 0, 1), vote((2, 1, 0), 0, 2))).reject("disagreement")
    found = list_figures(list_counts(pair, (0, 1, 2)), {})
    assert (found["swap_flips"], found["agreement_best"], found["agreement_worst"]) == (1.0, 1.0, 0.0)
    others = Pair(row=0, prompt=PROMPT, votes=(vote((0, 1), 0, 1, model="a"), vote((1, 0), 1, 0, model="b")))
    assert list_figures(list_counts(others, (0, 1)), {})["swap_flips"] is None


def test_nothing_seen_is_null_and_not_zero() -> None:
    found = list_figures({}, {})
    assert {name for name, value in found.items() if value is None} == {
        "calls_per_list", "best_by_place_p", "worst_by_place_p", "longer_wins", "chosen_characters",
        "rejected_characters", "length_gap", "chosen_faulty", "rejected_faulty", "swap_flips", "agreement_best",
        "agreement_worst",
    }  # fmt: skip
