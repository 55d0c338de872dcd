"""Two processes compute the gradient of one, with copies of the model (DDP) and with parts of it (ZeRO-3)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import HANG
from contrastive_examples import TEXTS, WORDS, examples, figures, small
from gradient_of_ranks import gradient_of
from tiny_generator import context, make_base

from speed.backends.embedder.settings import Development, Lora
from speed.backends.embedder.trainer import EmbedderJob
from speed.backends.encoding.encoder import Encoder
from speed.backends.runtime import processes
from speed.core.allocation import Grant
from speed.core.errors import UserError
from speed.runtime import Context, Runtime

EXACT = {"chunk_tokens": 96, "batch_size": 12, "lora": Lora(r=4, alpha=8, dropout=0.0)}

CASES = {
    "none": {"hard_negatives": 0},
    "one": {"hard_negatives": 1, "checkpointing": "all"},
    "varying": {"hard_negatives": 3, "kept_tokens": 10_000},
    "graded": {"hard_negatives": 1, "listwise": 2.0},
    "varying-kept": {"hard_negatives": 3, "kept_tokens": 300, "checkpointing": "kept"},
}


def unlike(file: Path, count: int) -> Path:
    """Records with 0, 1 or 3 hard negatives, and labels that occur twice; every fourth has graded documents."""
    draw = random.Random(0)
    lines = []
    for place in range(count):
        query = " ".join(draw.choices(WORDS, k=draw.randrange(1, 30)))
        negatives = draw.sample(WORDS, k=(0, 1, 3)[place % 3])
        kind = ("classification", "retrieval", "sts")[place % 3]
        row = {"kind": kind, "task": "find", "query": query, "positive": WORDS[place % 5], "negatives": negatives}
        lines.append(row if place % 4 else row | {"graded": draw.sample(WORDS, k=4)})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_the_gradient_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    base, data = make_base(tmp_path / "base"), unlike(tmp_path / "examples.jsonl", 12)
    runtime = Runtime(devices="cpu", threads=1, home=tmp_path / "home")
    for name, changes in [*CASES.items(), ("half", {"precision": "fp16", "epochs": 4})]:
        trainer = small(base, **EXACT, **changes)
        job = EmbedderJob(
            trainer=trainer, examples=data, seed=3, out=str(tmp_path), runtime=runtime, grant=Grant(processes=2)
        )
        (tmp_path / f"{name}.job.json").write_text(job.model_dump_json())
    script = str(Path(__file__).with_name("gradient_of_ranks.py"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*launcher, script, str(tmp_path)], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in CASES:
        one = gradient_of(tmp_path / f"{name}.job.json", "alone")
        for strategy in ("ddp", "zero3"):
            two = torch.load(tmp_path / f"{name}-{strategy}.pt", weights_only=True)
            assert two["engine"].startswith(strategy)
            assert two["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-5)
            found, expected = two["gradient"].double(), one["gradient"].double()
            assert (found.norm() / expected.norm()).item() == pytest.approx(1.0, abs=1e-5)
            assert torch.nn.functional.cosine_similarity(found, expected, dim=0).item() == pytest.approx(1.0, abs=1e-6)
    one = gradient_of(tmp_path / "half.job.json", "alone")
    assert (one["moved"], one["scale"]) == (0.0, 0.5)
    assert one["loss"][2] < 0.8 * one["loss"][0], "scaled steps train"
    two = torch.load(tmp_path / "half-zero3.pt", weights_only=True)
    assert two["engine"].startswith("zero3")
    assert (two["moved"], two["scale"]) == (0.0, 0.5), "one process's overflow is a step that none takes"
    for figure in ("loss", "norm"):
        assert torch.allclose(two[figure], one[figure], rtol=5e-3)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("zero3", marks=pytest.mark.slow)])
def test_two_processes_train_what_one_trains(strategy: str, tmp_path: Path) -> None:
    data = examples(tmp_path / "examples.jsonl", 40)
    more = {"lora": Lora(r=4, alpha=8, dropout=0.0), "development": Development(records=8, every=2)}
    config = small(make_base(tmp_path / "base"), **more)
    one, two = (
        context(tmp_path / "home"),
        context(tmp_path / "home", processes=2, strategy=strategy, checkpoint_seconds=0),
    )
    config.train(data, tmp_path / "one", 0, one)
    config.train(data, tmp_path / "two", 0, two)
    assert two.tally.metrics["engine"].startswith(strategy)
    assert "2 processes, gloo" in two.tally.metrics["engine"]
    assert two.tally.counts["in"] == 40
    for name in ("loss", "gradient_norm", "positive_similarity"):
        assert figures(two, name) == pytest.approx(figures(one, name), rel=1e-3), name
    development = [ctx.tally.metrics["development"]["development_ndcg"] for ctx in (one, two)]
    assert development[0] == pytest.approx(development[1], abs=1e-3)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["adapter", "model"]
    alone, shared = (Encoder.load(tmp_path / name / "model").encode(TEXTS) for name in ("one", "two"))
    assert abs(alone - shared).max() < 1e-3


def test_under_zero3_the_first_process_alone_reads_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    data, base = examples(tmp_path / "examples.jsonl", 8), make_base(tmp_path / "base")
    ctx = context(tmp_path / "home", processes=2, strategy="zero3")
    job = EmbedderJob(
        trainer=small(base), examples=data, seed=0, out=str(tmp_path / "out"), runtime=ctx.runtime, grant=ctx.grant
    )
    processes.run_in_processes(job, "reading_rank", ctx)
    assert set((tmp_path / "read").read_text().split()) == {"0"}


@pytest.mark.slow
def test_a_mistake_in_a_rank_is_said_and_checkpoints_stay_for_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = examples(tmp_path / "examples.jsonl", 40), make_base(tmp_path / "base")
    config = small(base, lora=Lora(r=4, alpha=8, dropout=0.0))
    told = context(tmp_path / "home", processes=2, strategy="zero3", checkpoint_seconds=0.0)
    environment = processes.environment_of_ranks

    def stop_before_they_start(ctx: Context) -> dict[str, str]:
        (tmp_path / "out" / "processes" / "stop").touch()
        return environment(ctx)

    monkeypatch.setattr(processes, "environment_of_ranks", stop_before_they_start)
    with pytest.raises(UserError, match="asked to stop and saved a checkpoint after step 1 of 5"):
        config.train(data, tmp_path / "out", 0, told)
    rest, straight = context(tmp_path / "home"), context(tmp_path / "home")
    config.train(data, tmp_path / "out", 0, rest)
    config.train(data, tmp_path / "straight", 0, straight)
    left = figures(rest, "loss")
    assert len(left) == 4
    assert left == pytest.approx(figures(straight, "loss")[-len(left) :], rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "runtime", "message"),
    [
        ({"batch_size": 4}, {"nodes": 8}, "take another number of nodes or another batch"),
        ({"precision": "fp16"}, {"devices": "cpu"}, "needs a GPU"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_built(
    settings: dict[str, Any], runtime: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        small(Path("org/name"), **settings).check(Runtime(**runtime))
