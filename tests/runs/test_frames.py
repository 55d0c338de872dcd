"""Runs, scores and rows as pandas tables, and the notebooks that read several runs."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from made_runs import OFF, made_run
from made_up_run import made_up_run

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
    assert {"comparing_runs": "mean of 5 tasks   1.0 tasks", "fitting_the_law": "points by the next doubling"}[
        page
    ] in told


def read(page: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a notebook prints of a root."""
    monkeypatch.setenv("SPEED_HOME", str(home))
    runpy.run_path(str(ROOT / "notebooks" / f"{page}.py"))
    return capsys.readouterr().out


def test_runs_whose_settings_are_lists_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_run(tmp_path, 50)
    made_run(tmp_path, 52, embedder__sources=["msmarco"])
    told = read("comparing_runs", tmp_path, monkeypatch, capsys)
    assert "[msmarco]" in told
    assert "mean of 5 tasks   2.0 tasks" in told


@pytest.mark.parametrize(("undefined", "told"), [(("A",), "mean of 4 tasks"), ("ABCDE", "no task has a score in both")])
def test_runs_with_undefined_scores_are_compared_on_the_others(
    undefined: Sequence[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made_run(tmp_path, 50)
    folder = made_run(tmp_path, 52, seed=1)
    summary = json.loads((folder / "summary.json").read_text())
    [judged] = [stage["metrics"]["judged"] for stage in summary["stages"] if stage["label"] == "evaluation"]
    for scores in (summary["scores"], judged["scores"]):
        scores["tasks"] |= dict.fromkeys(undefined)
        scores["mean"] = None
    (folder / "summary.json").write_text(json.dumps(summary))
    assert told in read("comparing_runs", tmp_path, monkeypatch, capsys)


def test_a_law_of_no_runs_or_of_undefined_scores_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_run(tmp_path, 50, revisor=OFF)
    assert "no run of Figure 4" in read("fitting_the_law", tmp_path, monkeypatch, capsys)
    made_run(tmp_path, 50)
    made_run(tmp_path, None, seed=1)
    made_run(tmp_path, 51, scale__factor=1.001)  # as many examples
    told = read("fitting_the_law", tmp_path, monkeypatch, capsys)
    assert "460" in told
    assert "a law needs at least two sizes" in told


class Embedder:
    """Gives each text a vector."""

    def __init__(self, folder: str, device: str) -> None:
        assert Path(folder).name == "model"
        assert device == "cpu"

    def encode(self, texts: Sequence[str], normalize_embeddings: bool) -> np.ndarray:
        assert normalize_embeddings
        return np.eye(len(texts), 8)


@pytest.mark.parametrize("off", [("revisor=none",), ("revisor=none", "preference=none")])
def test_a_topic_is_followed_through_a_run_without_revisor(
    off: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_up_run(tmp_path, *off)
    stages = made_run(tmp_path, 50) / "stages"
    stages.mkdir()
    for goal in run.order:
        (stages / goal.label.replace(" ", "-")).symlink_to(run.store.folder(goal.node))
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Embedder))
    told = read("one_topic", tmp_path, monkeypatch, capsys)
    assert "--- in the corpus" in told
    assert "after the revisor" not in told
    assert ("a root answer" in told, "candidate 0" in told) == (False, "preference=none" not in off)
    assert "cosine of query and positive" in told


def test_a_topic_of_a_run_that_wrote_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = made_run(tmp_path, 50) / "stages" / "dedup"
    corpus.mkdir(parents=True)
    (corpus / "examples.jsonl").write_text("")
    with pytest.raises(SystemExit, match="the last run wrote no example of its corpus"):
        read("one_topic", tmp_path, monkeypatch, capsys)
