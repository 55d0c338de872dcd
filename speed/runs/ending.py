"""The end of a run: what it leaves (report, page, links, a line of the ledger) and what it prints."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from speed.config import Config
from speed.core.errors import UserError
from speed.core.graph import Goal
from speed.core.manifest import commit
from speed.core.store import Store
from speed.data.evaluation_record import shown
from speed.data.records import Scores
from speed.pipeline import Pipeline
from speed.runs import report, score_tables
from speed.runs.building import Building, Origin
from speed.runs.ledger_table import ledger_table
from speed.runs.page import of_run
from speed.runs.page.lives import lives_if_readable
from speed.runs.page.story import coloured, story
from speed.runs.rejections import NearlyAllRejected
from speed.runs.stage_lines import StageLine, stage_line
from speed.runs.tables import near, paragraph
from speed.runs.truth import with_truth


def build_and_tell(building: Building, origin: Origin, pipe: Pipeline) -> float | None:
    """Build what is missing; then write the report, the page and a line of the ledger, and print how it ended.

    Returns:
        The mean score over tasks.

    Raises:
        UserError: where a stage that something is still to be built from is of no use.
    """
    config, store, order, todo = building.config, building.store, building.order, building.todo
    folder, begun = building.folder, building.begun
    try:
        building.build()
    except NearlyAllRejected as stop:
        lines = [line for goal in order if (line := stage_line(goal, store, goal.key in todo)).rows_in]
        about = _about(config, origin, pipe, begun)
        written = report.write_stopped(folder, config.name, about, lines, str(stop))
        of_run.write(folder, partial(of_run.html, config.name, about, order, store, lines, None, str(stop)))
        print("\n".join([report.stages_table(lines).text(), *report.remarks(lines), ""]))
        raise UserError(f"{stop}\n  report: {near(written)}") from None
    lines = [stage_line(goal, store, goal.key in todo, goal.key == pipe.corpus.key) for goal in order]
    lines = with_truth(lines, order, store, config.teacher.truth)
    scores = _scores(pipe, store)
    about = _about(config, origin, pipe, begun)
    written = report.write(folder, config.name, about, lines, scores)
    found = lives_if_readable(order, store)
    html = partial(of_run.html, config.name, about, order, store, lines, scores, found=found)
    page = of_run.write(folder, html) if found else None
    _link(folder, order, store)
    _append_to_ledger(store, folder, config, origin, about, lines, scores, todo)
    done = f"{len(todo)} of {len(order)} stages built, {about['seconds']} s. Report: {near(page or written)}"
    if origin.sweep is None:
        print("\n".join([report.stages_table(lines).text(), *report.remarks(lines), ""]))
        if asked := [each for line in lines for each in line.ledger]:
            print(ledger_table(asked, kinds=False).text() + "\n")
        if found:
            print(coloured(story(found, config.teacher.truth)))
        print(score_tables.scores_table(lines, scores).text())
        told = [*score_tables.beside_the_scores(lines), *score_tables.about_the_tasks(lines, scores)]
        print("\n".join([*map(paragraph, told), ""]))
        if (own := score_tables.own_domain_table(lines, scores)) is not None:
            print("\n".join([own.text(), paragraph(score_tables.own_domain_remark(lines)), "", *_to_serve(folder), ""]))
        print(done)
    else:  # the multirun ends with a table of its points
        print(f"{' '.join(origin.overrides) or config.name}: {shown(scores.mean)}; {done}")
    return scores.mean


def _to_serve(folder: Path) -> tuple[str, ...]:
    """The commands that take the embedder of a run along, and serve it."""
    return (
        "Take the embedder along for sentence-transformers, and serve it:",
        f"  python -m speed.export {near(folder)} --stage embedder --to my_embedder",
        "  vllm serve my_embedder --runner pooling",
    )


def _about(config: Config, origin: Origin, pipe: Pipeline, begun: float) -> dict[str, Any]:
    """The head of a report."""
    return {
        "command": " ".join(sys.argv),
        "preset": origin.preset,
        "overrides": " ".join(origin.overrides) or "none",
        "sweep": origin.sweep or "none",
        "seeds": f"data {config.seed.data}, sample {config.seed.sample}, train {config.seed.train}",
        "commit": commit(),
        "seconds": f"{time.monotonic() - begun:.1f}",
        "key": pipe.key,
    }


def _scores(pipe: Pipeline, store: Store) -> Scores:
    path = store.payload(pipe.evaluation) / "scores.json"
    return Scores.model_validate_json(path.read_text(encoding="utf-8"))


def _link(folder: Path, order: list[Goal], store: Store) -> None:
    """Links into the store, by name, relative so that the root may move."""
    (folder / "stages").mkdir(exist_ok=True)
    for goal in order:
        link = folder / "stages" / goal.label.replace(" ", "-")
        link.symlink_to(os.path.relpath(store.folder(goal.node), link.parent))


def _append_to_ledger(
    store: Store,
    folder: Path,
    config: Config,
    origin: Origin,
    about: dict[str, Any],
    lines: list[StageLine],
    scores: Scores,
    built: set[str],
) -> None:
    """One line a run in runs/ledger.jsonl; a single write, so that parallel runs do not mix theirs."""
    line = {
        "run": folder.relative_to(store.home / "runs").as_posix(),
        "name": config.name,
        **origin.model_dump(mode="json"),
        "commit": about["commit"],
        "key": about["key"],
        "seconds": float(about["seconds"]),
        "built": [entry.label for entry in lines if entry.key in built],
        "calls_now": sum(entry.cost.get("calls", 0) for entry in lines if entry.key in built),
        "mean": scores.mean,
        "types": scores.types,
    }
    with (store.home / "runs" / "ledger.jsonl").open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")
