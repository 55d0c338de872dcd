"""`kill -9` at any moment of a training, then the same call: the same weights, to the bit."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from contrastive_examples import examples, exported, figures, small
from tiny_generator import context, make_base

from speed.backends.embedder import checkpoint
from speed.backends.embedder.settings import Batching, Lora


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def die(*anything: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], None]) -> None:
    """Run `work` in a process of its own, which must die of SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("LlamaConfig", {"lora": Lora(r=4, dropout=0.2), "checkpointing": "kept"}),
        ("LlamaConfig", {"lora": None, "batching": Batching(homogeneous=0.5), "learning_rate": 1e-3}),
        ("BertConfig", {"lora": None, "pooling": "mean"}),
    ],
    ids=["adapters", "all weights", "an encoder, whose pooler no gradient reaches"],
)
def test_ten_steps_equal_five_a_kill_and_five(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family)
    config = small(base, chunk_tokens=128, kept_tokens=256, epochs=2, **changes)
    data = examples(tmp_path / "examples.jsonl", 40)
    straight = context(tmp_path / "home")
    config.train(data, tmp_path / "straight", 5, straight)
    steps = len(figures(straight, "loss"))
    assert steps >= 10

    def five() -> None:
        broken = context(tmp_path / "home", checkpoint_seconds=0.0)
        broken.send = lambda event: die() if event["event"] == "metric" and event["step"] == 5 else None
        config.train(data, tmp_path / "broken", 5, broken)

    killed(five)
    [saved] = (tmp_path / "broken" / "checkpoints").iterdir()
    assert saved.name == "step-000000005"
    resumed = context(tmp_path / "home")
    config.train(data, tmp_path / "broken", 5, resumed)
    for name in ("loss", "gradient_norm", "learning_rate"):
        assert figures(resumed, name) == figures(straight, name)[5:]
    assert exported(tmp_path / "broken") == exported(tmp_path / "straight")
    assert not (tmp_path / "broken" / "checkpoints").exists()


def half_a_file(patch: pytest.MonkeyPatch) -> None:
    whole = safetensors.torch.save_file

    def cut_short(tensors: Any, file: Path) -> None:
        whole(tensors, file)
        if "step-000000002" in {path.name for path in file.parent.parent.iterdir()}:
            os.truncate(file, file.stat().st_size // 2)
            die()

    patch.setattr(safetensors.torch, "save_file", cut_short)


def before_its_name(patch: pytest.MonkeyPatch) -> None:
    replace = Path.replace
    patch.setattr(Path, "replace", lambda self, to: die() if to.name == "step-000000003" else replace(self, to))


def before_the_older_one_goes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint.shutil, "rmtree", remove_or_die)


def remove_or_die(folder: Path, *rest: Any, **more: Any) -> None:
    if folder.name == "step-000000002":
        die()
    REMOVE(folder, *rest, **more)


REMOVE = shutil.rmtree


@pytest.mark.parametrize("moment", [half_a_file, before_its_name, before_the_older_one_goes])
def test_a_kill_during_a_save_leaves_a_checkpoint(
    base: Path, tmp_path: Path, moment: Callable[[pytest.MonkeyPatch], None]
) -> None:
    config, data = small(base), examples(tmp_path / "examples.jsonl", 40)
    straight = context(tmp_path / "home")
    config.train(data, tmp_path / "straight", 5, straight)

    def saving() -> None:
        with pytest.MonkeyPatch.context() as patch:
            moment(patch)
            config.train(data, tmp_path / "broken", 5, context(tmp_path / "home", checkpoint_seconds=0.0))

    killed(saving)
    resumed = context(tmp_path / "home")
    config.train(data, tmp_path / "broken", 5, resumed)
    left = 2 if moment is before_the_older_one_goes else 3
    assert figures(resumed, "loss") == figures(straight, "loss")[-left:]
    assert exported(tmp_path / "broken") == exported(tmp_path / "straight")
