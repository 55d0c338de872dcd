"""A run's report shows the paper's Table 1 with our row, where the run is scored on what Table 1 is scored on."""

from __future__ import annotations

from typing import Any

import pytest

from speed.data.evaluation_splits import of_published_scores
from speed.data.published_scores import published
from speed.data.records import Scores
from speed.runs.report import markdown
from speed.runs.stage_lines import StageLine

TASKS = sorted(published().benchmark)
TYPES = dict.fromkeys(published().table_1.rows[0].types, 50.25)


def line(label: str, **fields: Any) -> StageLine:
    nothing: dict[str, Any] = {
        "key": "k", "state": "built", "rows_in": None, "rows_out": None, "rejected": {}, "seconds": 0.0,
        "gpu_seconds": 0.0, "cost": {}, "dollars": 0.0, "metrics": {},
    }  # fmt: skip
    return StageLine(label=label, **{**nothing, **fields})


def report(tasks: list[str], splits: dict[str, str]) -> str:
    pins = {"mteb": "2", "precision": "fp32", "batch": 8, "datasets": {}, "splits": splits}
    judged = {"protocol": "e5", "pins": pins}
    lines = [
        line("dedup", rows_in=1_150_000, rows_out=930_000),
        line("filter", rows_in=930_000, rows_out=920_415, corpus=True),
        line("evaluation", metrics={"judged": judged}),
    ]
    scores = Scores(tasks=dict.fromkeys(tasks, 50.25), types=TYPES, mean=63.35, mean_of_types=50.25)
    return markdown("ours", {}, lines, scores)


@pytest.mark.parametrize("splits", [{}, {task: of_published_scores(task) for task in TASKS}])
def test_our_row_stands_below_the_papers(splits: dict[str, str]) -> None:
    text = report(TASKS, splits)
    _, _, table = text.partition("## The paper's Table 1")
    rows = [row for row in table.partition("\n## ")[0].splitlines() if row.startswith("|")]
    assert len(rows) == 2 + 13 + 1
    assert "| SPEED | synthetic data only, 920K |" in table
    assert rows[-1].startswith("| ours | this run, 920,415 examples | 50.25 |")
    assert rows[-1].endswith("| 63.35 |")


@pytest.mark.parametrize(("tasks", "splits"), [(TASKS[1:], {}), (TASKS, {"MSMARCO": "test"}), (["Mine"], {})])
def test_other_tasks_and_splits_compare_with_nothing(tasks: list[str], splits: dict[str, str]) -> None:
    assert "Table 1" not in report(tasks, splits)
