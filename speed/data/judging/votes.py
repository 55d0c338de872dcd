"""How a list of candidates is judged: who is shown in which order, and what the judgements come to (paper 3.2.2).

The paper asks once a list (Figure 5). A judge has habits of its own: places and lengths that it favours, and chance. So
a list may be judged several times, in other orders or by other models, and kept only where the judgements agree; and
what a rule can see (`speed.data.quality.guidelines`) need not be asked. All here are pure functions of candidates and
judgements.
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
from speed.data.answers.outcome import sample
from speed.data.answers.parse import rendered
from speed.data.draws import shuffled_order
from speed.data.records import Candidates, Rejected, Sample, Vote


class Judge(Spec):
    """How the teacher judges lists; the options of the group `judge` are combinations of these."""

    votes: int = Field(1, ge=1)
    """Judgements of a list, each in another order: what judging costs more than in the paper."""
    decide: Literal["unanimous", "majority", "margin"] = "unanimous"
    """All votes name the same best and the same worst; more than half of them do; or the margin is reached."""
    margin: float = Field(0.0, ge=0, le=1)
    """Least margin of decide=margin. A candidate's score is (times named best - times named worst) / votes, the count
    of best-worst scaling; the margin is half the difference between the highest and the lowest score: 1 when all votes
    agree on both, 0 when they contradict one another."""
    verified: bool = False
    """Answers that break a guideline of their prompt lose before the teacher is asked."""
    models: tuple[str, ...] = ()
    """Models that judge in turn, in place of the teacher's own."""
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
    """What is left to ask about a list."""

    shown: tuple[int, ...]
    """Candidates between which the teacher decides; none when nothing is left to ask."""
    best: int | None = None
    """The best one, where it is known without asking."""
    worst: int | None = None
    """The worst one, where it is known without asking."""


def readings(found: Candidates) -> list[Sample]:
    """Each candidate, read and held against the guidelines of its prompt."""
    texts = zip(found.texts, found.finish_reasons, strict=True)
    return [sample(found.row, found.prompt, text, reason, 0) for text, reason in texts]


def shortlist(read: Sequence[Sample], judge: Judge) -> Shortlist | Rejected:
    """Who is in the running.

    Where guidelines come first, an answer without a fault stands above one that breaks a guideline, and that above one
    that cannot be read. The best is sought in the highest class that occurs, and the worst is the answer with the most
    faults of the lowest. A single answer in the highest class needs no judge; where all are in one class, the teacher
    judges them all; and where none can be read, there is nothing to prefer.
    """
    everyone = tuple(range(len(read)))
    if not judge.verified:
        return Shortlist(everyone)
    standing = [2 if row.rejected else 1 if row.faults else 0 for row in read]
    highest, lowest = min(standing), max(standing)
    if highest == 2:
        return Rejected(cause="none_readable", detail=", ".join(str(row.rejected) for row in read))
    if highest == lowest:
        return Shortlist(everyone)
    first = tuple(place for place in everyone if standing[place] == highest)
    last = (place for place in everyone if standing[place] == lowest)
    worst = max(last, key=lambda place: (len(read[place].faults), -place))
    return Shortlist(first, worst=worst) if len(first) > 1 else Shortlist((), best=first[0], worst=worst)


def orders(shown: Sequence[int], candidates: int, votes: int, seed: int, row: int) -> list[tuple[int, ...]]:
    """The order in which each vote is shown the candidates: drawn, and for every second vote the one before reversed.

    So the second vote swaps first and last place, and more votes begin with the same ones: a list that was judged once
    is judged twice for the price of one more call. No order comes twice while there is another.
    """
    found: list[tuple[int, ...]] = []
    for vote in range(votes):
        if vote % 2:
            found.append(found[-1][::-1])
            continue
        for attempt in count():
            path = (vote, attempt) if vote else ()
            drawn = tuple(place for place in shuffled_order(candidates, seed, "judge", row, *path) if place in shown)
            if drawn not in found or len(found) >= factorial(len(shown)):
                found.append(drawn)
                break
    return found


def alike(read: Sequence[Sample]) -> tuple[int, ...]:
    """For each candidate the first one that says the same: naming either is the same judgement."""
    plain = [normalised(row) for row in read]
    return tuple(plain.index(text) for text in plain)


def normalised(row: Sample) -> str:
    """What a candidate says: the example in it, or its text, without case, spacing and forms of the same character."""
    text = row.text if row.example is None else rendered(row.example)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def verdict(votes: Sequence[Vote], short: Shortlist, same: Sequence[int], judge: Judge) -> tuple[int, int] | Rejected:
    """Best and worst candidate, or why the votes name none.

    Args:
        votes: with candidates' indices as best and worst, or a cause where an answer was no judgement.
        same: for each candidate the first one that says the same (`alike`).
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
        # Candidates come in no order, so the first of those with equal scores is as good as any.
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
