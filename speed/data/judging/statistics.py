"""Statistics on a judge: places and lengths that it favours, how often it contradicts itself, and its calls.

Each row adds to plain counts, and the figures are computed from counts. So the counts of shards can be added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import erfc, exp, pi, sqrt

from speed.core.spec import Json
from speed.data.records import Pair, Vote

PREFIX = "judging/"
"""Prefix of all counts, so that a report shows the figures and not the counts."""


def list_counts(pair: Pair, same: Sequence[int]) -> Counter[str]:
    """Counts of one list. `same`: for each candidate the first one with the same text (`votes.first_alike`)."""
    tally = Counter({"lists": 1, "calls": len(pair.votes)})
    valid = [(number, vote) for number, vote in enumerate(pair.votes) if not vote.cause]
    for number, vote in valid:
        # Every second vote has the order of the one before reversed, so it says nothing new about places.
        if number % 2 == 0:
            tally[f"shown/{len(vote.order)}"] += 1
            tally[f"best/{vote.order.index(vote.best)}"] += 1
            tally[f"worst/{vote.order.index(vote.worst)}"] += 1
    for (number, one), (other_number, other) in combinations(valid, 2):
        best, worst = same[one.best] == same[other.best], same[one.worst] == same[other.worst]
        tally.update({"compared": 1, "same_best": best, "same_worst": worst})
        if _swapped(number, one, other_number, other):
            tally.update({"swapped": 1, "flipped": not (best and worst)})
    return Counter({PREFIX + name: count for name, count in tally.items() if count}) + pair_counts(pair)


def pair_counts(pair: Pair) -> Counter[str]:
    """Counts of one pair, whether a judge or the guidelines chose it."""
    if pair.rejected is not None:
        return Counter()
    chosen, rejected = len(pair.chosen), len(pair.rejected_text)
    tally = {"pairs": 1, "longer": chosen > rejected, "shorter": chosen < rejected}
    tally |= {"chosen_characters": chosen, "rejected_characters": rejected}
    tally |= {"chosen_faulty": bool(pair.chosen_faults), "rejected_faulty": bool(pair.rejected_faults)}
    return Counter({PREFIX + name: int(count) for name, count in tally.items() if count})


def _swapped(number: int, one: Vote, other_number: int, other: Vote) -> bool:
    return number % 2 == 0 and other_number == number + 1 and one.model == other.model


def list_figures(counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
    """Figures of judged lists; a figure is None if there is no data for it.

    A chi-square test compares the places with an even spread. `swap_flips` is the share of lists, among those shown to
    the same model in an order and in its reverse, for which it did not name the same best and worst. Agreement is over
    all pairs of judgements of a list.
    """
    own = _own(counts)
    shown = {int(name.removeprefix("shown/")): count for name, count in own.items() if name.startswith("shown/")}
    result: dict[str, Json] = {"calls_per_list": _share(own["calls"], own["lists"])}
    for name in ("best", "worst"):
        seen = [own[f"{name}/{place}"] for place in range(max(shown, default=0))]
        result[f"{name}_by_place"] = seen
        result[f"{name}_by_place_p"] = _evenness(seen, shown)
    rows = counts.get("in", 0)
    return {
        **result,
        **pair_figures(counts),
        "swap_flips": _share(own["flipped"], own["swapped"]),
        "agreement_best": _share(own["same_best"], own["compared"]),
        "agreement_worst": _share(own["same_worst"], own["compared"]),
        "dropped": {cause: _share(times, rows) for cause, times in rejected.items() if times},
    }


def pair_figures(counts: Mapping[str, int]) -> dict[str, Json]:
    """Figures of pairs, whether a judge or the guidelines chose them; None if there is no pair.

    `longer_wins` is the share of pairs whose chosen answer is longer, without pairs of equal length. `length_gap` is
    the mean number of characters by which the chosen answer is longer. An answer is faulty if it breaks a guideline of
    its prompt or cannot be read.
    """
    own = _own(counts)
    return {
        "longer_wins": _share(own["longer"], own["longer"] + own["shorter"]),
        "chosen_characters": _share(own["chosen_characters"], own["pairs"]),
        "rejected_characters": _share(own["rejected_characters"], own["pairs"]),
        "length_gap": _share(own["chosen_characters"] - own["rejected_characters"], own["pairs"]),
        "chosen_faulty": _share(own["chosen_faulty"], own["pairs"]),
        "rejected_faulty": _share(own["rejected_faulty"], own["pairs"]),
    }


def _own(counts: Mapping[str, int]) -> Counter[str]:
    return Counter({name.removeprefix(PREFIX): count for name, count in counts.items() if name.startswith(PREFIX)})


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _evenness(seen: Sequence[int], shown: Mapping[int, int]) -> float | None:
    """p of a chi-square test of places against an even spread. `shown`: number of judgements by length of the list."""
    expected = [sum(count / size for size, count in shown.items() if size > place) for place in range(len(seen))]
    if len(seen) < 2:
        return None
    statistic = sum((count - even) ** 2 / even for count, even in zip(seen, expected, strict=True))
    return round(chi_square_tail(len(seen) - 1, statistic), 6)


def chi_square_tail(freedom: int, value: float) -> float:
    """Probability that chi-square of so many degrees of freedom exceeds a value. Every run reports it, so that it is
    not worth the half second that `scipy.special` takes to import."""
    half, odd = value / 2, freedom % 2
    term = sqrt(2 * value / pi) * exp(-half) if odd else exp(-half)
    tail = erfc(sqrt(half)) if odd else 0.0
    for step in range(freedom // 2):
        tail += term
        term *= half / (step + 1 + odd / 2)
    return tail
