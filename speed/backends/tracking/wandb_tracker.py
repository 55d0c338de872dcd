"""Weights & Biases: a copy of the run's own figures while it runs. Offline unless a key is set; it never fails a run.

A thread of its own does all that W&B takes time for, so that neither an import nor a slow server delays a stage. The
name of an unfinished run stands under the root (`tracking/`): the same command after a kill goes on with the same W&B
run. Which points of a training it has, its server says; what was spent stands beside the name. A run that was kept
offline is written anew, since W&B's process may have had the last points in its memory; what the killed run left is
removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from speed.core.cache import write_aside
from speed.core.spec import Json
from speed.ports import Follower, TrackedRun, Tracker

SECONDS_TO_ANSWER = 10.0
"""How long W&B's server may take to begin a run; then the run is written offline."""
SECONDS_TO_END = 300.0
"""How long a run that is over waits until everything is sent."""
SECONDS_BETWEEN_COSTS = 10.0
LONGEST_TITLE = 63
"""Characters of an alert's title that W&B takes."""
LEFT = "left"
"""In the summary of a run: whether it waits for what is under way elsewhere, such as a batch of questions."""
Cost: TypeAlias = tuple[int, float | None]
"""Calls and dollars; None where a price is unknown."""


class WandbTracker(Tracker):
    """One W&B run for each run; runs of a sweep share a group."""

    project: str = "speed"

    def follow(self, run: TrackedRun) -> Follower:
        """Begin to send config, training curves, cost, sampled records, stage figures, scores and the report.

        Without WANDB_API_KEY (and without WANDB_MODE), or without an answer of the server within ten seconds,
        everything stays in `wandb` under the run's directory, for `wandb sync`.
        An error becomes one line on stderr: the run's own files are complete without W&B.
        """
        return _WandbFollower(self.project, run)


class _WandbFollower(Follower):
    """Hands everything to a thread, in order."""

    def __init__(self, project: str, run: TrackedRun) -> None:
        self.work: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.sender = _Sender(project, run, self.work)
        self.thread = threading.Thread(target=self.sender.send_all, name="wandb", daemon=True)
        self.thread.start()

    def event(self, label: str, event: dict[str, Json]) -> None:
        """Send a point of a training, what was spent so far, or an alert; other events stay here."""
        if event["event"] in ("metric", "progress", "shard", "alert") and not self.sender.broken:
            self.work.put((label, dict(event)))

    def records(self, label: str, read: Callable[[], list[dict[str, Json]]]) -> None:
        """Send some of a stage's records as a table."""
        self.work.put((label, {"event": "records", "read": read}))

    def finish(self) -> None:
        """Send what stands in the run's folder, and wait until all is sent."""
        self._end("finish")

    def fail(self) -> None:
        """End the W&B run as failed; the same command goes on with it."""
        self._end("fail")

    def leave(self) -> None:
        """End the W&B run as finished, with `left` in its summary until the same command goes on with it."""
        self._end("leave")

    def _end(self, how: str) -> None:
        self.work.put(("", {"event": how}))
        self.thread.join(SECONDS_TO_END)
        if self.thread.is_alive():
            _complain(f"W&B has not taken everything within {SECONDS_TO_END:g} s", self.sender.where())


