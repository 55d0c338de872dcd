"""One merged copy for all workers that load it at a time: made once, and gone with the last of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from engine_contract import adapter_of

from speed.backends.engines import merged_copy as module
from speed.backends.engines.merged_copy import merged_copy
from speed.backends.engines.weights import load
from speed.core.content import package_folder

BASE = package_folder("package:miniature/bases/llama")


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    return adapter_of(BASE, tmp_path / "payload", "plain")


def names(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir())


def test_the_copy_is_the_generator_with_its_adapter(payload: Path, tmp_path: Path) -> None:
    import torch

    ids = torch.arange(10, 20)[None]
    with merged_copy(payload, "fp32", tmp_path / "cache") as folder:
        merged = load(str(folder), "fp32", "cpu").model(ids).logits
    assert torch.allclose(merged, load(payload, "fp32", "cpu").model(ids).logits, atol=1e-5)
    assert not torch.allclose(merged, load(str(BASE), "fp32", "cpu").model(ids).logits, atol=1e-2)
    assert names(tmp_path / "cache") == [".lock"]


def test_eight_workers_at_once_merge_once_and_the_last_one_removes_it(
    payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def save(weights: Path, to: Path, precision: str) -> None:
        made.append(to)
        to.mkdir()
        (to / "model.safetensors").write_text("weights")

    monkeypatch.setattr(module, "save_merged", save)
    together, found = threading.Barrier(8, timeout=60), []

    def work() -> None:
        with merged_copy(payload, "bf16", tmp_path / "cache") as folder:
            together.wait()  # all of them have it now
            found.append((folder / "model.safetensors").read_text())

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == ["weights"] * 8
    assert len(made) == 1
    assert names(tmp_path / "cache") == [".lock"]
    with (
        merged_copy(payload, "bf16", tmp_path / "cache") as one,
        merged_copy(payload, "fp32", tmp_path / "cache") as two,
    ):
        assert one != two, "another arithmetic is another copy"
    assert len(made) == 3


def _hold(payload: Path, cache: Path, ready: Path) -> None:
    with merged_copy(payload, "fp32", cache):
        ready.touch()
        signal.pause()


def test_a_killed_worker_keeps_nobody_from_removing_it(payload: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    worker = multiprocessing.get_context("spawn").Process(target=_hold, args=(payload, tmp_path / "cache", ready))
    worker.start()
    while not ready.exists():
        assert worker.is_alive()
        worker.join(0.05)
    with merged_copy(payload, "fp32", tmp_path / "cache") as folder:
        pass
    assert folder.is_dir(), "the other one still reads it"
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    with merged_copy(payload, "fp32", tmp_path / "cache") as again:
        assert again == folder
    assert names(tmp_path / "cache") == [".lock"]


def test_a_removal_that_is_interrupted_leaves_no_half_model(
    payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda *_, **__: None)  # as after a kill, or with files that a share keeps
        with merged_copy(payload, "fp32", tmp_path / "cache") as folder:
            pass
    assert not folder.exists()
    with merged_copy(payload, "fp32", tmp_path / "cache") as again:
        assert (again / "model.safetensors").is_file()


def test_a_merge_that_fails_leaves_nothing_and_may_be_tried_again(
    payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(weights: Path, to: Path, precision: str) -> None:
        to.mkdir()
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "save_merged", fail)
        with pytest.raises(OSError, match="no space"), merged_copy(payload, "fp32", tmp_path / "cache"):
            pass
    assert ".partial" not in names(tmp_path / "cache")
    with merged_copy(payload, "fp32", tmp_path / "cache") as folder:
        assert (folder / "model.safetensors").is_file()
