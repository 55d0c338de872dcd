"""Weights & Biases: a copy of the run's own figures. Offline unless a key is set; an error of it never fails a run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from speed.core.spec import Json
from speed.ports import Tracker

SECONDS_TO_ANSWER = 10.0
"""How long W&B's server may take to begin a run; then the run is written offline."""


class WandbTracker(Tracker):
    """One W&B run for each run; runs of a sweep share a group."""

    project: str = "speed"

    def mirror(self, run: Path, runtime_dir: Path) -> None:
        """Send config, training curves, stage figures and scores of the finished run in folder `run`.

        Without WANDB_API_KEY (and without WANDB_MODE), or without an answer of the server within ten seconds,
        everything stays in `runtime_dir/wandb`, for `wandb sync`.
        An error becomes one line on stderr: the run's own files are complete without W&B.
        """
        try:
            self._mirror(run, runtime_dir)
        except Exception as error:
            print(f"W&B was not written ({type(error).__name__}); the run itself is complete", file=sys.stderr)

    def _mirror(self, run: Path, runtime_dir: Path) -> None:
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        about = summary["about"]
        group = None if about["sweep"] == "none" else about["sweep"]

        def begun(mode: Any) -> Any:
            return wandb.init(
                project=self.project,
                name=run.name,
                group=group,
                tags=[about["preset"]],
                config=config_values(run / "config.yaml"),
                dir=str(runtime_dir),
                mode=mode,
                settings=wandb.Settings(
                    console="off", silent=True, disable_git=True, x_disable_meta=True, init_timeout=SECONDS_TO_ANSWER
                ),
            )

        try:
            tracked = begun(mode)
        except wandb.errors.Error as error:
            if mode == "offline":
                raise
            tracked = begun("offline")
            print(
                f"W&B did not take the run within {SECONDS_TO_ANSWER:g} s ({type(error).__name__}); it is kept "
                f"offline: wandb sync {Path(tracked.dir).parent}",
                file=sys.stderr,
            )
        with tracked:
            for stage in sorted((run / "stages").iterdir()):
                for step, figures in curves(stage / "curves.jsonl").items():
                    tracked.log({f"{stage.name}/step": step, **{f"{stage.name}/{k}": v for k, v in figures.items()}})
            tracked.summary.update(flat_figures(summary))


def curves(path: Path) -> dict[int, dict[str, float]]:
    """Points of a training by step; the last one of a step that was repeated after an interruption."""
    points: dict[int, dict[str, float]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                point = json.loads(line)
            except ValueError:  # half a line, written when the process was killed
                continue
            points[int(point.pop("step"))] = point
    return dict(sorted(points.items()))


def flat_figures(summary: dict[str, Any]) -> dict[str, Json]:
    """Scores and stage figures under flat names."""
    scores = summary["scores"]
    figures: dict[str, Json] = {"mteb/mean": scores["mean"], "mteb/mean_of_types": scores["mean_of_types"]}
    figures |= {f"mteb/type/{name}": score for name, score in scores["types"].items()}
    figures |= {f"mteb/task/{name}": score for name, score in scores["tasks"].items()}
    for stage in summary["stages"]:
        name = stage["label"].replace(" ", "-")
        figures |= {f"{name}/rows_in": stage["rows_in"], f"{name}/rows_out": stage["rows_out"]}
        figures |= {f"{name}/seconds": stage["seconds"], f"{name}/calls": stage["cost"].get("calls", 0)}
        figures |= {f"{name}/rejected/{cause}": count for cause, count in stage["rejected"].items()}
        measured = {key: value for key, value in stage["metrics"].items() if isinstance(value, (int, float))}
        figures |= {f"{name}/{key}": value for key, value in measured.items()}
    return {name: value for name, value in figures.items() if value is not None}


def config_values(path: Path) -> dict[str, Any]:
    """The run's config. It never holds API keys, which come from the environment."""
    import yaml  # type: ignore[import-untyped]

    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values
