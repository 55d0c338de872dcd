"""W&B holds what the run's own files say, read back from what it wrote offline."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speed.backends.tracking import wandb_tracker
from speed.backends.tracking.wandb_tracker import WandbTracker

SENIOR = {"kl_reference": 0.25, "rewards_accuracies": 0.75, "logps_chosen": -12.5, "logps_rejected": -20.5}
WRITING = {"written_valid_json": 0.5, "reference_valid_json": 1.0, "length_drift": 1.25}
BLOCK = 32 * 1024


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


@pytest.mark.filterwarnings("ignore")
def test_figures_of_a_training_and_its_curve_reach_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    WandbTracker().mirror(run_folder(tmp_path / "run"), tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    summary, curve = {}, []
    for record in finished_records(file):
        summary |= {item.key or "/".join(item.nested_key): item.value_json for item in record.summary.update}
        point = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        curve += [point] if "senior/loss" in point else []
    found = {name: json.loads(value) for name, value in summary.items()}
    for name, value in (SENIOR | WRITING).items():
        assert found[f"senior/{name}"] == value
    assert found["senior/rejected/over_max_length"] == 2
    assert found["mteb/mean"] == 40.0
    assert [json.loads(point["senior/rewards_accuracies"]) for point in curve] == [0.25, 0.5]


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_does_not_answer_leaves_the_run_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert wandb_tracker.SECONDS_TO_ANSWER == 10
    monkeypatch.setattr(wandb_tracker, "SECONDS_TO_ANSWER", 1.0)
    WandbTracker().mirror(run_folder(tmp_path / "run"), tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    said = capsys.readouterr().err
    assert "W&B did not take the run within 1 s" in said
    assert f"wandb sync {file.parent}" in said
    assert "aaaa" not in said
    records = finished_records(file)
    assert any(
        item.nested_key == ["mteb/mean"] or item.key == "mteb/mean" for r in records for item in r.summary.update
    )
