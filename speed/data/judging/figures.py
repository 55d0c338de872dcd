"""What judging did, in figures: places and lengths that a judge favours, how often it contradicts itself, its cost.

Each row adds to plain counts; the figures follow from the counts of any number of rows, so those of shards add up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from speed.core.spec import Json
from speed.data.records import Pair, Vote

PREFIX = "judging/"
"""In front of every count, so that a report shows the figures and not what they are made of."""


def counts(pair: Pair, same: Sequence[int]) -> Counter[str]:
    """What one list adds. `same`: for each candidate the first one that says the same (`votes.alike`)."""
    found = Counter({"lists": 1, "calls": len(pair.votes)})
    valid = [(number, vote) for number, vote in enumerate(pair.votes) if not vote.cause]
    for number, vote in valid:
        # A reversed order (every second vote) says nothing new about places: an unbiased judge only mirrors itself.
        if number % 2 == 0:
            found[f"shown/{len(vote.order)}"] += 1
            found[f"best/{vote.order.index(vote.best)}"] += 1
            found[f"worst/{vote.order.index(vote.worst)}"] += 1
    for (number, one), (other_number, other) in combinations(valid, 2):
        best, worst = same[one.best] == same[other.best], same[one.worst] == same[other.worst]
        found.update({"compared": 1, "same_best": best, "same_worst": worst})
        if _swapped(number, one, other_number, other):
            found.update({"swapped": 1, "flipped": not (best and worst)})
    return Counter({PREFIX + name: count for name, count in found.items() if count}) + pair_counts(pair)


def pair_counts(pair: Pair) -> Counter[str]:
    """What one pair adds, whoever preferred the chosen answer."""
    if pair.rejected is not None:
        return Counter()
    chosen, rejected = len(pair.chosen), len(pair.rejected_text)
    found = {"pairs": 1, "longer": chosen > rejected, "shorter": chosen < rejected}
    found |= {"chosen_characters": chosen, "rejected_characters": rejected}
    found |= {"chosen_faulty": bool(pair.chosen_faults), "rejected_faulty": bool(pair.rejected_faults)}
    return Counter({PREFIX + name: int(count) for name, count in found.items() if count})


def _swapped(number: int, one: Vote, other_number: int, other: Vote) -> bool:
    return number % 2 == 0 and other_number == number + 1 and one.model == other.model


def figures(counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
    """The figures of some counts; None where nothing was seen that could tell.

    Places are compared with an even spread by a chi-square test. `swap_flips`: of the lists shown to the same model in
    an order and in its reverse, those for which it did not name the same best and worst. Agreement is over all pairs of
    judgements of a list.
    """
    found = _own(counts)
    shown = {int(name.removeprefix("shown/")): count for name, count in found.items() if name.startswith("shown/")}
    result: dict[str, Json] = {"calls_per_list": _share(found["calls"], found["lists"])}
    for name in ("best", "worst"):
        seen = [found[f"{name}/{place}"] for place in range(max(shown, default=0))]
        result[f"{name}_by_place"] = seen
        result[f"{name}_by_place_p"] = _evenness(seen, shown)
    rows = counts.get("in", 0)
    return {
        **result,
        **pair_figures(counts),
        "swap_flips": _share(found["flipped"], found["swapped"]),
        "agreement_best": _share(found["same_best"], found["compared"]),
        "agreement_worst": _share(found["same_worst"], found["compared"]),
        "dropped": {cause: _share(times, rows) for cause, times in rejected.items() if times},
    }


def pair_figures(counts: Mapping[str, int]) -> dict[str, Json]:
    """The figures of pairs, whoever preferred the chosen answers; None where there is no pair.

    `longer_wins` is the share of pairs whose chosen answer is the longer one, equal lengths aside, and `length_gap` how
    many characters it is longer by, on average (below 0 where the rejected one is); faulty is what breaks a guideline
    of its prompt or cannot be read.
    """
    found = _own(counts)
    return {
        "longer_wins": _share(found["longer"], found["longer"] + found["shorter"]),
        "chosen_characters": _share(found["chosen_characters"], found["pairs"]),
        "rejected_characters": _share(found["rejected_characters"], found["pairs"]),
        "length_gap": _share(found["chosen_characters"] - found["rejected_characters"], found["pairs"]),
        "chosen_faulty": _share(found["chosen_faulty"], found["pairs"]),
        "rejected_faulty": _share(found["rejected_faulty"], found["pairs"]),
    }


def _own(counts: Mapping[str, int]) -> Counter[str]:
    return Counter({name.removeprefix(PREFIX): count for name, count in counts.items() if name.startswith(PREFIX)})


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _evenness(seen: Sequence[int], shown: Mapping[int, int]) -> float | None:
    """p of a chi-square test of places against an even spread; `shown`: judgements by the length of their list."""
    expected = [sum(count / size for size, count in shown.items() if size > place) for place in range(len(seen))]
    if len(seen) < 2:
        return None
    statistic = sum((count - even) ** 2 / even for count, even in zip(seen, expected, strict=True))
    return round(chi_square_p(statistic, len(seen) - 1), 6)


def chi_square_p(statistic: float, freedom: int) -> float:
    """Probability of a chi-square value of at least `statistic`, by the finite series of whole degrees of freedom.

    Abramowitz and Stegun, 26.4.4 and 26.4.5.
    """
    half = statistic / 2
    if freedom % 2:
        series = sum(math.pow(half, k + 0.5) / math.gamma(k + 1.5) for k in range(freedom // 2))
        return math.erfc(math.sqrt(half)) + math.exp(-half) * series
    return math.exp(-half) * sum(math.pow(half, k) / math.factorial(k) for k in range(freedom // 2))
