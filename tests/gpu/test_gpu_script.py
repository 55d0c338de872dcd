"""The script that measures a GPU, in tiny shapes on a CPU: every part works, and none of them can stop the others."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gpu_figures import Figures
from gpu_machine import Machine
from gpu_run import PARTS, WHOLE, Part, carry_out

from speed.core import manifest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOT_THERE = "litellm,mteb,wandb,openai,sentence_transformers"


def environment(**more: str) -> dict[str, str]:
    """Of a command of the script."""
    return {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **more}


def measured(name: str, place: Path) -> dict[str, Any]:
    """What a part has written about the CPU."""
    figures = Figures(place / "figures.json")
    importlib.import_module(f"gpu_{name}").measure(figures, Machine("cpu", True), place)
    found: dict[str, Any] = json.loads((place / "figures.json").read_text())
    assert "failed" not in found, found["failed"]
    return found


def test_the_embedder_s_steps_and_attention(tmp_path: Path) -> None:
    found = measured("embedder", tmp_path)
    assert len(found["steps"]) == 5
    for step in found["steps"].values():
        assert step["padded_tokens_per_second"] >= step["tokens_per_second"] > 0
        assert step["memory"]["estimate_gb"] > 0
        assert step["computed_flop"]["tflops"] >= step["model_flop"]["tflops"] > 0
    whole, cached = found["steps"]["plain"], found["steps"]["cached"]
    assert whole["memory"]["estimate_gb"] > cached["memory"]["estimate_gb"]
    for rows in ("a chunk as the trainer makes it", "rows as they come"):
        assert found["attention"][rows]["padded_ms"] > 0
        assert "varlen_ms" in found["attention"][rows]


def test_the_generators_steps_begin_at_ln_2(tmp_path: Path) -> None:
    found = measured("generators", tmp_path)
    preference = [each for name, each in found["trainings"].items() if name.startswith("dpo")]
    assert preference
    assert all(abs(each["first_loss_minus_ln2"]) < 1e-3 for each in preference)
    assert all(len(each["losses"]) == 3 and each["tokens_per_second"] > 0 for each in found["trainings"].values())
    assert set(found["plan"]) == {"sft", "dpo"}


def test_the_engine_and_the_encoder(tmp_path: Path) -> None:
    found = measured("engine", tmp_path)["the preset's batch"]
    assert found["texts"] == 512 // 20
    assert found["tokens_per_second"] > 0
    encoded = measured("encoding", tmp_path)
    sizes = [each for name, each in encoded.items() if name.startswith("chunks of")]
    assert len(sizes) == 3
    assert all(each["texts_per_second"] > 0 and each["largest_difference"] < 0.05 for each in sizes)


def test_fp16_trains_adapters_in_fp32_under_a_scaler(tmp_path: Path) -> None:
    found = measured("fp16", tmp_path)
    assert found["embedder fp16"]["trained_in"] == ["torch.float32"]
    assert found["embedder fp16"]["scale"] == 65536 / 2 ** found["embedder fp16"]["overflows"]
    assert found["embedder bf16"]["scale"] is None


def test_the_probe_measures_each_stage_that_computes(tmp_path: Path) -> None:
    found = measured("probe", tmp_path)
    assert not found["refused"]
    stages = {"junior", "root data", "senior", "synthesis", "revisor", "revision", "embedder"}
    assert found["measured"].keys() == stages
    assert all(each["gigabytes"] > 0 and each["tokens_per_second"] > 0 for each in found["measured"].values())
    assert found["measured"]["synthesis"] == found["measured"]["root data"], "equal trials once"
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_the_smoke_experiment_needs_neither_litellm_nor_mteb_nor_wandb(tmp_path: Path) -> None:
    path = f"{HERE / 'without'}:{ROOT}:{HERE}"
    done = subprocess.run(
        [sys.executable, str(HERE / "gpu_part.py"), "smoke", str(tmp_path / "figures.json"), str(tmp_path), "--tiny"],
        env=environment(PYTHONPATH=path, HIDDEN=NOT_THERE), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())
    stages = {stage["stage"] for stage in found["stages"]}
    assert {"topics", "seed data", "junior", "senior", "revisor", "dedup", "embedder", "evaluation"} <= stages
    assert found["asked"].keys() == {"200"}
    assert "MiniatureSTS" in found["scores"][0]


def test_one_command_prints_one_object_a_part(tmp_path: Path) -> None:
    command = ["bash", str(HERE / "run.sh"), "--tiny", "--parts", "5", "--out", str(tmp_path), "--limits", "20"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text()
    objects = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(each["part"], each["name"], each["ended"]) for each in objects] == [(5, "encoding", "done")]
    assert objects == [json.loads((tmp_path / "5-encoding.json").read_text())]


FAILS = "import json, pathlib; pathlib.Path(FILE).write_text(json.dumps({'first': 1})); raise SystemExit('no')"
HANGS = """
import json, os, pathlib, subprocess, sys, threading
held = os.open(PIPE, os.O_WRONLY)
waits = "print('here', flush=True); input()"
child = subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[held])
child.stdout.readline()
pathlib.Path(FILE).write_text(json.dumps({"first": 1}))
threading.Event().wait()
"""
WORKS = "import json, pathlib; pathlib.Path(FILE).write_text(json.dumps({'first': 1, 'second': 2.00001}))"


def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path: Path) -> None:
    scripts = {"fails": FAILS, "hangs": HANGS, "works": WORKS}
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    waited: list[float] = []

    def command(part: Part, file: Path, place: Path) -> list[str]:
        return [sys.executable, "-c", f"FILE, PIPE = {str(file)!r}, {str(pipe)!r}\n{scripts[part.name]}"]

    def wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
        """The part that hangs is told that its time is over as soon as it has written its figures."""
        waited.append(seconds)
        if "threading" not in str(process.args):
            return process.wait() is not None
        while not (tmp_path / "2-hangs.json").is_file():
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.01)
        return False

    parts = [Part(1, "fails", 7), Part(2, "hangs", 8), Part(3, "works", 9)]
    found = carry_out(parts, tmp_path, tmp_path / "scratch", command, WHOLE, wait)
    assert waited == [7, 8, 9]
    assert [each["first"] for each in found] == [1, 1, 1]
    assert found[0]["ended"] == "failed with code 1; see log.txt"
    assert found[1]["ended"] == "stopped: it had 8 s"
    assert found[2]["ended"] == "done"
    assert found[2]["second"] == 2.0
    assert found == [json.loads((tmp_path / f"{each['part']}-{each['name']}.json").read_text()) for each in found]
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""  # comes when nobody holds the other end: the part and its child are gone
    os.close(reading)


def test_no_part_begins_when_the_whole_time_is_over(tmp_path: Path) -> None:
    def command(part: Part, file: Path, place: Path) -> list[str]:
        raise AssertionError("it was started")

    found = carry_out([Part(1, "late", 60)], tmp_path, tmp_path, command, whole=0.0)
    assert found[0]["ended"].startswith("not started")


def test_a_failed_measurement_is_kept_and_the_next_one_has_its_turn(tmp_path: Path) -> None:
    figures = Figures(tmp_path / "figures.json")
    with figures.attempt("large"):
        figures.add(before=1)
        raise MemoryError("out of memory")
    with figures.attempt("small"):
        figures.add(after=2)
    expected = {"before": 1, "failed": {"large": "MemoryError: out of memory"}, "after": 2}
    assert json.loads((tmp_path / "figures.json").read_text()) == expected


def test_the_parts_fit_into_eight_minutes() -> None:
    assert WHOLE < 480
    assert sum(part.seconds for part in PARTS) <= WHOLE
    assert [part.number for part in PARTS] == [1, 2, 3, 4, 5, 6, 7]


def test_files_copied_to_a_machine_have_an_unknown_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "speed" / "core" / "manifest.py"))

    def version(name: str) -> str:
        raise manifest.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(manifest.metadata, "version", version)
    assert manifest.commit.__wrapped__() == "unknown"


def test_wheels_are_pinned_as_tested() -> None:
    script = (HERE / "wheels.sh").read_text()
    lists = re.findall(r"^(?:packages|pure)=\(([^)#]*?)\)", script, re.M | re.S)
    names = " ".join(lists).split()
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert {"trl", "datasets", "hydra-core", "pydantic", "antlr4-python3-runtime"} <= set(names)
    assert {name.lower().replace("_", "-") for name in names} <= pinned
    assert not {"vllm", "mteb", "litellm", "wandb"} & set(names)
