"""The head over completions gives what TRL's head over all positions gives, and computes less."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer import utils

from speed.backends.alignment.trl_patches import project_completions_only


def model():
    config = AutoConfig.for_model(
        "llama", vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(3)
    made = AutoModelForCausalLM.from_config(config)
    utils.add_fused_lm_head(made, outputs=("log_probs", "entropy", "is_top1"))
    return made


def step(rows: list[int], monkeypatch: pytest.MonkeyPatch):
    """Loss, log-probabilities and gradient of one batch, and how many positions were projected."""
    torch.manual_seed(4)
    ids = torch.randint(0, 50, (2, 12))
    labels = ids.clone()
    labels[0, :9] = -100
    labels[1, :7] = -100
    there = utils._ChunkedLogProbFunction.apply
    monkeypatch.setattr(
        utils._ChunkedLogProbFunction, "apply", lambda hidden, *rest: rows.append(len(hidden)) or there(hidden, *rest)
    )
    made = model()
    found = made(input_ids=ids, labels=labels, fused_lm_head=True)
    found.loss.backward()
    return found, torch.cat([parameter.grad.flatten() for parameter in made.parameters()])


def test_the_same_loss_and_gradient_from_fewer_positions(monkeypatch):
    all_rows, few_rows = [], []
    with monkeypatch.context() as patch:
        every, gradient = step(all_rows, patch)
    with monkeypatch.context() as patch, project_completions_only():
        few, same_gradient = step(few_rows, patch)
    assert (all_rows, few_rows) == ([22], [8])
    assert few.loss.item() == pytest.approx(every.loss.item(), abs=1e-6)
    torch.testing.assert_close(few.log_probs, every.log_probs, atol=1e-6, rtol=0)
    torch.testing.assert_close(few.entropy, every.entropy, atol=1e-5, rtol=0)
    assert torch.equal(few.is_top1.bool(), every.is_top1.bool() & few.label_mask)
    torch.testing.assert_close(same_gradient, gradient, atol=1e-6, rtol=0)


def test_trl_is_as_it_was_afterwards():
    before = utils._use_triton
    with project_completions_only():
        assert utils._use_triton is not before
    assert utils._use_triton is before

    def broken():
        with project_completions_only():
            raise ValueError("a training that fails")

    with pytest.raises(ValueError, match="fails"):
        broken()
    assert utils._use_triton is before
