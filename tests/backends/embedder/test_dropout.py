"""Dropout that draws four entries from one random number."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from speed.backends.embedder.dropout import CheapDropout, cheap_dropout
from speed.model.batching import drawn_from

CPU = torch.device("cpu")


def dropped(rate: float, entries: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with drawn_from(seed, CPU):
        found: torch.Tensor = CheapDropout(rate)(entries)
    return found


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_each_entry_is_dropped_with_this_probability_whatever_its_neighbours(rate: float) -> None:
    lost = (dropped(rate, torch.ones(400_000)) == 0).float()
    spread = (rate * (1 - rate)) ** 0.5
    for place in range(4):  # entries of one random number
        assert abs(lost[place::4].mean() - rate) < 5 * spread / 100_000**0.5
    for distance in range(1, 5):
        together = ((lost[:-distance] - rate) * (lost[distance:] - rate)).mean() / spread**2
        assert abs(together) < 5 / 400_000**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1,), (4, 8), (0, 6)])
def test_what_remains_keeps_the_mean_and_its_gradient_is_the_same_mask(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    entries = torch.randn(shape).to(dtype).requires_grad_()
    found = dropped(0.25, entries)
    found.float().sum().backward()
    assert entries.grad is not None
    assert found.dtype == dtype
    assert found.shape == shape
    assert set(entries.grad.float().unique().tolist()) <= {0.0, torch.tensor(4 / 3, dtype=dtype).item()}
    assert torch.equal(found.detach(), entries.detach() * entries.grad)


def test_one_seed_draws_one_mask_and_nothing_is_dropped_after_training() -> None:
    entries = torch.ones(1000)
    assert torch.equal(dropped(0.5, entries), dropped(0.5, entries))
    assert not torch.equal(dropped(0.5, entries), dropped(0.5, entries, seed=1))
    assert CheapDropout(0.5).eval()(entries) is entries
    assert dropped(0.0, entries) is entries


def test_all_adapters_get_it_and_no_weight_has_another_name() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    adapted = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.1, target_modules=["0", "2"]))
    names = list(adapted.state_dict())
    cheap_dropout(adapted)
    rates = [module.rate for module in adapted.modules() if isinstance(module, CheapDropout)]
    assert rates == [pytest.approx(0.1, abs=1e-5)] * 2
    assert list(adapted.state_dict()) == names
    assert sum(type(module) is nn.Dropout for module in adapted.modules()) == 1  # the model's own
