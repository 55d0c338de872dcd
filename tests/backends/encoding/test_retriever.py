"""An embedder as a retriever, on the miniature's base: cosines, groups, what is left behind, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speed.backends.encoding import workers as retriever_workers
from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.retriever import Cosines, EmbeddingRetriever
from speed.core.allocation import Grant
from speed.core.content import ModelReference, package_folder
from speed.core.errors import UserError
from speed.core.store import Store
from speed.miniature.dry import DryEmbedder
from speed.ports import Group
from speed.runtime import Context, Runtime

BASE = "package:miniature/bases/embedder"
QUERIES = [("task", "cats sleep"), ("task", "dogs run"), ("", "a river")]
DOCUMENTS = ["dogs run fast", "the cats sleep", "stones", "a river flows", "another river", "somebody else"]
GROUPS = [Group(range(2), range(3)), Group(range(2, 3), range(3, 5))]


def expected(texts: list[str]) -> Any:
    """Vectors of length 1 of the base, as the encoder of evaluations makes them (mean pooling)."""
    encoder = Encoder.load(package_folder(BASE), max_length=160)
    encoder.model.float()
    return encoder.encode(texts, normalize=True)


@pytest.mark.parametrize("instruction", ["{query}", "Do: {task}\nQuery: {query}"])
def test_similarities_are_cosines_and_nothing_is_left_behind(tmp_path: Path, instruction: str) -> None:
    retriever = EmbeddingRetriever(
        model=ModelReference(name=BASE), instruction=instruction, document="doc: ", max_length=160, pooling="mean"
    )
    ctx = Context(Store(tmp_path).open(), Runtime(home=tmp_path))
    with retriever.compared(iter(QUERIES), iter(DOCUMENTS), GROUPS, tmp_path / "scratch", ctx) as compared:
        pairs = [(query, document) for query in range(3) for document in range(6)]
        similarities = np.array(list(compared.similarities(pairs))).reshape(3, 6)
        nearest = list(compared.nearest(2, lambda query: {2} if query == 0 else set()))
        ranks = list(compared.ranks([2, 2, 4], lambda query: ()))
    written = ["cats sleep", "dogs run", "a river"]
    if "{task}" in instruction:
        written[:2] = [f"Do: task\nQuery: {text}" for text in written[:2]]
    whole = expected(written) @ expected([f"doc: {text}" for text in DOCUMENTS]).T
    assert np.allclose(similarities, whole, atol=1e-5)
    for query, (group, passed) in enumerate([(range(2), {2}), (range(3), set()), (range(3, 5), set())]):
        best = sorted((number for number in group if number not in passed), key=lambda number: -whole[query, number])[
            :2
        ]
        assert [number for number, _ in nearest[query]] == best
    assert ranks[:2] == [1 + int((whole[query, :2] > whole[query, 2]).sum()) for query in range(2)]
    assert ranks[2] == 1 + int(whole[2, 3] > whole[2, 4])
    assert not (tmp_path / "scratch").exists()


def test_without_a_name_it_is_the_embedders_base_without_instructions(compose: Any) -> None:
    embedder = compose().embedder
    found = EmbeddingRetriever().for_embedder(embedder)
    assert isinstance(found, EmbeddingRetriever)
    assert (found.model, found.pooling, found.instruction) == (embedder.base, "mean", "{query}")
    named = EmbeddingRetriever(model=ModelReference(name="a/b"))
    assert named.for_embedder(embedder) is named
    with pytest.raises(UserError, match="no base that could compare texts"):
        EmbeddingRetriever().for_embedder(DryEmbedder())


def test_a_folder_that_is_no_embedder_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    retriever = EmbeddingRetriever(model=ModelReference(name=str(tmp_path)))
    with pytest.raises(UserError, match="is no embedder"):
        retriever.check_model()
    (tmp_path / "modules.json").write_text("[]")
    retriever.check_model()
    assert retriever.weights() == (tmp_path / "model.safetensors",)
    EmbeddingRetriever(model=ModelReference(name=BASE)).check_model()
    EmbeddingRetriever(model=ModelReference(name="somebody/model")).check_model()


def test_the_payload_of_a_training_is_its_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "modules.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    retriever = EmbeddingRetriever(model=ModelReference(name=str(tmp_path)))
    retriever.check_model()
    assert retriever.weights() == (tmp_path / "model" / "model.safetensors",)


def test_several_devices_give_the_vectors_of_one_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = EmbeddingRetriever(model=ModelReference(name=BASE), max_length=160, pooling="mean")
    monkeypatch.setattr("speed.backends.encoding.encoder.CHUNK_TOKENS", 8)  # texts fill several chunks
    started: list[str] = []
    workers = retriever_workers.EncodingWorkers._started
    monkeypatch.setattr(
        retriever_workers.EncodingWorkers,
        "_started",
        lambda self, device: (started.append(device), workers(self, device))[1],
    )
    found = {}
    for devices in ((), (0, 1)):
        ctx = Context(Store(tmp_path).open(), Runtime(home=tmp_path), granted=Grant(devices=devices))
        with retriever.compared(iter(QUERIES), iter(DOCUMENTS), GROUPS, tmp_path / "scratch", ctx) as compared:
            assert isinstance(compared, Cosines)
            found[devices] = np.array(compared.queries), np.array(compared.documents)
        assert started == ["cpu"] * len(devices)
    for one, two in zip(found[()], found[0, 1], strict=True):
        assert np.array_equal(one, two)
