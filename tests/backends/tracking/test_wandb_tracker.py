"""W&B holds what the run's own files say, read back from what it wrote offline."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from speed.backends.tracking import wandb_tracker
from speed.backends.tracking.wandb_tracker import WandbTracker, _Sender
from speed.ports import TrackedRun

SENIOR = {"kl_reference": 0.25, "rewards_accuracies": 0.75, "logps_chosen": -12.5, "logps_rejected": -20.5}
WRITING = {"written_valid_json": 0.5, "reference_valid_json": 1.0, "length_drift": 1.25}
BLOCK = 32 * 1024
ROOT = Path(__file__).resolve().parents[3]


def run_folder(run: Path) -> Path:
    """A finished run with one stage."""
    (run / "stages" / "senior").mkdir(parents=True)
    points = [{"step": step, "loss": 0.7 - step / 10, "rewards_accuracies": step / 4} for step in (1, 2)]
    (run / "stages" / "senior" / "curves.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    stage: dict[str, Any] = {"label": "senior", "rows_in": 9, "rows_out": 1, "seconds": 3.5, "cost": {}}
    stage |= {"rejected": {"over_max_length": 2}, "metrics": SENIOR | WRITING | {"unknown": None}}
    scores = {"mean": 40.0, "mean_of_types": 41.0, "types": {"STS": 42.0}, "tasks": {"Facts": 43.0}}
    about = {"sweep": "beta", "preset": "miniature"}
    (run / "summary.json").write_text(json.dumps({"about": about, "scores": scores, "stages": [stage]}))
    (run / "config.yaml").write_text("preference: {dpo: {beta: 0.1}}\n")
    return run


def tracked(run: Path) -> TrackedRun:
    """What a tracker is told of it."""
    home = run.parent
    return TrackedRun(folder=run, key="k" * 64, preset="miniature", sweep="beta", home=home, directory=home)


def finished_records(file: Path) -> list[Any]:
    """The records of a .wandb file once its last one is there: W&B's service writes it in a process of its own."""
    for _ in range(3000):
        records = list(records_so_far(file))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} has no last record after five minutes")


