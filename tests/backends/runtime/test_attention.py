"""Attention on cores: the same gradient, by faster ways."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from speed.backends.engines.weights import load
from speed.backends.runtime import attention
from tests.backends.tiny_generator import make_base

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 2, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Of the queries of every product from now on."""
    found: list[torch.dtype] = []
    plain = functional.scaled_dot_product_attention

    def noted(query: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
        found.append(dtype)
        return plain(query, *rest, **more)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    return found


def gradients(model: Any, autocast: bool, fast: bool, mask: torch.Tensor | None = MASK) -> torch.Tensor:
    """Of all weights, in a row."""
    model.requires_grad_(True).zero_grad()
    with attention.fast_on_cores(model) if fast else nullcontext():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(input_ids=IDS, attention_mask=mask).logits
        logits.float()[MASK.bool()].log_softmax(-1)[:, 3].sum().backward()
    return torch.cat([weight.grad.flatten().float() for weight in model.parameters()])


@pytest.mark.parametrize("mask", [MASK, None])
@pytest.mark.parametrize(("weights", "autocast"), [("bf16", False), ("bf16", True), ("fp32", True)])
def test_a_training_in_half_precision_attends_in_fp32(
    tmp_path: Path, types: list[torch.dtype], weights: str, autocast: bool, mask: torch.Tensor | None
) -> None:
    folder = make_base(tmp_path, **GROUPED)
    exact = gradients(load(folder, "fp32", "cpu").model.train(), False, fast=False, mask=mask)
    model = load(folder, weights, "cpu").model.train()  # type: ignore[arg-type]
    types.clear()
    found = gradients(model, autocast, fast=True, mask=mask)
    assert set(types) == {torch.float32}
    plain = gradients(model, autocast, fast=False, mask=mask)
    assert torch.bfloat16 in types
    assert (found - exact).norm() < 0.05 * exact.norm()  # what rounding does, either way
    assert (found - plain).norm() < 0.03 * exact.norm()
    assert model.config._attn_implementation == "sdpa"


def test_what_is_not_trained_attends_in_its_own_precision(tmp_path: Path, types: list[torch.dtype]) -> None:
    model = load(make_base(tmp_path, **GROUPED), "bf16", "cpu").model.eval()
    with attention.fast_on_cores(model), torch.no_grad():
        model(input_ids=IDS, attention_mask=MASK)
    assert set(types) == {torch.bfloat16}


def test_another_way_to_attend_is_left_as_it_is(tmp_path: Path) -> None:
    model = load(make_base(tmp_path), "fp32", "cpu").model
    model.config._attn_implementation = "eager"
    with attention.fast_on_cores(model):
        assert model.config._attn_implementation == "eager"
