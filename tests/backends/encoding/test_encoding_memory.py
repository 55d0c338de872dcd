"""A plan's estimate of the memory of an encoding, against what an encoding by a small model on a CPU really takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from allocated import peak
from tiny_generator import context, make_base

from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding.embedding_model import transformer, vectors
from speed.backends.encoding.shared_encoder import _loaded, of_folder
from speed.backends.evaluation.evaluated_model import LocalModel
from speed.backends.evaluation.probing import measure_encoding
from speed.core.content import ModelReference
from speed.data.costs.memory import encoding_bytes
from speed.data.costs.model_shapes import shape_of

SIZES = {"hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_the_estimate_is_near_what_an_encoding_takes(dtype: torch.dtype, width: int, tmp_path: Path) -> None:
    base = make_base(tmp_path, "MistralConfig", spread=0.02, **SIZES)
    shape = shape_of(str(base))
    assert shape is not None
    model, _ = transformer(str(base), None, dtype)
    rows = [list(range(3, 259))] * 16

    def encode() -> None:
        with torch.inference_mode():
            vectors(model.eval(), rows, 0, True, "last", False)

    encode()
    tokens = sum(map(len, rows))
    estimate = encoding_bytes(shape, width, tokens) - encoding_bytes(shape, width, 0)
    measured = peak(encode)
    print(f"{dtype}: {measured:,} measured, {estimate:,.0f}")
    assert 0.9 < estimate / measured < 1.4
    weights = sum(each.numel() for each in model.parameters())
    assert encoding_bytes(shape, width, 0) == weights * width


class Arrived(Exception):
    """The model is on its device."""


def evaluated(base: Path, ctx: Any) -> None:
    LocalModel(base).load(8, None, "bf16", ctx)


def shared(base: Path, ctx: Any) -> None:
    _loaded(partial(of_folder, base), 8, "bf16", 100, 1, "meta")


def probed(base: Path, ctx: Any) -> None:
    measure_encoding(ContrastiveTrainer(base=ModelReference(name=str(base))), 8, "bf16", ctx)


@pytest.mark.parametrize("load", [evaluated, shared, probed])
def test_a_device_never_holds_a_model_in_more_than_its_precision(
    load: Callable[[Path, Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are saved in fp32 here, and asked for in bf16: two bytes each and not four, from the first moment on."""
    base, held = make_base(tmp_path / "base"), []
    moved = torch.nn.Module.to

    def to(module: torch.nn.Module, *args: Any) -> torch.nn.Module:
        if "meta" in map(str, args):
            held.append({weight.dtype for weight in module.parameters()})
        return moved(module, *args)

    def arrived(device: str) -> None:
        raise Arrived

    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr("speed.backends.evaluation.probing.forget_peak", arrived)
    for module in ("speed.backends.evaluation.probing", "speed.backends.evaluation.evaluated_model"):
        monkeypatch.setattr(f"{module}.device_of", lambda ctx: "meta")
    try:
        load(base, context(tmp_path))
    except Arrived:
        assert load is probed
    assert held == [{torch.bfloat16}]