class _Sender:
    """What the thread does."""

    def __init__(self, project: str, run: TrackedRun, work: queue.SimpleQueue[tuple[str, Any]]) -> None:
        self.project, self.run, self.work = project, run, work
        self.tracked: Any = None
        self.progress: dict[str, Cost] = {}
        """Calls and dollars of each stage so far, by this process."""
        self.sent: dict[str, int] = {}
        """Last step of each training that W&B has."""
        self.told = 0.0
        self.broken = False
        """Nothing more is sent: nothing is kept for it either."""
        self.memory = _Memory(run)

    def where(self) -> str:
        """The command that sends what was kept offline."""
        return "" if self.tracked is None else f"wandb sync {Path(self.tracked.dir).parent}"

    def send_all(self) -> None:
        """Send until the run ends. An error ends the sending, never the run."""
        with ExitStack() as held:
            try:
                self.memory.open(held)
                self._begin()
                while self._send_next():
                    pass
            except Exception as error:
                self.broken = True
                _complain(f"W&B was not written ({type(error).__name__})", self.where())

    def _send_next(self) -> bool:
        """Whether the run goes on."""
        label, event = self.work.get()
        match event["event"]:
            case "metric":
                self._point(label, event["step"], event["figures"])
            case "progress" | "shard":
                self._costs(label, event)
            case "records":
                self._table(label, event["read"]())
            case "alert":
                title = f"{self.run.folder.name}: {label}"[:LONGEST_TITLE]
                # W&B would leave out a second one of the same stage within a minute; none of ours is said twice
                self.tracked.alert(title=title, text=event["message"], level="WARN", wait_duration=0.001)
            case "fail" | "leave" as how:
                self.tracked.summary.update({**self._cost_figures(), **({LEFT: True} if how == "leave" else {})})
                self._remember()
                self.tracked.finish(exit_code=1 if how == "fail" else 0)
            case "finish":
                self.tracked.summary.update(self._cost_figures())
                self._whole_run()
                self.tracked.finish()
                self.memory.forget()
        return event["event"] not in ("fail", "leave", "finish")

    def _begin(self) -> None:
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        def begun(mode: Any) -> Any:
            return wandb.init(
                project=self.project,
                id=self.memory.run_id,
                resume="allow",
                name=self.run.folder.name,
                group=self.run.sweep,
                tags=[self.run.preset],
                config=config_values(self.run.folder / "config.yaml"),
                dir=str(self.run.directory),
                mode=mode,
                settings=wandb.Settings(
                    console="off", silent=True, disable_git=True, x_disable_meta=True, init_timeout=SECONDS_TO_ANSWER
                ),
            )

        try:
            self.tracked = begun(mode)
        except wandb.errors.Error as error:
            self.memory.begin_anew()  # W&B holds the name of the run that it could not begin
            self.tracked = begun("offline")
            if mode != "offline":
                print(
                    f"W&B did not take the run within {SECONDS_TO_ANSWER:g} s ({type(error).__name__}); it is kept "
                    f"offline: {self.where()}",
                    file=sys.stderr,
                )
        if self.tracked.summary.get(LEFT):
            self.tracked.summary[LEFT] = False
        self.sent = {
            name.removesuffix("/step"): int(step)
            for name, step in dict(self.tracked.summary).items()
            if name.endswith("/step") and isinstance(step, int)
        }
        self._remember()

    def _point(self, label: str, step: int, figures: dict[str, float]) -> None:
        """One point of a training, unless it was sent: a training that goes on repeats the steps since it was saved."""
        stage = named(label)
        if stage not in self.sent or step > self.sent[stage]:
            self.tracked.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self.tracked.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in figures.items()}})
            self.sent[stage] = step

    def _costs(self, label: str, event: dict[str, Json]) -> None:
        self.progress[label] = (event["calls"], event["dollars"])
        due = time.monotonic() - self.told > SECONDS_BETWEEN_COSTS
        if due:
            self.told = time.monotonic()
            figures = self._cost_figures()
            if any(figures.values()):
                self.tracked.log(figures)
        if due or event["event"] == "shard":
            self._remember()

    @property
    def _cost(self) -> Cost:
        """What the run has cost, with what killed processes of it had spent."""
        calls, prices = zip(self.memory.cost, *self.progress.values(), strict=True)
        return sum(calls), None if None in prices else sum(price or 0.0 for price in prices)

    def _cost_figures(self) -> dict[str, Json]:
        calls, dollars = self._cost
        return {"cost/calls": calls} if dollars is None else {"cost/calls": calls, "cost/dollars": dollars}

    def _remember(self) -> None:
        self.memory.write(self.tracked.dir if self.tracked.offline else None, self._cost)

    def _table(self, label: str, rows: list[dict[str, Json]]) -> None:
        import wandb

        stage = named(label)
        if f"{stage}/records" in dict(self.tracked.summary):  # sent before a kill
            return
        columns = list(dict.fromkeys(name for row in rows for name in row))
        data = [[row.get(name) for name in columns] for row in rows]
        self.tracked.log({f"{stage}/records": wandb.Table(columns=columns, data=data)})

    def _whole_run(self) -> None:
        """Points that this process has not seen (stages that were built before), figures, scores and the report."""
        import wandb

        folder = self.run.folder
        for stage in sorted((folder / "stages").iterdir()):
            for step, figures in curves(stage / "curves.jsonl").items():
                self._point(stage.name, step, figures)
        self.tracked.summary.update(flat_figures(json.loads((folder / "summary.json").read_text(encoding="utf-8"))))
        report = wandb.Artifact(f"report-{self.memory.run_id}", type="report")
        for file in ("report.md", "report.html", "summary.json", "config.yaml"):
            if (folder / file).is_file():
                report.add_file(str(folder / file), name=file)
        self.tracked.log_artifact(report)


class _Memory:
    """Which W&B run the unfinished runs of an experiment belong to, and what they have cost."""

    def __init__(self, run: TrackedRun) -> None:
        self.file = run.home / "tracking" / f"{run.key[:16]}.json"
        self.folder = run.folder
        self.mine = False
        self.cost: Cost = (0, 0.0)
        """Of earlier processes."""
        self.begin_anew()

    def begin_anew(self) -> None:
        """Take a W&B run that nothing was sent to."""
        self.run_id = hashlib.sha256(f"{self.folder} {time.time_ns()}".encode()).hexdigest()[:12]

    def open(self, held: ExitStack) -> None:
        """Go on with the W&B run of an earlier process, unless another that lives does so."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            held.enter_context(FileLock(self.file.with_suffix(".lock"), timeout=0))
            self.mine = True
        if self.mine and self.file.is_file():
            with suppress(ValueError, KeyError, TypeError):
                found = json.loads(self.file.read_text(encoding="utf-8"))
                self.run_id = str(found["id"])
                self.cost = (found.get("calls", 0), found.get("dollars", 0.0))
                left = Path(found["offline"]) if found["offline"] else None
                if left is not None and left.name.startswith("offline-run-") and left.name.endswith(self.run_id):
                    shutil.rmtree(left, ignore_errors=True)

    def write(self, offline: str | None, cost: Cost) -> None:
        """Write down which W&B run this is.

        Args:
            offline: where its files are, if they are kept here.
            cost: of this process and earlier ones.
        """
        if self.mine:
            folder, (calls, dollars) = str(Path(offline).parent) if offline else None, cost
            found = {"id": self.run_id, "offline": folder, "calls": calls, "dollars": dollars}
            with write_aside(self.file) as aside:
                aside.write_text(json.dumps(found), encoding="utf-8")

    def forget(self) -> None:
        """The run is complete: another one of the same key is a W&B run of its own."""
        if self.mine:
            self.file.unlink(missing_ok=True)


def _complain(what: str, remedy: str) -> None:
    print(f"{what}; the run itself is complete without it{f': {remedy}' if remedy else ''}", file=sys.stderr)


def named(label: str) -> str:
    """A stage's name in W&B, and of its link in the run's folder."""
    return label.replace(" ", "-")


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
        name = named(stage["label"])
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
