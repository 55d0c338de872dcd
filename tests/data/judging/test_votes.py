"""Protocols of judging: orders and verdicts, with outcomes worked out by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from speed.data.draws import shuffled_order
from speed.data.judging.votes import Judge, Shortlist, draw_orders, first_alike, read_candidates, verdict
from speed.data.records import Candidates, Kind, Prompt, Rejected, Vote

EVERYONE = Shortlist((0, 1, 2, 3))
APART = (0, 1, 2, 3)


def votes(*named: tuple[int, int] | str) -> list[Vote]:
    """Judgements: (best, worst), or the cause of a spoilt one."""
    return [
        Vote(order=APART, prompt="", cause=one)
        if isinstance(one, str)
        else Vote(order=APART, prompt="", best=one[0], worst=one[1])
        for one in named
    ]


VOTE = Judge(votes=3, decide="majority")
FIVE = Judge(votes=5, decide="majority")


def margin(least: float, count: int = 3) -> Judge:
    return Judge(votes=count, decide="margin", margin=least)


@pytest.mark.parametrize(
    ("judge", "given", "expected"),
    [
        (Judge(), [(2, 0)], (2, 0)),
        (Judge(), ["truncated"], "truncated"),
        (Judge(votes=2), [(2, 0), (2, 0)], (2, 0)),
        (Judge(votes=2), [(2, 0), (2, 1)], "disagreement"),
        (Judge(votes=2), [(2, 0), (1, 0)], "disagreement"),
        (Judge(votes=2), [(2, 0), "no_json"], "no_json"),
        (VOTE, [(2, 0), (2, 1), (3, 0)], (2, 0)),
        (VOTE, [(2, 0), (1, 0), (3, 0)], "no_majority"),
        (VOTE, [(2, 0), (2, 1), (2, 3)], "no_majority"),
        (VOTE, [(2, 0), "no_json", (2, 0)], (2, 0)),
        (VOTE, [(2, 0), "no_json", "refusal"], "no_majority"),  # one of three is no majority
        (VOTE, ["no_json", "refusal", "empty"], "no_json"),
        (FIVE, [(2, 0), (2, 0), (1, 3), (1, 0), (2, 3)], (2, 0)),
        (margin(1.0), [(2, 0)] * 3, (2, 0)),
        (margin(1.0), [(2, 0), (2, 0), (2, 1)], "no_margin"),  # scores 3 and -2 of 3: 5/6
        (margin(0.83), [(2, 0), (2, 0), (2, 1)], (2, 0)),
        (margin(0.6), [(2, 0), (2, 1), (1, 0)], (2, 0)),  # 2 and -2: 2/3
        (margin(0.6), [(2, 0), (0, 2), (2, 0)], "no_margin"),  # 1 and -1: 1/3
        (margin(0.3), [(2, 0), (0, 2), (2, 0)], (2, 0)),
        (margin(0.6), [(2, 0), (2, 0), "no_json"], (2, 0)),  # a spoilt vote adds nothing: 2 and -2
        (margin(0.5, 2), [(2, 0), (3, 1)], (2, 0)),  # equal scores: the first of them
    ],
)
def test_verdicts(judge: Judge, given: list[tuple[int, int] | str], expected: tuple[int, int] | str) -> None:
    found = verdict(votes(*given), EVERYONE, APART, judge)
    assert (found.cause if isinstance(found, Rejected) else found) == expected


def test_naming_either_of_two_answers_that_say_the_same_is_the_same_judgement() -> None:
    same = (0, 1, 0, 3)
    assert verdict(votes((0, 1), (2, 1)), EVERYONE, same, Judge(votes=2)) == (0, 1)
    found = verdict(votes((0, 2)), EVERYONE, same, Judge())
    assert isinstance(found, Rejected)
    assert found.cause == "identical"


def test_what_guidelines_decided_is_not_asked() -> None:
    assert verdict([], Shortlist((), best=1, worst=3), APART, VOTE) == (1, 3)
    known = Shortlist((0, 1, 2), worst=3)
    assert verdict(votes((1, 0), (1, 2)), known, APART, Judge(votes=2)) == (1, 3)  # they agree on what they decide
    assert verdict(votes((1, 0), (1, 2), (0, 1)), known, APART, margin(0.6)) == (1, 3)  # (2 - 1 and -3) / 6


def test_orders_are_drawn_swapped_and_recorded_by_row() -> None:
    for row in range(50):
        found = draw_orders(range(5), 5, 5, seed=3, row=row)
        assert list(found[0]) == shuffled_order(5, 3, "judge", row)
        assert found[1] == found[0][::-1]
        assert found[3] == found[2][::-1]
        assert len(set(found)) == 5
        assert all(sorted(order) == [0, 1, 2, 3, 4] for order in found)
        assert draw_orders(range(5), 5, 2, seed=3, row=row) == found[:2]


def test_every_place_is_as_likely() -> None:
    first = [draw_orders(range(5), 5, 3, seed=0, row=row)[vote].index(0) for row in range(4_000) for vote in (0, 2)]
    for place in range(5):
        assert abs(first.count(place) - 1_600) < 5 * 36  # five standard deviations of a binomial


def test_fewer_candidates_than_orders_repeat_and_never_hang() -> None:
    assert [set(order) for order in draw_orders((1, 4), 5, 5, seed=0, row=0)] == [{1, 4}] * 5
    assert len(set(draw_orders((1, 4), 5, 5, seed=0, row=0))) == 2
    assert len(set(draw_orders((1, 2, 4), 5, 7, seed=0, row=0))) == 6
    assert draw_orders((2,), 5, 3, seed=0, row=0) == [(2,)] * 3


def test_answers_are_compared_by_what_they_say() -> None:
    texts = (
        '{"input": "A b", "positive_document": "c"}',
        'Sure: {"positive_document": "C", "input": "a  B"}',
        '{"input": "ａ b", "positive_document": "c"}',
        '{"input": "a b", "positive_document": "d"}',
        "no JSON",
        "No  json",
    )
    found = Candidates(
        row=0, prompt=Prompt(text="", template="", kind=Kind.SHORT_SHORT), texts=texts, finish_reasons=("stop",) * 6
    )
    assert first_alike(read_candidates(found)) == (0, 0, 0, 3, 4, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"votes": 2, "decide": "majority"}, "votes=2 can be a draw"),
        ({"votes": 4, "decide": "majority"}, "odd number"),
        ({"votes": 3, "decide": "margin"}, "a margin above 0 belongs to decide=margin"),
        ({"votes": 3, "margin": 0.5}, "a margin above 0 belongs to decide=margin"),
        ({"votes": 1, "models": ("a", "b")}, "2 models need as many votes"),
        ({"votes": 0}, "greater than or equal to 1"),
        ({"protocol": "swap"}, "protocol"),
    ],
)
def test_protocols_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Judge.model_validate(fields)
