"""An embedder on several devices gives the vectors that it gives on one, and goes on from its cache after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_generator import context

from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.shared_encoder import SharedEncoder
from speed.backends.encoding.text_encoder import encoded
from speed.backends.encoding.vector_cache import VectorCache
from speed.backends.evaluation.evaluated_model import LocalModel
from speed.core.allocation import Grant

TEXTS = [f"{'water and stone ' * (number % 5)}{number % 40}" for number in range(90)]
"""Some of them twice."""


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Encoder, SharedEncoder]]:
    """The miniature's base in this process, and in two others, as an evaluation with two devices loads it."""
    home = tmp_path_factory.mktemp("home")
    trainer = ContrastiveTrainer(base="package:miniature/bases/embedder", lora=None, pooling="mean", max_length=32)
    folder = trainer.untrained(home / "untrained", context(home))
    assert folder is not None
    ctx = context(home)
    one = LocalModel(folder).load(None, None, "fp32", ctx)
    ctx.granted = Grant(devices=(0, 1))
    two = LocalModel(folder).load(None, None, "fp32", ctx)
    assert isinstance(one, Encoder)
    assert isinstance(two, SharedEncoder)
    one.chunk_tokens = two.chunk_tokens = 128
    yield one, two
    two.close()


def test_the_vectors_are_those_of_one_device_to_the_bit(encoders: tuple[Encoder, SharedEncoder]) -> None:
    one, two = encoders
    assert [worker.device for worker in two.workers.workers] == ["cpu", "cpu"]
    assert next(two.model.parameters()).is_meta, "the weights are with the workers"
    for prefix in ("", "Query: "):
        assert np.array_equal(two.encode(TEXTS, prefix), one.encode(TEXTS, prefix))


def test_a_corpus_goes_on_from_the_vectors_that_a_killed_evaluation_has_kept(
    encoders: tuple[Encoder, SharedEncoder], tmp_path: Path
) -> None:
    one, two = encoders

    class Killed(Exception):
        pass

    def kill(done: int) -> None:
        if done > 20:
            raise Killed

    def cache() -> VectorCache:
        return VectorCache(tmp_path, {"model": 1}, two.dimension, 10**9)

    before = cache()
    with pytest.raises(Killed):
        encoded(two, TEXTS, cache=before, progress=kill)
    before.close()
    after = cache()
    found = encoded(two, TEXTS, cache=after)
    after.close()
    assert 0 < after.hits < len(set(TEXTS))
    assert after.hits + after.misses == len(set(TEXTS))
    assert np.array_equal(found, one.encode(TEXTS))
