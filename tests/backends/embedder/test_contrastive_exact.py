"""Chunks, kept graphs, checkpointing and dropout change where a gradient is computed, never what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contrastive_examples import examples, small
from gradient_of_ranks import first_gradient
from tiny_generator import context, make_base

from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.settings import Lora

EVERY = 10**9


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def taken(base: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    data = examples(folder / "examples.jsonl", 12)
    return first_gradient(
        small(base, **{"chunk_tokens": 96, "batch_size": 12} | changes), data, 3, context(folder / "home"), Ranks()
    )


@pytest.mark.parametrize("weights", ["adapters", "adapters with dropout", "all weights"])
@pytest.mark.parametrize(
    ("checkpointing", "kept"), [("off", 0), ("off", 300), ("kept", 300), ("kept", EVERY), ("all", 0)]
)
def test_the_gradient_is_that_of_graphs_kept_whole(
    base: Path, tmp_path: Path, weights: str, checkpointing: str, kept: int
) -> None:
    lora = {"adapters": Lora(r=4, dropout=0.0), "adapters with dropout": Lora(r=4, dropout=0.3), "all weights": None}
    plain = taken(base, tmp_path, lora=lora[weights], kept_tokens=EVERY)
    assert plain["calls"] == plain["chunks"]
    found = taken(base, tmp_path, lora=lora[weights], kept_tokens=kept, checkpointing=checkpointing)
    assert found["loss"].item() == plain["loss"].item()
    assert (found["gradient"] - plain["gradient"]).norm() / plain["gradient"].norm() < 1e-5
    twice, thrice = 2 * found["chunks"], 3 * found["chunks"]
    if (checkpointing, kept) in (("off", 0), ("kept", EVERY)):
        assert found["calls"] == twice, "every chunk is computed twice, and not more often"
    elif checkpointing == "all":
        assert found["calls"] == thrice
    else:
        assert found["chunks"] < found["calls"] <= twice


def test_dropout_is_really_drawn(base: Path, tmp_path: Path) -> None:
    lora = Lora(r=4, dropout=0.3)
    one = taken(base, tmp_path, lora=lora)
    without = taken(base, tmp_path, lora=Lora(r=4, dropout=0.0))
    assert (one["gradient"] - without["gradient"]).norm() / without["gradient"].norm() > 1e-2
