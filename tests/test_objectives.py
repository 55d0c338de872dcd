"""Objectives of the preference group train a senior, on the miniature's own data and from the same junior.

Not field_dpo: a junior that has hardly learned writes whole answers or unreadable ones, and of 46 lists of eight
answers one pair was left. Its pairs and its training have tests of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import SMOKE, answers, speed, summary

SMALL = ["preference.dpo.learning_rate=5e-4", "preference.dpo.batch_size=4", "preference.dpo.max_length=1000"]
"""An 8B model's learning rate does not move a model this small."""
JUDGED = ("dpo", "ipo", "robust", "dpo_sft", "apo_zero", "simpo", "cpo", "orpo")
MORE_LISTS = ["counts.pairs=46", "counts.candidates=8", "revisor=none"]
"""A junior that has hardly learned seldom writes a faultless answer beside a faulty one."""
FIGURES = {
    "logps_chosen", "logps_rejected", "rewards_accuracies", "kl_reference", "written_valid_json", "length_drift",
}  # fmt: skip


def trained(home: Path, objective: str, *more: str) -> dict[str, dict[str, Any]]:
    done = speed(home, SMOKE, f"preference={objective}", *SMALL, *more, "tracker=none")
    assert done.code == 0, done.err
    stages = {stage["label"]: stage for stage in summary(home)["stages"]}
    assert stages["senior"]["state"] == "built"
    assert stages["senior"]["metrics"].keys() >= FIGURES
    return stages


@pytest.mark.slow
def test_every_objective_trains_a_senior(tmp_path: Path) -> None:
    home = tmp_path / "home"
    trained(home, "dpo")
    asked = answers(home)
    for objective in JUDGED[1:]:
        assert trained(home, objective)["preferences"]["state"] == "reused"
        assert answers(home) == asked, "the teacher is asked for the first objective alone"
    stages = trained(home, "verified_pairs", *MORE_LISTS)
    assert stages["verified pairs"]["rows_out"] >= 2
    assert stages["verified pairs"]["cost"].get("calls", 0) == 0
    assert "preferences" not in stages
