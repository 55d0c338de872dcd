"""Runs, scores, queries and rows as pandas tables, for notebooks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.evaluation_record import read_evaluation, refuse_other_pins
from speed.data.query_scores import read_queries
from speed.data.text_files import text_lines
from speed.runs.finished_runs import DEFAULT_ROOT, FinishedRun, finished_runs

ROWS = ("rows-*.jsonl*", "examples.jsonl*", "topics.jsonl*")
"""Files of a stage that hold its rows; a stage has one of these kinds."""


def runs_frame(home: str | Path | None) -> pd.DataFrame:
    """The finished runs of a root, oldest first; see `speed.runs.frame`."""
    root = Path(home or os.environ.get("SPEED_HOME") or DEFAULT_ROOT).expanduser()
    runs, _ = finished_runs(root)
    if not runs:
        raise UserError(f"{root} holds no finished run: give the root of runs (SPEED_HOME)")
    varied = _varied(runs)
    return pd.DataFrame([_line(run, varied) for run in runs])


def _varied(runs: Sequence[FinishedRun]) -> list[str]:
    """Settings in which runs differ, by dotted key."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]


def _line(run: FinishedRun, varied: Sequence[str]) -> dict[str, Json]:
    return {
        "run": run.line.get("run"),
        "name": run.summary.get("name"),
        "preset": run.line.get("preset"),
        "sweep": run.line.get("sweep"),
        "seed.data": run.seeds.data,
        "seed.sample": run.seeds.sample,
        "seed.train": run.seeds.train,
        **{key: run.settings.get(key) for key in varied},
        "mean": run.scores.mean,
        **run.scores.tasks,
        "calls": run.calls,
        "dollars": run.dollars,
        "key": run.key,
        "folder": str(run.folder),
    }


def scores_frame(folders: Sequence[Path]) -> pd.DataFrame:
    """Scores of runs by task; see `speed.runs.scores`."""
    records = [read_evaluation(folder) for folder in folders]
    refuse_other_pins(records)
    kinds = {task: kind for record in records for task, kind in record.kinds.items()}
    titles = [folder.name for folder in folders]
    columns = {
        title: pd.Series(record.scores.tasks, dtype=float) for title, record in zip(titles, records, strict=True)
    }
    table = pd.DataFrame({"type": pd.Series(kinds), **columns})
    table.index.name = "task"
    return table.sort_values(["type", "task"])


def queries_frame(folders: Sequence[Path]) -> pd.DataFrame:
    """Scores of single queries; see `speed.runs.queries`."""
    records = [read_evaluation(folder) for folder in folders]
    refuse_other_pins(records)
    columns = {
        folder.name: pd.Series({
            (task, split, subset, query): 100 * score
            for task, found in read_queries(folder, record).items()
            for split, subsets in found.queries.items()
            for subset, scores in subsets.items()
            for query, score in scores.items()
        }, dtype=float)
        for folder, record in zip(folders, records, strict=True)
    }  # fmt: skip
    known = {title: column for title, column in columns.items() if len(column)}
    if not known:
        raise UserError(
            "none of these runs has scores of single queries: evaluate again with --queries, on retrieval or reranking"
        )
    table = pd.DataFrame(known).reindex(columns=list(columns))
    return table.rename_axis(index=["task", "split", "subset", "query"]).sort_index()


def rows_frame(run: Path, stage: str) -> pd.DataFrame:
    """The rows of a stage of a run; see `speed.runs.rows`."""
    folder = run / "stages" / stage
    if not folder.is_dir():
        there = sorted(path.name for path in (run / "stages").glob("*"))
        raise UserError(f"{run} has no stage {stage!r}: it has {', '.join(there) or 'none, so it is no run'}")
    files = next((found for name in ROWS if (found := sorted(folder.glob(name)))), None)
    if files is None:
        raise UserError(f"{folder} holds no rows: what this stage made is no list of records")
    # pandas' own reader of JSON lines also ends a line at U+2028, which may stand in any text
    return pd.DataFrame([json.loads(line.text) for file in files for line in text_lines(file)])
