"""A training that its data leave without rows says which data those are, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from scripted_judge import Lists
from scripted_writer import NoWeights
from test_pair_sources import GOOD, ONE_FAULT, TWO_FAULTS, listed

from speed.core.build_all import build_all
from speed.core.errors import UserError
from speed.core.graph import goals
from speed.core.store import Store
from speed.data.trainings import Completion, Dpo, Preference, Sft
from speed.ports import Trainer
from speed.runtime import Context, Runtime
from speed.stages.senior import Senior
from speed.stages.verified_pairs import VerifiedPairs

DPO = Dpo(beta=0.1, learning_rate=1e-5, batch_size=2, epochs=1, max_length=64)
WHOLE, ALIKE = (GOOD, TWO_FAULTS), (GOOD, GOOD)


class Counting(Trainer):
    """Writes down how many pairs it was given."""

    def sft(self, base: str, rows: Sequence[Completion], config: Sft, out: Path, ctx: Context) -> None:
        raise AssertionError("a senior is trained on preferences")

    def dpo(self, start: Path, rows: Sequence[Preference], config: Dpo, out: Path, ctx: Context) -> None:
        (out / "pairs").write_text(str(len(rows)))


def senior(home: Path, *lists: tuple[str, ...]) -> str:
    store = Store(home).open()
    pairs = VerifiedPairs(Lists(tuple(listed(row, *texts) for row, texts in enumerate(lists))))
    stage = Senior(DPO, Counting(), NoWeights(), pairs.take(len(lists)))
    build_all(goals([stage]), store, Runtime(), lambda label, event: None, home / "logs")
    return (store.payload(stage) / "pairs").read_text()


def test_two_rows_are_enough(tmp_path: Path) -> None:
    assert senior(tmp_path, WHOLE, ALIKE, WHOLE) == "2"


def test_the_causes_of_fewer_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        senior(tmp_path, WHOLE, ALIKE, (ONE_FAULT, TWO_FAULTS), ALIKE)
    said = "senior: a training needs at least two rows; of the 4 rows in 'verified pairs' only 1 can be learned from"
    assert str(told.value).startswith(f"{said} (2 all_faultless, 1 all_faulty)\n  raise counts.pairs")
    assert str(tmp_path / "store") in str(told.value)
