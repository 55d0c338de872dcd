"""An embedder as a retriever: any model in sentence-transformers layout, or an embedder's base before its training."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from speed.backends.runtime.device import device_of, devices_of
from speed.backends.runtime.model_folder import described
from speed.core.content import HubRepository, ModelReference, hub_model, locate_model
from speed.core.errors import UserError
from speed.ports import Comparison, EmbedderTrainer, Group, Retriever
from speed.runtime import Context

if TYPE_CHECKING:
    from speed.backends.encoding.encoder import Encoder
    from speed.backends.encoding.text_encoder import TextEncoder, Vectors

T = TypeVar("T")
WINDOW = 4096
"""Texts encoded together."""
LONGEST = 512
"""Tokens of a text, at most, where nothing else is said."""
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
"""What is fetched of a model on the hub: no pickles, no code."""
OTHER_FORMATS = ("onnx/*", "openvino/*", "consolidated*", "original/*")


class EmbeddingRetriever(Retriever):
    """Cosine similarity of an embedder's vectors; search is exact."""

    heavy: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils")

    model: ModelReference | None = None
    """A folder or hub name of an embedder; null: `embedder.base` before its training."""
    instruction: str | None = None
    """How it reads a query, with {query} and, where it takes instructions, {task}; null: its own query prompt."""
    document: str | None = None
    """Prefix of a document; null: its own document prompt."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Tokens of a text; null: the model's own limit, and 512 at most."""
    pooling: Literal["last", "mean", "cls"] | None = None
    """Of a base that states none; null: the model's own."""
    bos: Literal["as_base", "always", "never"] = "as_base"
    """Of a base that states no pooling: whether every text begins with a BOS token."""

    def for_embedder(self, embedder: EmbedderTrainer) -> Retriever:
        if self.model is not None:
            return self
        found = embedder.untrained_retriever()
        if found is None:
            raise UserError(
                "the embedder of this run has no base that could compare texts\n"
                "  name an embedder: negatives.miner.model=NAME, filter.judge.model=NAME"
            )
        return found

    def check_model(self) -> None:
        reference = self._reference
        folder = None if reference.startswith("package:") else described(reference)
        if folder is None:
            return
        root = _model_in(Path(folder))
        if not (root / "modules.json").is_file():
            raise UserError(
                f"{reference} is no embedder (it has no modules.json): what it finds near says nothing\n"
                "  name one: negatives.miner.model=NAME, filter.judge.model=NAME, such as intfloat/e5-base-v2"
            )

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return hub_model(self._reference)

    def weights(self) -> tuple[Path, ...]:
        folder = Path(locate_model(self._reference)[0])
        return tuple(sorted(_model_in(folder).glob("*.safetensors"))) if folder.is_dir() else ()

    @contextmanager
    def compared(
        self,
        queries: Iterable[tuple[str, str]],
        documents: Iterable[str],
        groups: Sequence[Group],
        scratch: Path,
        ctx: Context,
    ) -> Iterator[Comparison]:
        import torch

        from speed.backends.encoding.shared_encoder import SharedEncoder

        torch.set_num_threads(ctx.grant.threads)
        device = device_of(ctx)
        encoder = self._on(devices_of(ctx), device, ctx)
        template = self.instruction or encoder.prompts.get("query", "") + "{query}"
        prefix = encoder.prompts.get("document", "") if self.document is None else self.document
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            written = (_written(template, task, query) for task, query in queries)
            last = groups[-1]
            asked = _encoded(encoder, written, scratch / "queries.bin", last.queries.stop, "queries", ctx)
            texts = (prefix + text for text in documents)
            answers = _encoded(encoder, texts, scratch / "documents.bin", last.documents.stop, "documents", ctx)
            yield Cosines(asked, answers, groups, device, ctx)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(encoder, SharedEncoder):
                encoder.close()

    def _on(self, devices: Sequence[str], device: str, ctx: Context) -> TextEncoder:
        """The encoder, with a worker on each of several devices."""
        from speed.backends.encoding.encoder import Encoder
        from speed.backends.encoding.shared_encoder import is_shared, shared

        encoder = self.loaded(device)
        if not isinstance(encoder, Encoder) or not is_shared(devices, ctx, True):
            return encoder
        return shared(encoder, self.loaded_ours, "fp32", devices, ctx, True, self._carried(ctx))

    def _carried(self, ctx: Context) -> Path | None:
        """The folder of a model in the store, such as this run's embedder, for machines that do not see that; None for
        what each must have: a model elsewhere, or one that states no pooling, which a folder alone does not tell."""
        folder = Path(locate_model(self._reference)[0])
        if self.pooling is not None or not folder.is_dir():
            return None
        found = _model_in(folder)
        return found if found.resolve().is_relative_to(ctx.store.home.resolve()) else None

    def loaded_ours(self, device: str) -> Encoder:
        """The encoder where it is ours, as a worker loads it."""
        from speed.backends.encoding.encoder import Encoder

        encoder = self.loaded(device)
        assert isinstance(encoder, Encoder)
        return encoder

    @property
    def _reference(self) -> str:
        assert self.model is not None, "for_embedder names a model"
        return self.model.name

    def loaded(self, device: str) -> TextEncoder:
        """The encoder: ours, or sentence-transformers' own where the model has parts that ours does not."""
        import torch

        from speed.backends.encoding.embedding_model import transformer
        from speed.backends.encoding.encoder import Encoder, UnknownLayout
        from speed.backends.encoding.sentence_transformer import SentenceTransformerEncoder
        from speed.backends.encoding.token_rows import training_frame

        source, revision = locate_model(self._reference)
        if self.pooling is not None:
            model, tokenizer = transformer(source, revision, torch.float32)
            frame = training_frame(tokenizer, self.pooling, self.bos)
            limit = self.max_length or LONGEST
            return Encoder(model.to(device).eval(), tokenizer, frame, self.pooling, True, limit, {})
        folder = _model_in(Path(source)) if Path(source).is_dir() else _fetched(source, revision)
        encoder: Encoder | SentenceTransformerEncoder
        try:
            encoder = Encoder.load(folder, device, self.max_length)
        except UnknownLayout:
            encoder = SentenceTransformerEncoder(folder, device, self.max_length)
        if self.max_length is None and (encoder.max_length or LONGEST + 1) > LONGEST:
            encoder.max_length = LONGEST
        encoder.model.to(torch.float32)
        return encoder


