"""Runs, scores and rows as pandas tables, and the notebooks that read several runs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from conftest import ROOT
from made_runs import made_run

import speed.runs
from speed.core.errors import UserError


def test_a_root_is_a_table_of_its_runs_with_what_was_set_differently(tmp_path: Path) -> None:
    made_run(tmp_path, 50.0, seed=1)
    made_run(tmp_path, 52.0, preference__dpo__beta=0.3, seed=1)
    table = speed.runs.frame(tmp_path)
    assert table["mean"].tolist() == [50.0, 52.0]
    assert table["A"].tolist() == [50.0, 52.0]
    assert table["preference.dpo.beta"].tolist() == [0.1, 0.3]
    assert "generator.base" not in table, "all runs share it"
    assert table["seed.train"].tolist() == [1, 1]
    assert table["dollars"].tolist() == [0.5, 0.5]


def test_a_root_without_runs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEED_HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path} holds no finished run"):
        speed.runs.frame()


def test_scores_stand_side_by_side_and_other_measurements_are_refused(tmp_path: Path) -> None:
    one, two, other = (
        made_run(tmp_path, 50.0),
        made_run(tmp_path, 52.0, seed=1),
        made_run(tmp_path, 9, pins={"mteb": "1"}),
    )
    table = speed.runs.scores(one, two)
    assert (table[two.name] - table[one.name]).tolist() == [2.0] * 5
    assert set(table.type) == {"STS"}
    with pytest.raises(UserError, match="mteb"):
        speed.runs.scores(one, other)


def test_rows_of_a_stage_keep_their_order_and_their_text(tmp_path: Path) -> None:
    folder = tmp_path / "stages" / "synthesis"
    folder.mkdir(parents=True)
    texts = ["2024-01-01", "007", "a\u2028b"]  # no date, no number, one line
    for place, text in reversed(list(enumerate(texts))):
        (folder / f"rows-{place}.jsonl").write_text(json.dumps({"row": place, "text": text}, ensure_ascii=False) + "\n")
    assert speed.runs.rows(tmp_path, "synthesis").text.tolist() == texts
    with pytest.raises(UserError, match="it has synthesis"):
        speed.runs.rows(tmp_path, "synthesys")


@pytest.mark.parametrize("page", ["comparing_runs", "fitting_the_law"])
def test_a_notebook_reads_several_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in (1, 2, 4, 8, 16):
        for seed in (0, 1):
            made_run(tmp_path, 50.0 + size**0.5 + seed, scale__factor=float(size), seed=seed)
    monkeypatch.setenv("SPEED_HOME", str(tmp_path))
    runpy.run_path(str(ROOT / "notebooks" / f"{page}.py"))
    told = capsys.readouterr().out
    assert {"comparing_runs": "+1.00 over 5 tasks", "fitting_the_law": "points by the next doubling"}[page] in told
