"""A plan's estimate of the memory of an encoding, against what an encoding by a small model on a CPU really takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from allocated import peak
from tiny_generator import make_base

from speed.backends.encoding.embedding_model import transformer, vectors
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
