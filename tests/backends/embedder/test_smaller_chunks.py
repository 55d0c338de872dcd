"""Chunks that do not fit into memory are halved: the same gradient and vectors, remembered and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive_examples import examples, small
from small_memory import Machine, said, small_machine
from tiny_generator import context, make_base

from speed.backends.embedder.export import export_untrained
from speed.backends.embedder.settings import Lora
from speed.backends.encoding.encoder import Encoder
from speed.backends.evaluation.evaluated_model import LocalModel
from speed.core.errors import UserError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return small_machine(monkeypatch, torch.numel)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def test_a_step_in_smaller_chunks_has_the_same_gradient_to_a_hundred_thousandth(
    base: Path, machine: Machine, tmp_path: Path
) -> None:
    """In fp32, without dropout, which draws by chunk."""
    data = examples(tmp_path / "examples.jsonl", 16)
    trainer = small(base, chunk_tokens=512, kept_tokens=1024, batch_size=8, lora=Lora(r=4, dropout=0.0))
    trainer.train(data, tmp_path / "whole", 3, context(tmp_path))
    whole, machine.gradients = machine.gradients, []
    machine.most = 128
    ctx = context(tmp_path)
    trainer.train(data, tmp_path / "halved", 3, ctx)
    assert 1 <= machine.refused <= 2, "512 and 256 tokens"
    for one, other in zip(machine.gradients, whole, strict=True):
        assert (one - other).norm() / other.norm() < 1e-5
    assert len(said(ctx)) == machine.refused + 1, "each halving once, and the end tells"
    assert said(ctx)[-1] == ctx.tally.metrics["at_once"]
    assert "512 did not fit into memory; embedder.chunk_tokens=" in said(ctx)[-1]
    machine.most = 1
    with pytest.raises(UserError, match="embedder's training does not fit"):
        trainer.train(data, tmp_path / "nothing", 3, context(tmp_path))


def test_encoding_in_smaller_chunks_gives_the_same_vectors(base: Path, machine: Machine, tmp_path: Path) -> None:
    export_untrained(small(base), tmp_path / "embedder")
    folder = tmp_path / "embedder" / "model"
    texts = [f"water and {'stone ' * (number % 7)}{number}" for number in range(40)]
    expected = Encoder.load(folder).encode(texts)
    ctx = context(tmp_path)
    for _ in range(2):  # the second time from the beginning with what fitted
        machine.most, machine.refused, machine.training = 128, 0, False
        encoder = LocalModel(folder).load(None, None, "fp32", ctx)
        assert isinstance(encoder, Encoder)
        found = encoder.encode(texts)
        assert np.abs(found - expected).max() < 1e-6
    assert machine.refused == 0
    assert 1 <= len(said(ctx)) <= 3
    assert encoder.at_once is not None
    encoder.at_once.tell()
    assert ctx.tally.metrics["at_once"].endswith("since 16,384 did not fit into memory")
    machine.most = 1
    with pytest.raises(UserError, match="one text alone does not fit"):
        encoder.encode(texts)
