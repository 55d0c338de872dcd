"""Single lines of a plan: why more is written than is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.runs.plan import whole_block_lines


def test_a_plan_says_why_more_rows_are_generated_than_are_wanted(compose: Any, tmp_path: Path) -> None:
    def lines(*overrides: str) -> list[str]:
        config = compose("tracker=none", "counts.pairs=23", "counts.revisions=46", "scale.examples=460", *overrides)
        return whole_block_lines(stage_statuses(pipeline(config).goals(), Store(tmp_path / "home")))

    [line] = lines("engine.block=230")
    assert line.startswith("rows are generated in whole blocks of engine.block=230, more than are wanted: root data ")
    assert "root data 230 for 46" in line
    assert "synthesis" not in line, "460 are two blocks"
    assert lines("engine.block=23") == []
