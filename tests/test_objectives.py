"""Every objective of the preference group trains a senior, on the miniature's own data and from the same junior."""

from __future__ import annotations

from pathlib import Path

import pytest
from smoke import SMOKE, answers, speed, summary

SMALL = ["preference.dpo.learning_rate=5e-4", "preference.dpo.batch_size=4", "preference.dpo.max_length=1000"]
"""An 8B model's learning rate does not move a model this small."""
OBJECTIVES = {
    "dpo": "preferences", "ipo": "preferences", "robust": "preferences", "dpo_sft": "preferences",
    "verified_pairs": "verified pairs", "field_dpo": "field pairs",
}  # fmt: skip
"""Where its pairs come from."""
FIGURES = {
    "logps_chosen", "logps_rejected", "rewards_accuracies", "kl_reference", "written_valid_json", "length_drift",
}  # fmt: skip


@pytest.mark.slow
def test_every_objective_trains_a_senior(tmp_path: Path) -> None:
    home = tmp_path / "home"
    asked = 0
    for objective, source in OBJECTIVES.items():
        done = speed(home, SMOKE, f"preference={objective}", *SMALL, "tracker=none")
        assert done.code == 0, done.err
        stages = {stage["label"]: stage for stage in summary(home)["stages"]}
        assert stages["senior"]["state"] == "built"
        assert stages["senior"]["metrics"].keys() >= FIGURES
        assert stages[source]["rows_out"] >= 2
        assert stages[source]["cost"].get("calls", 0) == 0 or source == "preferences"
        asked = asked or len(answers(home))
        assert len(answers(home)) == asked, "the teacher is asked for the first objective alone"
