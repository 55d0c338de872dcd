"""Judge a list of candidates by votes: in which orders they are shown, and which verdict the votes give.

The paper asks once per list (section 3.2.3, Figure 5). But a judge favours places and lengths, and errs by chance. So a
list can be judged several times, in other orders or by other models, and kept only if the judgements agree. What a rule
can see (`speed.data.quality.guidelines`) needs no judge. All functions are pure.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import count
from math import factorial
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from speed.core.spec import Spec
from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.answers.parse import example_json
from speed.data.draws import shuffled_order
from speed.data.records import Candidates, Rejected, Sample, Vote

CHOICES = frozenset(
    {
        "identical", "disagreement", "no_majority", "no_margin", "all_faulty", "all_faultless", "none_faultless",
        "no_faulty_field",
    }
)  # fmt: skip
"""Causes for which a list of readable answers gives no pair."""


class Judge(Spec):
    """How lists are judged. The options of the config group `judge` are combinations of these fields."""

    votes: int = Field(1, ge=1)
    """Judgements per list, each in another order; the paper has 1."""
    decide: Literal["unanimous", "majority", "margin"] = "unanimous"
    """A list is kept if all votes name the same best and worst, if more than half do, or if `margin` is reached."""
    margin: float = Field(0.0, ge=0, le=1)
    """Least margin of decide=margin. The score of a candidate is (times named best - times named worst) / votes, as in
    best-worst scaling. The margin is half the difference between the highest and the lowest score: 1 if all votes agree
    on both, 0 if they contradict one another."""
    verified: bool = False
    """Answers that break a guideline of their prompt lose without being judged."""
    models: tuple[str, ...] = ()
    """Models that judge in turn, instead of the teacher's own model."""
    temperature: float = Field(0.0, ge=0, le=2)
    """0.0 in the paper (Appendix B)."""

    @model_validator(mode="after")
    def _sound(self) -> Judge:
        if self.decide == "majority" and self.votes % 2 == 0:
            raise ValueError(f"votes={self.votes} can be a draw: a majority needs an odd number of votes")
        if (self.decide == "margin") is not (self.margin > 0):
            raise ValueError(
                f"margin={self.margin:g} with decide={self.decide}: a margin above 0 belongs to decide=margin"
            )
        if len(self.models) > self.votes:
            raise ValueError(f"{len(self.models)} models need as many votes or more, not votes={self.votes}")
        return self


class Shortlist(NamedTuple):
    """What a judge still has to decide about a list."""

    shown: tuple[int, ...]
    """Candidates to be judged; empty if nothing is left to decide."""
    best: int | None = None
    """The best one, if it is known without a judge."""
    worst: int | None = None
    """The worst one, if it is known without a judge."""


def read_candidates(listed: Candidates) -> list[Sample]:
    """Parse each candidate and check it against the guidelines of its prompt."""
    texts = zip(listed.texts, listed.finish_reasons, strict=True)
    return [accept_or_reject(listed.row, listed.prompt, text, reason, 0) for text, reason in texts]


def shortlist(read: Sequence[Sample], judge: Judge) -> Shortlist | Rejected:
    """Choose the candidates that a judge has to compare.

    With `verified`, there are three classes: answers without a fault, answers that break a guideline, and answers that
    cannot be read. The best is chosen among the highest class that occurs; the worst is the answer with the most faults
    in the lowest. A single answer in the highest class needs no judge. If all are in one class, all are judged. If none
    can be read, the list is rejected.
    """
    everyone = tuple(range(len(read)))
    if not judge.verified:
        return Shortlist(everyone)
    classes = [2 if row.rejected else 1 if row.faults else 0 for row in read]
    highest, lowest = min(classes), max(classes)
    if highest == 2:
        return Rejected(cause="none_readable", detail=", ".join(str(row.rejected) for row in read))
    if highest == lowest:
        return Shortlist(everyone)
    first = tuple(place for place in everyone if classes[place] == highest)
    last = (place for place in everyone if classes[place] == lowest)
    worst = max(last, key=lambda place: (len(read[place].faults), -place))
    return Shortlist(first, worst=worst) if len(first) > 1 else Shortlist((), best=first[0], worst=worst)