class Cosines(Comparison):
    """Vectors of length 1 on disk, compared block by block."""

    def __init__(self, queries: Vectors, documents: Vectors, groups: Sequence[Group], device: str, ctx: Context):
        self.queries, self.documents, self.groups = queries, documents, groups
        self.device, self.ctx = device, ctx

    def nearest(self, count: int, excluded: Callable[[int], Collection[int]]) -> Iterator[list[tuple[int, float]]]:
        from speed.model.search import nearest

        for rows, within in self._blocks():
            passed = [excluded(query) for query in rows]
            asked = self.queries[rows.start : rows.stop]
            numbers, values = nearest(asked, self.documents, within, count, passed, self.device)
            for places, found in zip(numbers.tolist(), values.tolist(), strict=True):
                yield [(place, value) for place, value in zip(places, found, strict=True) if value > float("-inf")]

    def similarities(self, pairs: Iterable[tuple[int, int]]) -> Iterator[float]:
        for some in _windows(pairs):
            asked, answers = (list(column) for column in zip(*some, strict=True))
            yield from (self.queries[asked] * self.documents[answers]).sum(axis=1).tolist()

    def ranks(self, positives: Sequence[int], excluded: Callable[[int], Collection[int]]) -> Iterator[int]:
        from speed.model.search import count_nearer

        for rows, within in self._blocks():
            passed, own = [excluded(query) for query in rows], [positives[query] for query in rows]
            asked = self.queries[rows.start : rows.stop]
            nearer = count_nearer(asked, self.documents, within, own, passed, self.device)
            yield from (nearer + 1).tolist()

    def _blocks(self) -> Iterator[tuple[range, range]]:
        """Queries that are compared at once, and the documents of their group."""
        from speed.model.search import QUERIES

        for group in self.groups:
            for start in range(group.queries.start, group.queries.stop, QUERIES):
                rows = range(start, min(start + QUERIES, group.queries.stop))
                yield rows, group.documents
                self.ctx.progress(rows.stop, len(self.queries), "queries searched")


def _encoded(encoder: TextEncoder, texts: Iterable[str], file: Path, about: int, unit: str, ctx: Context) -> Vectors:
    """Vectors of length 1 of all texts, written to a file and mapped from it.

    Args:
        about: their number, or of documents those that are positives.
    """
    import numpy as np

    from speed.backends.encoding.text_encoder import encoded

    done = 0
    with file.open("wb") as out:
        for window in _windows(texts):
            encoded(encoder, window, normalize=True).tofile(out)
            done += len(window)
            ctx.progress(done, max(done, about), f"{unit} encoded")
    empty = np.zeros((0, encoder.dimension), np.float32)
    return np.memmap(file, np.float32, "r", shape=(done, encoder.dimension)) if done else empty


def _windows(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while window := list(islice(rest, WINDOW)):
        yield window


def _written(template: str, task: str, query: str) -> str:
    """The query under its instruction; alone where the template has one and the record has none."""
    if "{task}" in template and not task:
        return query
    before, _, after = template.partition("{query}")
    return before.replace("{task}", task) + query + after


def _model_in(folder: Path) -> Path:
    """The model of a folder: the folder itself, or `model/` of the payload of a training."""
    inner = folder / "model"
    return inner if any((inner / name).is_file() for name in ("config.json", "modules.json")) else folder


def _fetched(name: str, revision: str | None) -> Path:
    """The folder of a model of the hub, or of its local cache when offline.

    Raises:
        UserError: when it is in neither.
    """
    from huggingface_hub import snapshot_download

    patterns: dict[str, Any] = {"allow_patterns": list(FILES), "ignore_patterns": list(OTHER_FORMATS)}
    try:
        return Path(snapshot_download(name, revision=revision, **patterns))
    except (OSError, ValueError) as error:
        raise UserError(
            f"the embedder {name} cannot be had from the hub: {str(error).splitlines()[0]}\n"
            "  give the path of an existing folder, or check the name, the connection and HF_TOKEN"
        ) from error
