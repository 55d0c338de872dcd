"""Two processes compute the gradient of one, copies and parts alike."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contrastive_examples import WORDS, small
from gradient_of_ranks import gradient_of
from tiny_generator import context, make_base

from speed.backends.contrastive import Lora
from speed.backends.embedder_job import EmbedderJob

EXACT = {"chunk_tokens": 96, "batch_size": 12, "lora": Lora(r=4, alpha=8, dropout=0.0)}

CASES = {
    "none": {"hard_negatives": 0},
    "one": {"hard_negatives": 1, "checkpointing": "all"},
    "varying": {"hard_negatives": 3, "kept_tokens": 10_000},
    "varying-kept": {"hard_negatives": 3, "kept_tokens": 300, "checkpointing": "kept"},
}


def unlike(file: Path, count: int) -> Path:
    """Records with 0, 1 or 3 hard negatives, and labels that occur twice."""
    draw = random.Random(0)
    lines = []
    for place in range(count):
        query = " ".join(draw.choices(WORDS, k=draw.randrange(1, 30)))
        negatives = draw.sample(WORDS, k=(0, 1, 3)[place % 3])
        kind = ("classification", "retrieval", "sts")[place % 3]
        lines.append({"kind": kind, "task": "find", "query": query, "positive": WORDS[place % 5], "negatives": negatives})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_the_gradient_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    base, data = make_base(tmp_path / "base"), unlike(tmp_path / "examples.jsonl", 12)
    runtime = context(tmp_path / "home", processes=2, home=tmp_path / "home").runtime
    for name, changes in CASES.items():
        fields = small(base, **EXACT, **changes).model_dump(mode="json")
        job = EmbedderJob(trainer=fields, examples=str(data), seed=3, out=str(tmp_path), runtime=runtime)
        (tmp_path / f"{name}.job.json").write_text(job.model_dump_json())
    script = str(Path(__file__).with_name("gradient_of_ranks.py"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*launcher, script, str(tmp_path)], capture_output=True, text=True, timeout=500)
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
