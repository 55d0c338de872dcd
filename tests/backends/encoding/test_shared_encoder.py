"""An embedder on several devices gives the vectors that it gives on one, and goes on from its cache after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_generator import context

from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding import shared_encoder
from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.retriever import EmbeddingRetriever
from speed.backends.encoding.shared_encoder import SharedEncoder, is_shared
from speed.backends.encoding.text_encoder import encoded
from speed.backends.encoding.vector_cache import VectorCache
from speed.backends.evaluation.evaluated_model import LocalModel
from speed.core.allocation import Grant
from speed.core.content import ModelReference
from speed.runtime import Context, Runtime

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


def on_a_cluster(home: Path) -> Context:
    ctx = context(home)
    ctx.runtime = Runtime(home=home, devices="cpu", cluster="ray")
    return ctx


def test_a_block_of_several_is_not_shared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def joined(*args: Any, **named: Any) -> Any:
        raise AssertionError("a block worker joins no cluster")

    monkeypatch.setattr(shared_encoder, "Cluster", joined)
    ctx = on_a_cluster(tmp_path)
    assert is_shared(["cpu"], ctx, True)
    assert not is_shared(["cpu"], ctx, False)
    with ctx.several_blocks():
        assert not is_shared(["cpu"], ctx, True)
        retriever = EmbeddingRetriever(model=ModelReference(name="package:miniature/bases/embedder"), pooling="mean")
        assert type(retriever._on(["cpu"], "cpu", ctx)) is Encoder
        assert is_shared(["cuda:0", "cuda:1"], ctx, True), "its own devices are"
        monkeypatch.setattr(shared_encoder, "EncodingWorkers", lambda *args: args)
        workers: Any = shared_encoder.shared(
            retriever.loaded_ours("cpu"), retriever.loaded_ours, "fp32", ["cpu", "cpu"], ctx, True
        ).workers
        assert workers[3] is None, "and no others"


def test_a_retriever_that_lies_in_the_store_is_carried_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = list[Path | None]()
    monkeypatch.setattr(shared_encoder, "shared", lambda *args: carried.append(args[6]))
    trainer = ContrastiveTrainer(base="package:miniature/bases/embedder", lora=None, pooling="mean", max_length=32)
    home = tmp_path / "home"
    ctx = on_a_cluster(home)
    for folder in (home / "store" / "embedder" / "key", tmp_path / "elsewhere"):
        assert trainer.untrained(folder, ctx) == folder / "model"
        trained = trainer.trained_retriever(folder)
        trained._on(["cpu"], "cpu", ctx)
        trained.model_copy(update={"model": ModelReference(name=str(folder))})._on(["cpu"], "cpu", ctx)
    trainer.untrained_retriever()._on(["cpu"], "cpu", ctx)
    inside = home / "store" / "embedder" / "key" / "model"
    assert carried == [inside, inside, None, None, None]
