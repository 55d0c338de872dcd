"""Scores of single queries in the folder of a run: found where evaluations leave them, and held against the score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import speed.runs
from speed.core.errors import UserError
from speed.data.evaluation_record import EvaluationRecord, Pins, scores_of
from speed.data.query_scores import QueryScores, mean_of, queries_folder, read_queries

TWO = QueryScores(measure="map_at_1000", queries={"test": {"en": {"a": 1.0, "b": 0.5}, "de": {"a": 0.25}}})


def record(**tasks: float | None) -> EvaluationRecord:
    kinds = dict.fromkeys(tasks, "Reranking")
    pins = Pins(mteb="2.26", precision="fp32", batch="b", instructions="i", datasets=dict.fromkeys(tasks, "r"))
    scores = scores_of(dict(tasks), kinds)
    return EvaluationRecord(
        name="my/model", model="f" * 40, protocol="e5", max_length=None, pins=pins, kinds=kinds, scores=scores
    )


def written(folder: Path, task: str, found: QueryScores = TWO) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task}.json").write_text(found.model_dump_json())
    return folder / f"{task}.json"


def test_a_tasks_score_is_the_mean_of_its_groups_means() -> None:
    assert TWO.mean == mean_of(TWO.queries) == 0.5
    assert TWO.points == {"test/en": {"a": 100.0, "b": 50.0}, "test/de": {"a": 25.0}}


def test_they_lie_in_the_run_or_in_its_stage_by_the_identity_of_the_model(tmp_path: Path) -> None:
    one = record(A=50.0, B=50.0, C=50.0)
    written(tmp_path / "queries", "A")
    stage = tmp_path / "stages" / "evaluation"
    folder = queries_folder(stage, one.name, one.model)
    assert folder == stage / "queries" / "my__model" / one.model
    written(folder, "B")
    written(queries_folder(stage, one.name, "0" * 40), "C")
    written(tmp_path / "queries", "NotInTheRecord")
    assert read_queries(tmp_path, one) == {"A": TWO, "B": TWO}
    assert read_queries(tmp_path / "nothing", one) == {}


def test_a_file_of_another_evaluation_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "queries", "A")
    assert read_queries(tmp_path, record(A=50.0004)), "mteb rounds to five decimals of 1"
    for score, told in ((50.1, "0.50100"), (None, "undefined")):
        with pytest.raises(UserError, match=f"mean of its queries is 0.50000, the task's score {told}"):
            read_queries(tmp_path, record(A=score))
    for text in ("{", "[]", '{"measure": "m", "queries": {"test": {"en": {"a": "high"}}}}', "\xff"):
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=r"A\.json holds no scores of single queries"):
            read_queries(tmp_path, record(A=50.0))


def test_as_a_table_they_have_a_column_a_run(tmp_path: Path) -> None:
    for name in ("one", "two", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(record(A=50.0).model_dump_json())
    with pytest.raises(UserError, match="none of these runs has scores of single queries"):
        speed.runs.queries(tmp_path / "old")
    written(tmp_path / "one" / "queries", "A")
    other = QueryScores(measure="map_at_1000", queries={"test": {"en": {"a": 0.9, "b": 0.6}, "de": {"a": 0.25}}})
    written(tmp_path / "two" / "queries", "A", other)
    table = speed.runs.queries(*(tmp_path / name for name in ("one", "two", "old")))
    assert table.index.names == ["task", "split", "subset", "query"]
    assert table.columns.tolist() == ["one", "two", "old"]
    change = table["two"] - table["one"]
    assert change["A", "test", "en", "a"] == pytest.approx(-10)
    assert change["A", "test", "en", "b"] == pytest.approx(10)
    assert table["old"].isna().all()
    mean = table["one"].groupby(["task", "split", "subset"]).mean().groupby("task").mean()
    assert json.loads(mean.to_json()) == {"A": 50.0}
