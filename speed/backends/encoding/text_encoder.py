"""Any encoder of texts, and how it is used: equal texts are encoded once, and texts in the cache not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speed.backends.encoding.vector_cache import VectorCache

Vectors = NDArray[np.float32]
WINDOW = 32_768
"""Texts looked up and sorted together; bounds the memory beside the vectors themselves."""


class TextEncoder(Protocol):
    """A model in memory, or behind an endpoint."""

    @property
    def dimension(self) -> int:
        """Width of the vectors."""

    @property
    def max_length(self) -> int | None:
        """Tokens of a text, with its special tokens; None where it is not known."""

    @property
    def normalize(self) -> bool:
        """Whether the model normalises its vectors."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prefix by name: a task, a task type, `query` or `document`."""

    def pieces(self, texts: Sequence[str], prefix: str) -> Iterator[tuple[list[int], Vectors]]:
        """(places of texts, their vectors `[rows dim]`) as they become ready; fp32, not normalised.

        Args:
            prefix: an instruction, put before every text.
        """


def encoded(
    encoder: TextEncoder,
    texts: Sequence[str],
    prefix: str = "",
    normalize: bool | None = None,
    cache: VectorCache | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Vectors:
    """`[texts dim]` fp32 vectors in the order of the texts; equal texts of a window are encoded once.

    Args:
        normalize: whether vectors get length 1; None for the model's own choice.
        cache: where vectors are looked up, and kept as they become ready.
        progress: called with the number of texts that are done.
    """
    out = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    for start in range(0, len(texts), WINDOW):
        places: dict[str, list[int]] = {}
        for place, text in enumerate(texts[start : start + WINDOW], start=start):
            places.setdefault(text, []).append(place)
        members = list(places.values())
        done = start
        for rows, vectors in _pieces(encoder, list(places), prefix, cache):
            for row, vector in zip(rows, vectors, strict=True):
                out[members[row]] = vector
                done += len(members[row])
            progress(done)
    unit = encoder.normalize if normalize is None else normalize
    return unit_length(out) if unit else out


def _pieces(
    encoder: TextEncoder, texts: Sequence[str], prefix: str, cache: VectorCache | None
) -> Iterator[tuple[list[int], Vectors]]:
    if cache is None:
        yield from encoder.pieces(texts, prefix)
        return
    keys = cache.keys(prefix, texts)
    missing = np.ones(len(texts), dtype=bool)
    for rows, vectors in cache.look_up(keys):
        missing[rows] = False
        yield rows, vectors
    left = np.flatnonzero(missing).tolist()
    if left:
        for rows, vectors in encoder.pieces([texts[row] for row in left], prefix):
            there = [left[row] for row in rows]
            cache.add(keys[there], vectors)
            yield there, vectors


def unit_length(vectors: Vectors) -> Vectors:
    """Normalise the vectors, in place, to length 1; a zero vector stays as it is."""
    for start in range(0, len(vectors), WINDOW):
        part = vectors[start : start + WINDOW]
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return vectors
