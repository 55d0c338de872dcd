"""Encode with sentence-transformers what only it can read: dense layers, T5, static embeddings, several poolings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speed.backends.encoding.text_encoder import Vectors
from speed.core.errors import UserError

AT_ONCE = 1024
"""Texts of a call; the library sorts them by length and makes batches of 32."""


class SentenceTransformerEncoder:
    """A model that the library itself loads and runs."""

    normalize = False  # a model that normalises does so inside the library

    def __init__(self, folder: Path, device: str, max_length: int | None) -> None:
        """Raises:
        UserError: when the library cannot read the folder (code that a model brings along is never run).
        """
        from sentence_transformers import SentenceTransformer

        try:
            self.model: Any = SentenceTransformer(str(folder), device=device, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
            raise UserError(f"the model {folder} cannot be loaded by sentence-transformers: {error}") from error
        if max_length is not None:
            self.model.max_seq_length = max_length

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        renamed = getattr(self.model, "get_embedding_dimension", None)  # its name since release 6
        return int((renamed or self.model.get_sentence_embedding_dimension)())

    @property
    def max_length(self) -> int | None:
        """Tokens of a text; None for a model that reads any number."""
        return self.model.max_seq_length if isinstance(self.model.max_seq_length, int) else None

    @max_length.setter
    def max_length(self, tokens: int) -> None:
        self.model.max_seq_length = tokens

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prefix by name."""
        return dict(self.model.prompts)

    def pieces(self, texts: Sequence[str], prefix: str) -> Iterator[tuple[list[int], Vectors]]:
        """Vectors with the places of their texts."""
        for start in range(0, len(texts), AT_ONCE):
            part = list(texts[start : start + AT_ONCE])
            vectors = self.model.encode(part, prompt=prefix, show_progress_bar=False, convert_to_numpy=True)
            yield list(range(start, start + len(part))), np.asarray(vectors, dtype=np.float32)
