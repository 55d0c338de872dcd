"""Trainings of a dry run read all rows, take one step and save what came of it, the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from speed.core.store import Store
from speed.data.trainings import Completion, Dpo, Preference, Sft
from speed.miniature.dry import BATCH, DryEmbedder, DryTrainer
from speed.runtime import Context, Runtime

ROWS = 3 * BATCH
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "max_length": 64}
Train = Callable[[int, str, Path, Context], None]


def sft(seed: int, last: str, out: Path, ctx: Context) -> None:
    """Rows of six characters, but for the last one."""
    rows = [Completion(prompt=f"p{row:02}", completion=f"c{row:02}") for row in range(ROWS - 1)]
    rows.append(Completion(prompt="p", completion=last))
    DryTrainer().sft("base", rows, Sft(**SETTINGS, seed=seed), out, ctx)


def dpo(seed: int, last: str, out: Path, ctx: Context) -> None:
    rows = [Preference(prompt=f"p{row:02}", chosen=f"c{row:02}", rejected="") for row in range(ROWS - 1)]
    rows.append(Preference(prompt="p", chosen=last, rejected=""))
    DryTrainer().dpo(out, rows, Dpo(**SETTINGS, beta=0.1, seed=seed), out, ctx)


def embedder(seed: int, last: str, out: Path, ctx: Context) -> None:
    rows = [{"query": f"query{row}", "positive": f"p{row}\ud800"} for row in range(ROWS - 1)]
    lines = [json.dumps(row) for row in [*rows, {"query": last, "positive": ""}]]
    (out / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    DryEmbedder().train(out / "corpus.jsonl", out, seed, ctx)


def trained(train: Train, out: Path, seed: int = 0, last: str = "c") -> tuple[Any, float, int]:
    """The weights, the loss of the step, and the characters that were read."""
    out.mkdir()
    told: list[dict[str, Any]] = []
    train(seed, last, out, Context(Store(out / "home"), Runtime(), send=told.append))
    (weight,) = load_file(out / "model" / "model.safetensors").values()
    characters = json.loads((out / "model" / "read.json").read_text())["characters"]
    (metric,) = [event for event in told if event["event"] == "metric"]
    assert metric["step"] == 1
    return weight, metric["figures"]["loss"], characters


@pytest.mark.parametrize("train", [sft, dpo, embedder])
def test_one_step_is_taken_and_all_rows_are_read(train: Train, tmp_path: Path) -> None:
    one, loss, characters = trained(train, tmp_path / "one")
    assert one.shape == (256, 16)
    assert loss > 0
    again, same_loss, more = trained(train, tmp_path / "again", last="c and more")
    assert (again == one).all()
    assert same_loss == loss
    assert more == characters + len(" and more"), "the last row is beyond the batch, and is read"
    other, _, _ = trained(train, tmp_path / "other", seed=1)
    assert (other != one).any()


def test_the_step_learns_from_the_batch(tmp_path: Path) -> None:
    import torch

    begun = torch.empty(256, 16).normal_(generator=torch.Generator().manual_seed(0)).numpy()
    after, _, _ = trained(sft, tmp_path / "one")
    seen = sorted(b"pc0123456789")
    unseen = [byte for byte in range(256) if byte not in seen]
    moved = abs(after - begun).max(axis=1)
    assert moved[seen].min() > 5e-3
    assert moved[unseen].max() < 5e-3, "weight decay alone"