def records_so_far(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log, whose parts never cross a block, behind seven bytes of header."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), 7, b""
    while place < len(content):
        if BLOCK - place % BLOCK < 7:  # no room for a header: the block's rest is empty
            place += BLOCK - place % BLOCK
            continue
        if len(content) - place < 7:  # the rest is not written yet
            return
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if len(content) - place - 7 < length:
            return
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def points_of(records: list[Any]) -> list[dict[str, Any]]:
    """Everything that was logged, in order."""
    found = ({item.key or "/".join(item.nested_key): item.value_json for item in r.history.item} for r in records)
    return [{name: json.loads(value) for name, value in point.items()} for point in found if point]


def summary_of(records: list[Any]) -> dict[str, Any]:
    """The summary at the end."""
    found: dict[str, Any] = {}
    for record in records:
        found |= {item.key or "/".join(item.nested_key): item.value_json for item in record.summary.update}
    return {name: json.loads(value) for name, value in found.items()}


@pytest.mark.filterwarnings("ignore")
def test_figures_of_a_training_and_its_curve_reach_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    with mock.patch.object(wandb, "init", wraps=wandb.init) as begun:
        WandbTracker().follow(tracked(run_folder(tmp_path / "run"))).finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = finished_records(file)
    found, curve = summary_of(records), [point for point in points_of(records) if "senior/loss" in point]
    for name, value in (SENIOR | WRITING).items():
        assert found[f"senior/{name}"] == value
    assert found["senior/rejected/over_max_length"] == 2
    assert found["mteb/mean"] == 40.0
    assert [point["senior/rewards_accuracies"] for point in curve] == [0.25, 0.5]
    assert {each.metric.step_metric for each in records if each.metric.glob_name == "senior/*"} == {"senior/step"}
    assert [each.artifact.type for each in records if each.artifact.type] == ["report"]
    assert {each.run.run_group for each in records if each.run.run_id} == {"beta"}, "points of a sweep stand together"
    assert not begun.call_args.kwargs["settings"].x_disable_stats, (
        "W&B measures the machine, and so its GPUs, every some seconds"
    )


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_does_not_answer_leaves_the_run_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert wandb_tracker.SECONDS_TO_ANSWER == 10
    monkeypatch.setattr(wandb_tracker, "SECONDS_TO_ANSWER", 1.0)
    WandbTracker().follow(tracked(run_folder(tmp_path / "run"))).finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    said = capsys.readouterr().err
    assert "W&B did not take the run within 1 s" in said
    assert f"wandb sync {file.parent}" in said
    assert "aaaa" not in said
    records = finished_records(file)
    assert any(
        item.nested_key == ["mteb/mean"] or item.key == "mteb/mean" for r in records for item in r.summary.update
    )


KILLED = """
import sys, time
from pathlib import Path
from speed.backends.tracking.wandb_tracker import WandbTracker
from speed.ports import TrackedRun

home = Path(sys.argv[1])
run = home / "killed"
run.mkdir()
(run / "config.yaml").write_text("name: smoke")
follower = WandbTracker().follow(
    TrackedRun(folder=run, key="k" * 64, preset="miniature", sweep=None, home=home, directory=home)
)
for step in range(1, 31):
    follower.event("senior", {"event": "metric", "step": step, "figures": {"loss": 1 / step}})
for stage, calls, dollars in (("seed data", 5, 0.25), ("preferences", 4, 1.0)):
    follower.event(stage, {"event": "shard", "start": 0, "stop": 2, "rejected": 0, "calls": calls, "dollars": dollars})
follower.records("seed data", lambda: (home / "all is sent").write_text("") and [] or [])
while True:
    time.sleep(0.1)
"""


@pytest.mark.filterwarnings("ignore")
def test_after_a_kill_the_same_wandb_run_goes_on_and_has_each_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # a service of its own
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, env=own)
    memory = tmp_path / "tracking" / ("k" * 16 + ".json")
    try:
        while not (tmp_path / "all is sent").exists():
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    first = json.loads(memory.read_text())["id"]
    run = run_folder(tmp_path / "run")
    (run / "stages" / "junior").mkdir()
    (run / "stages" / "junior" / "curves.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n')
    follower = WandbTracker().follow(tracked(run))
    for step in (*range(1, 31), *range(25, 41)):  # what the killed one did, and on from its last checkpoint
        follower.event("senior", {"event": "metric", "step": step, "figures": {"loss": 1 / step}})
    follower.records("seed data", lambda: [{"row": 3, "text": "<b>bold</b>"}])
    for done in (1, 2):
        event = {"event": "progress", "done": done, "total": 2, "calls": 6 + done, "dollars": done / 2}
        follower.event("seed data", event)
    follower.finish()
    [file] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.stem == f"run-{first}", "one run, under the name of the first"
    records = finished_records(file)
    points = points_of(records)
    assert [point["senior/step"] for point in points if "senior/step" in point] == list(range(1, 41))
    assert [point["junior/step"] for point in points if "junior/step" in point] == [1, 2]
    costs = [(point["cost/calls"], point["cost/dollars"]) for point in points if "cost/calls" in point]
    assert costs[0] == (9 + 7, 1.25 + 0.5), "what the killed one had spent is in what the run has cost so far"
    assert (summary_of(records)["cost/calls"], summary_of(records)["cost/dollars"]) == (9 + 8, 1.25 + 1.0)
    assert any(name.startswith("seed-data/records") for point in points for name in point)
    assert not memory.exists(), "the next run of this experiment is a W&B run of its own"


@pytest.mark.filterwarnings("ignore")
def test_a_failed_run_ends_as_failed_with_its_last_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: smoke")
    follower = WandbTracker().follow(tracked(run))
    follower.event("senior", {"event": "metric", "step": 1, "figures": {"loss": 0.5}})
    follower.event("seed data", {"event": "shard", "start": 0, "stop": 2, "rejected": 0, "calls": 9, "dollars": None})
    follower.fail()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = finished_records(file)
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [1]
    assert summary_of(records)["senior/loss"] == 0.5
    assert summary_of(records)["cost/calls"] == 9
    assert "cost/dollars" not in summary_of(records), "an unknown price is in no sum"


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_waits_elsewhere_ends_well_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its questions lie with a batch server: that is no failure, and nothing that W&B should send an alarm for."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = run_folder(tmp_path / "run")
    follower = WandbTracker().follow(tracked(run))
    follower.event("seed data", {"event": "progress", "done": 0, "total": 2, "calls": 2, "dollars": 0.5})
    follower.leave()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = finished_records(file)
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [0]
    assert summary_of(records)["left"] is True
    follower = WandbTracker().follow(tracked(run))
    follower.finish()
    (again,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert again.stem == file.stem, "one W&B run"
    assert not summary_of(finished_records(again)).get("left")
    assert summary_of(finished_records(again))["cost/calls"] == 2


def test_a_run_that_goes_on_online_sends_no_table_twice(tmp_path: Path) -> None:
    """Each start tells the records of what was built before; the server's summary says which it has."""
    sender, logged = _Sender("speed", tracked(run_folder(tmp_path / "run")), SimpleQueue()), []
    sender.tracked = SimpleNamespace(summary={"seed-data/records": "a table"}, log=logged.append)
    for label in ("seed data", "synthesis"):
        sender._table(label, [{"row": 1, "text": "one"}])
    assert [list(each) for each in logged] == [["synthesis/records"]]


@pytest.mark.filterwarnings("ignore")
def test_each_alert_reaches_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where two of one stage come at the same moment, and where the run has a long name."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / ("12-00-00-" + "long" * 20)
    run.mkdir()
    (run / "config.yaml").write_text("name: smoke")
    follower = WandbTracker().follow(tracked(run))
    for message in ("it stands still", "it is dear"):
        follower.event("seed data", {"event": "alert", "message": message})
    follower.fail()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = [record.alert for record in finished_records(file) if record.WhichOneof("record_type") == "alert"]
    assert [alert.text for alert in found] == ["it stands still", "it is dear"]
    assert {alert.level for alert in found} == {"WARN"}
    assert max(len(alert.title) for alert in found) < 64, "W&B takes no longer one"
    assert max(alert.wait_duration for alert in found) <= 1, "milliseconds until another one of this title is sent"