def draw_orders(shown: Sequence[int], candidates: int, votes: int, seed: int, row: int) -> list[tuple[int, ...]]:
    """Draw the order of the candidates for each vote; every second vote has the order before it reversed.

    A larger number of votes begins with the same orders, so a list that was judged once is judged twice for the price
    of one more call. No order is repeated before all have been used.
    """
    orders: list[tuple[int, ...]] = []
    for vote in range(votes):
        if vote % 2:
            orders.append(orders[-1][::-1])
            continue
        for attempt in count():
            path = (vote, attempt) if vote else ()
            drawn = tuple(place for place in shuffled_order(candidates, seed, "judge", row, *path) if place in shown)
            if drawn not in orders or len(orders) >= factorial(len(shown)):
                orders.append(drawn)
                break
    return orders


def first_alike(read: Sequence[Sample]) -> tuple[int, ...]:
    """For each candidate the first one with the same text. A vote for either is the same vote."""
    plain = [_normalised(row) for row in read]
    return tuple(plain.index(text) for text in plain)


def _normalised(row: Sample) -> str:
    """Example or text of a candidate without differences in case, spacing and Unicode form."""
    text = row.text if row.example is None else example_json(row.example)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def verdict(votes: Sequence[Vote], short: Shortlist, same: Sequence[int], judge: Judge) -> tuple[int, int] | Rejected:
    """Best and worst candidate, or why the list is rejected.

    Args:
        votes: best and worst are indices of candidates; a vote with a cause is no judgement.
        same: for each candidate the first one with the same text (`first_alike`).
    """
    if short.best is None or short.worst is None:
        chosen = _elected(votes, short, same, judge)
    else:
        chosen = short.best, short.worst
    if isinstance(chosen, tuple) and same[chosen[0]] == same[chosen[1]]:
        return Rejected(cause="identical", detail="the best and the worst answer say the same")
    return chosen


def _elected(votes: Sequence[Vote], short: Shortlist, same: Sequence[int], judge: Judge) -> tuple[int, int] | Rejected:
    valid = [(same[vote.best], same[vote.worst]) for vote in votes if not vote.cause]
    spoilt = next((vote for vote in votes if vote.cause), None)
    if spoilt is not None and (not valid or judge.decide == "unanimous"):
        return Rejected(cause=spoilt.cause, detail=spoilt.detail)
    bests, worsts = Counter(best for best, _ in valid), Counter(worst for _, worst in valid)
    said = "; ".join(f"best {best}, worst {worst}" for best, worst in valid)
    if judge.decide == "margin":
        # The order of candidates means nothing, so the first of those with equal scores is as good as any.
        score = {place: bests[place] - worsts[place] for place in sorted({same[place] for place in short.shown})}
        best, last = max(score, key=score.__getitem__), min(score, key=score.__getitem__)
        worst, low = (last, score[last]) if short.worst is None else (short.worst, -len(votes))
        margin = (score[best] - low) / (2 * len(votes))
        enough = margin > judge.margin - 1e-9
        return (best, worst) if enough else Rejected(cause="no_margin", detail=f"{margin:.2f}: {said}")
    (best, for_best), (worst, for_worst) = bests.most_common(1)[0], worsts.most_common(1)[0]
    if short.worst is not None:
        worst, for_worst = short.worst, len(votes)
    needed = len(votes) if judge.decide == "unanimous" else len(votes) // 2 + 1
    if min(for_best, for_worst) < needed:
        return Rejected(cause="disagreement" if judge.decide == "unanimous" else "no_majority", detail=said)
    return best, worst
