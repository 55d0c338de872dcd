"""Packed rows are trained on as if each stood alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_generator import completions, context, make_base

from speed.backends.alignment.rows import sft_rows
from speed.backends.alignment.sft import packs
from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.engines.weights import load
from speed.data.trainings import Sft

FULL = TrlTrainer(method="full", precision="fp32", prompt_format="plain")
ROWS = completions(9)
WIDTH = 64
CONFIG = Sft(learning_rate=1e-3, batch_size=9, epochs=3, max_length=WIDTH, warmup_ratio=0.0)
"""A batch of all rows."""
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen2Config": {},
    "MistralConfig": {"sliding_window": 8},
    "GemmaConfig": {"head_dim": 8},
}


def curve(out: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((out / "training.json").read_text())["curve"]
    return found


def rows_of(base: Path, home: Path) -> list[dict[str, list[int]]]:
    return sft_rows(ROWS, "plain", load(base, "fp32", "cpu").tokenizer, WIDTH, context(home))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradient_are_those_of_the_rows_alone(architecture: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", architecture, **ARCHITECTURES[architecture])
    made = packs(rows_of(base, tmp_path), WIDTH)
    assert 1 < len(made) < len(ROWS)
    alone, together = tmp_path / "alone", tmp_path / "together"
    FULL.sft(str(base), ROWS, CONFIG, alone, context(tmp_path))
    packing = FULL.model_copy(update={"packing": True, "micro_batch": 1})
    all_packs = CONFIG.model_copy(update={"batch_size": len(made)})
    packing.sft(str(base), ROWS, all_packs, together, context(tmp_path))
    for line, expected in zip(curve(together), curve(alone), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    weights, wanted = (load_file(out / "model" / "model.safetensors") for out in (together, alone))
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=0)
    # The comparison would tell: rows that see one another have another loss.
    longest = max(made, key=lambda pack: len(pack["seq_lengths"]))
    ids = torch.tensor([longest["input_ids"]])
    starts = [torch.arange(length) for length in longest["seq_lengths"]]
    model = load(base, "fp32", "cpu").model
    with torch.no_grad():
        apart = model(input_ids=ids, position_ids=torch.cat(starts)[None], use_cache=False).logits
        seeing = model(input_ids=ids, use_cache=False).logits
    assert (apart - seeing).abs().max() > 1e-2


def test_every_row_stands_whole_in_one_pack(tmp_path: Path) -> None:
    rows = rows_of(make_base(tmp_path / "base"), tmp_path)
    made = packs(rows, WIDTH)
    cut = []
    for pack in made:
        assert len(pack["input_ids"]) == len(pack["labels"]) == sum(pack["seq_lengths"]) <= WIDTH
        ends = torch.tensor(pack["seq_lengths"]).cumsum(0).tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            cut.append((pack["input_ids"][start:end], pack["labels"][start:end]))
    assert sorted(cut) == sorted((row["input_ids"], row["labels"]) for row in rows)


def test_a_batch_counts_packs(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    made = packs(rows_of(base, tmp_path), WIDTH)
    packing = FULL.model_copy(update={"packing": True})
    packing.sft(str(base), ROWS, CONFIG.model_copy(update={"batch_size": 2}), tmp_path / "out", context(tmp_path))
    assert len(curve(tmp_path / "out")) == CONFIG.epochs * -(-len(made) // 2)
