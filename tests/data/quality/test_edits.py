"""Edits by revisions: counted by hand, and common words compared with the table that defines them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from speed.data.quality.edits import common_length, counts, figures
from speed.data.records import Example, Kind


def match(query: str, positive: str) -> Example:
    return Example(kind=Kind.SHORT_SHORT, task="t", query=query, positive=positive)


def by_table(left: list[str], right: list[str]) -> int:
    """Longest common subsequence by its recurrence."""
    above = [0] * (len(right) + 1)
    for one in left:
        row = [0]
        for place, other in enumerate(right):
            row.append(above[place] + 1 if one == other else max(above[place + 1], row[place]))
        above = row
    return above[-1]


@given(st.lists(st.sampled_from("abcd"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80))
def test_common_words_are_those_of_the_table(left: list[str], right: list[str]) -> None:
    assert common_length(left, right) == by_table(left, right)


def test_hand_counted() -> None:
    before = match("a bird in the hand", "is worth two")
    total = Counter[str]()
    total += counts(before, before)
    total += counts(before, match("a bird in a hand", "is worth two in the bush."))  # the -> a; 4 words put in
    total += counts(before, match("A bird in the hand", "is worth two"))
    total += counts(None, before)
    assert figures(total) == {
        "made_readable": 1, "unchanged_share": round(1 / 3, 4), "words_kept": round((8 + 7 + 7) / 24, 4),
        "words_edited": round((0 + 6 + 2) / 3, 4),
    }  # fmt: skip
    assert all("/" in name for name in total), "material of figures, which the report does not show by itself"


def test_a_script_without_spaces_is_compared_by_characters() -> None:
    found = figures(counts(match("日本の首都", "東京"), match("日本の古都", "京都")))
    assert (found["words_kept"], found["words_edited"]) == (round(5 / 7, 4), 4.0)


def test_nothing_compared_is_null_and_not_zero() -> None:
    assert figures({}) == {"made_readable": 0, "unchanged_share": None, "words_kept": None, "words_edited": None}
