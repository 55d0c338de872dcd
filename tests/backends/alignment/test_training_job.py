"""Two processes train what one trains, and what goes wrong in a rank is said by the parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_generator import completions, context, make_base, preferences

from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.engines.weights import load, read_card
from speed.core.errors import UserError
from speed.data.costs.memory import checkpoint_bytes
from speed.data.trainings import Dpo, Sft
from speed.runtime import Context

LORA = TrlTrainer(method="lora", r=4, alpha=8, precision="fp32", prompt_format="plain")
SFT = Sft(learning_rate=1e-2, batch_size=4, epochs=1, max_length=64, warmup_ratio=0.0)
DPO = Dpo(beta=0.1, learning_rate=1e-2, batch_size=4, epochs=1, max_length=64, warmup_ratio=0.0)


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in json.loads((out / "training.json").read_text())["curve"]]


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    junior, one, two = (tmp_path / name for name in ("junior", "one", "two"))
    LORA.sft(str(base), completions(12), SFT, junior, context(tmp_path))
    LORA.dpo(junior, preferences(8), DPO, one, context(tmp_path))
    ctx = context(tmp_path, processes=2, checkpoint_seconds=0.0)
    LORA.dpo(junior, preferences(8), DPO, two, ctx)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert [event["step"] for event in ctx.events if event["event"] == "metric"] == [1, 2]  # type: ignore[attr-defined]
    assert ctx.tally.metrics["steps"] == 2
    assert ctx.tally.metrics["kl_reference"] > 0
    assert {file.name for file in two.iterdir()} == {"model", "weights.json", "training.json"}
    assert read_card(two) == read_card(one)


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True])
def test_two_processes_count_tokens_as_one_does(packing: bool, tmp_path: Path) -> None:
    """Twelve rows, or six packs of two."""
    base = make_base(tmp_path / "base")
    trainer, config = LORA, SFT
    if packing:
        trainer = LORA.model_copy(update={"packing": True})
        config = SFT.model_copy(update={"batch_size": 2, "max_length": 32})
    for processes in (1, 2):
        ctx = context(tmp_path, processes=processes)
        trainer.sft(str(base), completions(12), config, tmp_path / str(processes), ctx)
    assert len(losses(tmp_path / "2")) == 3
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)


@pytest.mark.slow
def test_rows_that_fill_a_last_batch_up_are_said(tmp_path: Path) -> None:
    """Nine rows, in micro batches of two on two processes."""
    ctx = context(tmp_path, processes=2)
    LORA.sft(str(make_base(tmp_path / "base")), completions(9), SFT, tmp_path / "out", ctx)
    said = [event["message"] for event in ctx.events if event["event"] == "say"]  # type: ignore[attr-defined]
    assert said == ["3 rows from the beginning of each pass fill its last batch up: each process needs its share"]


@pytest.mark.slow
def test_a_rank_that_fails_is_heard(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    ctx = context(tmp_path, processes=2)
    with pytest.raises(UserError, match="9 over_max_length"):
        LORA.sft(str(base), completions(9), SFT.model_copy(update={"max_length": 3}), tmp_path / "out", ctx)
    assert len(list((tmp_path / "out/processes/logs").rglob("stderr.log"))) == 2


def told_to_end(ctx: Context, step: int) -> Context:
    """The process that waits for the training gets SIGTERM as soon as it hears of `step`."""
    send = ctx.send

    def watch(event: dict[str, Any]) -> None:
        send(event)
        if event["event"] == "metric" and event["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    ctx.send = watch
    return ctx


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_that_is_told_to_end_saves_and_goes_on_later(processes: int, tmp_path: Path) -> None:
    base, config = make_base(tmp_path / "base"), SFT.model_copy(update={"epochs": 3.0})
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    LORA.sft(str(base), completions(40), config, straight, context(tmp_path, processes=processes))
    before = signal.getsignal(signal.SIGTERM)
    ctx = told_to_end(context(tmp_path, processes=processes), 11)  # in the midst of the second pass of ten steps
    with pytest.raises(UserError, match="told to end and saved step .* of 30"):
        LORA.sft(str(base), completions(40), config, stopped, ctx)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (stopped / "weights.json").exists()
    with pytest.raises(
        UserError, match=f"in {processes} processes .*(\n.*)*go on with as many GPUs .* and runtime.strategy=ddp"
    ):
        LORA.sft(str(base), completions(40), config, stopped, context(tmp_path, processes=3 - processes))
    ctx = context(tmp_path, processes=processes)
    LORA.sft(str(base), completions(40), config, stopped, ctx)
    first = next(event["step"] for event in ctx.events if event["event"] == "metric")  # type: ignore[attr-defined]
    assert first > 11
    assert losses(stopped) == losses(straight)
    assert len(losses(stopped)) == 30


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra [deepspeed]; its first run builds for 90 s")
def test_zero3_trains_what_one_process_trains(tmp_path: Path) -> None:
    """Supervised training, and a preference training that goes on from its adapter; then a stop and a resume."""
    base = make_base(tmp_path / "base")
    pairs = DPO.model_copy(update={"epochs": 3.0})
    one, two = tmp_path / "one", tmp_path / "two"
    for home, runtime in ((one, {}), (two, {"processes": 2, "strategy": "zero3"})):
        LORA.sft(str(base), completions(12), SFT, home / "junior", context(tmp_path, **runtime))
        if runtime:
            ctx = told_to_end(context(tmp_path, **runtime), 2)
            with pytest.raises(UserError, match="told to end"):
                LORA.dpo(home / "junior", preferences(8), pairs, home / "senior", ctx)
        LORA.dpo(home / "junior", preferences(8), pairs, home / "senior", context(tmp_path, **runtime))
    for stage in ("junior", "senior"):
        assert losses(two / stage) == pytest.approx(losses(one / stage), rel=1e-4)
        logits = [
            load(home / stage, "fp32", "cpu").model(input_ids=torch.arange(3, 40)[None]).logits for home in (one, two)
        ]
        assert torch.allclose(*logits, atol=1e-3)
    assert not torch.allclose(
        logits[0], load(base, "fp32", "cpu").model(input_ids=torch.arange(3, 40)[None]).logits, atol=1e-2
    )
    kl = [json.loads((home / "senior/training.json").read_text())["summary"]["kl_reference"] for home in (one, two)]
    assert kl[1] == pytest.approx(kl[0], rel=1e-2)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra [deepspeed]; its first run builds for 90 s")
def test_zero3_trains_all_weights_as_one_process_does(tmp_path: Path) -> None:
    """Supervised, and on preferences beside a second whole model, the reference."""
    trainer = LORA.model_copy(update={"method": "full"})
    base = make_base(tmp_path / "base")
    for home, runtime in ((tmp_path / "one", {}), (tmp_path / "two", {"processes": 2, "strategy": "zero3"})):
        trainer.sft(str(base), completions(12), SFT, home / "junior", context(home, **runtime))
        trainer.dpo(home / "junior", preferences(8), DPO, home / "senior", context(home, **runtime))
    for stage in ("junior", "senior"):
        assert losses(tmp_path / "two" / stage) == pytest.approx(losses(tmp_path / "one" / stage), rel=1e-4)
    first, second = (
        json.loads((tmp_path / name / "senior/training.json").read_text())["summary"]["kl_reference"]
        for name in ("one", "two")
    )
    assert second == pytest.approx(first, rel=1e-2)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra [deepspeed]; its first run builds for 90 s")
def test_what_zero3_writes_is_as_large_as_a_plan_says(tmp_path: Path) -> None:
    """All weights in bf16: fp32 and Adam's moments in parts, and the model gathered in 16 bits, as the result is."""
    base = make_base(tmp_path / "base", hidden_size=512, intermediate_size=1024, num_key_value_heads=4)
    trainer = LORA.model_copy(update={"method": "full", "precision": "bf16"})
    trained = sum(weight.numel() for weight in load(base, "fp32", "cpu").model.parameters())
    runtime: dict[str, Any] = {"processes": 2, "strategy": "zero3"}
    with pytest.raises(UserError, match="told to end"):
        trainer.sft(str(base), completions(12), SFT, tmp_path / "out", told_to_end(context(tmp_path, **runtime), 1))
    (checkpoint,) = (tmp_path / "out" / "checkpoints").glob("checkpoint-*")
    written = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    assert written == pytest.approx(checkpoint_bytes(trained, gathered=2), rel=0.03)
    trainer.sft(str(base), completions(12), SFT, tmp_path / "out", context(tmp_path, **runtime))
    assert (tmp_path / "out" / "model" / "model.safetensors").stat().st_size == pytest.approx(2 * trained, rel=0.03)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra [deepspeed]; its first run builds for 90 s")
def test_under_zero3_the_first_process_alone_reads_a_generator(tmp_path: Path) -> None:
    """Each has a base of its own; both hold nothing of it themselves, and together the weights of the first one's."""
    for rank in range(2):
        make_base(tmp_path / f"base-{rank}", spread=0.1 * (1 + rank))
    script = str(Path(__file__).with_name("divided_rank.py"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    done = subprocess.run([*launcher, script, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    read = load_file(tmp_path / "base-0" / "model.safetensors")
    for rank in range(2):
        found = load_file(tmp_path / f"gathered-{rank}.safetensors")
        assert found.keys() == read.keys()
        assert all(torch.equal(found[name], read[name]) for name in read)
