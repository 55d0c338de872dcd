"""The table of scores: the run's own beside what is scored without training, on the same data only."""

from __future__ import annotations

from typing import Any

import pytest

from speed.data.calibration import Calibration, calibration
from speed.data.evaluation_record import scores_of
from speed.data.yardsticks import known_yardsticks
from speed.runs.score_tables import about_the_tasks, beside_the_scores, scores_table, task_table
from speed.runs.stage_lines import StageLine

HASHED = known_yardsticks()[0].scores
REVISIONS = sorted(HASHED)[:3]
KINDS = {"a": "STS", "b": "STS", "c": "Retrieval"}


def evaluation(datasets: dict[str, str]) -> StageLine:
    nothing: dict[str, Any] = {
        "key": "k", "state": "built", "rows_in": None, "rows_out": None, "rejected": {}, "seconds": 0.0,
        "gpu_seconds": 0.0, "cost": {}, "dollars": 0.0,
    }  # fmt: skip
    judged = {"kinds": KINDS, "pins": {"datasets": datasets}}
    return StageLine(label="evaluation", **nothing, metrics={"judged": judged})


def test_yardsticks_stand_beside_the_scores_of_the_tasks_that_they_were_measured_on() -> None:
    a, b, c = (HASHED[revision] for revision in REVISIONS)
    lines = [evaluation(dict(zip("abc", REVISIONS, strict=True)))]
    table = scores_table(lines, scores_of({"a": 10.0, "b": 20.0, "c": 60.0}, KINDS))
    assert table.head == ("task type", "score", "hashed words", "truth")
    assert [row[:3] for row in table.rows] == [
        ("Retrieval", "60.00", f"{c:.2f}"),
        ("STS", "15.00", f"{(a + b) / 2:.2f}"),
        ("mean over 3 tasks", "30.00", f"{(a + b + c) / 3:.2f}"),
        ("mean over 2 types", "37.50", f"{((a + b) / 2 + c) / 2:.2f}"),
    ]
    [said] = beside_the_scores(lines)
    assert "hashed words: " in said
    assert "truth: " in said


def test_the_base_without_training_stands_next_to_the_run() -> None:
    before = scores_of({"a": 1.0, "b": 2.0, "c": 3.0}, KINDS)
    line = evaluation({})
    line = line.model_copy(update={"metrics": {**line.metrics, "untrained": before.model_dump(mode="json")}})
    table = scores_table([line], scores_of({"a": 10.0, "b": 20.0, "c": 60.0}, KINDS))
    assert table.head == ("task type", "score", "untrained")
    assert table.rows[0] == ("Retrieval", "60.00", "3.00")
    assert table.rows[2] == ("mean over 3 tasks", "30.00", "2.00")
    [said] = beside_the_scores([line])
    assert "the embedder's base as it came" in said


@pytest.mark.parametrize("datasets", [{}, {"a": REVISIONS[0], "b": REVISIONS[1], "c": "local-another"}])
def test_no_yardstick_stands_beside_other_data(datasets: dict[str, str]) -> None:
    table = scores_table([evaluation(datasets)], scores_of({"a": 10.0, "b": 20.0, "c": 60.0}, KINDS))
    assert table.head == ("task type", "score")
    assert beside_the_scores([evaluation(datasets)]) == []


def test_a_run_without_a_search_and_a_full_score_says_nothing_of_its_tasks() -> None:
    lines, scores = [evaluation({})], scores_of({"a": 94.99, "b": None, "c": 0.0}, KINDS)
    assert about_the_tasks(lines, scores) == []
    assert task_table(lines, scores).head == ("task", "type", "score")
    full = scores_of({"a": 95.0, "b": 99.0, "c": 0.0}, KINDS)
    assert [row[-1] for row in task_table(lines, full).rows] == ["near its ceiling", "near its ceiling", ""]
    [told] = about_the_tasks(lines, full)
    assert told.startswith("Near its ceiling: a, b. ")


def test_what_a_difference_must_be_stands_beside_scores_that_were_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Calibration(
        datasets=("local-1", "local-2"), examples=920, deviation=1.5, five_seeds=2.52, seeds_for_a_point=20
    )
    assert calibration({"a": "local-2", "b": "local-1"}, (made,)) == made
    assert calibration({"a": "local-2"}, (made,)) is calibration({}, (made,)) is None
    monkeypatch.setattr("speed.data.calibration._known", lambda: (made,))
    [said] = beside_the_scores([evaluation({"a": "local-1", "b": "local-2"})])
    assert "Single runs tell differences from 2.9 points on, five seeds of each 2.5, and one point takes 20" in said
    assert beside_the_scores([evaluation({"a": "local-1"})]) == []
