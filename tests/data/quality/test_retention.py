"""One pass for all thresholds keeps what a deduplication at each of them keeps."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from speed.data.quality.minhash import MinHashConfig
from speed.data.quality.near_duplicates import compared_text, duplicates
from speed.data.quality.retention import (
    NOTICED,
    TABLE_6,
    Compared,
    Record,
    away_from_table_6,
    compared,
    published_shares,
    retentions,
    settings_for,
)
from speed.data.records import Example, Kind

WORDS = [f"word{number}" for number in range(500)]
THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 1.0)


def records(seed: int, count: int) -> list[Record]:
    """Of each kind new texts and copies with some words changed, of copies too."""
    rng, out = random.Random(seed), list[Record]()
    for number in range(count):
        kind = list(Kind)[number % 5]
        earlier = [record for record in out if record.kind == kind]
        words = rng.choice(earlier).query.split() if earlier and rng.random() < 0.7 else rng.choices(WORDS, k=40)
        for place in rng.sample(range(len(words)), rng.choice([0, 0, 1, 2, 4])):
            words[place] = rng.choice(WORDS)
        out.append(Record(kind, " ".join(words), rng.choice(WORDS), ""))
    return out


@pytest.mark.parametrize("by", ["mixed", "query"])
def test_each_threshold_keeps_what_its_own_deduplication_keeps(by: Compared) -> None:
    made, config = records(0, 400), settings_for(THRESHOLDS, 5)
    found = retentions(lambda: made, by, config, THRESHOLDS, lambda done: None)
    for threshold in THRESHOLDS:
        alone = config.model_copy(update={"threshold": threshold})
        if by == "query":
            alone = alone.model_copy(update={"with_positive": ()})
        examples = [
            Example(kind=Kind(record.kind), task="t", query=record.query, positive=record.positive) for record in made
        ]
        kept = Counter(str(made.kind) for made, first in duplicates(examples.copy, alone) if first is None)
        assert found.kept[threshold] == kept, threshold
    totals = [found.kept[threshold].total() for threshold in THRESHOLDS]
    assert totals == sorted(totals)
    assert totals[0] < totals[2] < totals[-1] < 400
    assert found.seen == dict.fromkeys(Kind, 80)


def test_mixed_is_what_the_stage_compares() -> None:
    for kind in Kind:
        example = Example(kind=kind, task="t", query="q", positive="p", negative="n")
        record = Record(kind, "q", "p", "n")
        assert compared(record, "mixed") == compared_text(example, MinHashConfig())
        assert compared(record, "query") == "q"
        assert compared(record, "positive") == "p"
        assert compared(record, "all") == "q\np\nn"
    assert compared(Record("", "q", "p"), "mixed") == "q"
    assert compared(Record("", "q", "p"), "all") == "q\np"


@pytest.mark.parametrize("lowest", [0.3, 0.5, 0.7, 0.9])
def test_bands_notice_pairs_at_the_lowest_threshold(lowest: float) -> None:
    config = settings_for([0.95, lowest], 3)
    assert config.detection(lowest) >= NOTICED
    assert (config.threshold, config.word_shingle) == (lowest, 3)


def test_table_6_is_the_papers() -> None:
    assert sum(kept for kept, _ in TABLE_6.values()) == 920_415
    assert sum(raw for _, raw in TABLE_6.values()) == 1_150_000
    shares = {kind: round(100 * share, 1) for kind, share in published_shares().items()}
    assert shares == {
        "retrieval": 86.7, "classification": 70.3, "sts": 84.1, "short_short": 79.9, "long_long": 73.4, "whole": 80.0,
    }  # fmt: skip
    assert away_from_table_6(published_shares()) == 0
    assert away_from_table_6({"retrieval": 1.0, "whole": 1.0}) == pytest.approx(1 - 303_424 / 350_000)
    assert away_from_table_6({"": 0.5, "whole": 0.5}) is None
