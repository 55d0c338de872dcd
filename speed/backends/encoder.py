"""Encoding many texts with a saved embedder: sorted by length, cut by a token budget, bounded in memory.

Reads the layout of sentence-transformers without importing it (its import takes longer than a small evaluation), so
other people's models of that layout are encoded as their authors meant: their pooling, length, normalisation, prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from speed.backends.embedding_model import ignores_later_tokens, transformer, vectors
from speed.backends.token_rows import Frame, frame_of, token_rows
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.model.batching import chunks
from speed.model.pooling import Pooling

WINDOW = 32_768
"""Texts tokenised and sorted together; what bounds the memory beside the vectors themselves."""
PADDING_SHARE = 64
"""Of a chunk's tokens, one in so many at most may be padding."""


class Encoder:
    """A saved embedder in memory."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        frame: Frame,
        how: Pooling,
        normalize: bool,
        max_length: int,
        prompts: dict[str, str],
    ) -> None:
        self.model, self.tokenizer, self.frame = model, tokenizer, frame
        self.how, self.normalize, self.max_length = how, normalize, max_length
        self.prompts = prompts
        """Prefix by name: a task, a task type, `query` or `document`."""
        self.causal = ignores_later_tokens(model)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    @classmethod
    def load(cls, folder: Path | str, device: Any = "cpu", max_length: int | None = None) -> Encoder:
        """The embedder of a folder in sentence-transformers layout, in eval mode and its own precision.

        Raises:
            UserError: for a folder without a model, or a layout with parts that this encoder does not know.
        """
        root = Path(folder)
        if not (root / "config.json").is_file():
            raise UserError(
                f"{root} holds no embedder: config.json is missing; give a folder in sentence-transformers layout"
            )
        model, tokenizer = transformer(str(root), None, "auto")
        how, normalize = _pooling_and_norm(root)
        own = _json(root / "sentence_bert_config.json").get("max_seq_length")
        limit = (
            max_length or own or min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
        )
        prompts = _json(root / "config_sentence_transformers.json").get("prompts") or {}
        return cls(model.to(device).eval(), tokenizer, frame_of(tokenizer), how, normalize, int(limit), prompts)

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return int(self.model.config.hidden_size)

    def encode(
        self,
        texts: Sequence[str],
        prefix: str = "",
        normalize: bool | None = None,
        chunk_tokens: int = 16_384,
        progress: Callable[[int], None] = lambda done: None,
    ) -> NDArray[np.float32]:
        """`[texts dim]` fp32 vectors, in the order of the texts; equal texts of a window are encoded once.

        Args:
            prefix: stands in front of every text (an instruction).
            normalize: vectors of length 1; None as the model says.
            chunk_tokens: padded tokens encoded at once.
            progress: called with the number of texts that are done.
        """
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        unit = self.normalize if normalize is None else normalize
        if prefix:
            self._check_room(prefix)
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            places: dict[str, list[int]] = {}
            for place, text in enumerate(window, start=start):
                places.setdefault(text, []).append(place)
            members = list(places.values())
            done = start
            for part, found in self._chunks([prefix + text for text in places], unit, chunk_tokens):
                for row, vector in zip(part, found, strict=True):
                    out[members[row]] = vector
                    done += len(members[row])
                progress(done)
        return out

    def _check_room(self, prefix: str) -> None:
        taken = len(token_rows(self.tokenizer, [prefix], self.frame, 10**6)[0])
        if taken >= self.max_length:
            raise UserError(
                f"the instruction {prefix!r} takes {taken} tokens, and the embedder reads {self.max_length}: "
                "nothing is left of the texts; raise max_length, shorten the instruction, or take protocol: native"
            )

    def _chunks(
        self, texts: list[str], unit: bool, chunk_tokens: int
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        rows = token_rows(self.tokenizer, texts, self.frame, self.max_length)
        for part in chunks([len(row) for row in rows], chunk_tokens, PADDING_SHARE):
            with torch.inference_mode():
                found = vectors(self.model, [rows[row] for row in part], self.pad, self.causal, self.how, unit)
            yield part, found.float().cpu().numpy()


def _pooling_and_norm(root: Path) -> tuple[Pooling, bool]:
    modules = _json(root / "modules.json")
    if not modules:
        return "mean", True  # a bare transformer, as sentence-transformers reads it
    kinds = {str(module["type"]).rsplit(".", 1)[-1]: str(module.get("path", "")) for module in modules}
    unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise UserError(f"{root}/modules.json has parts that this encoder does not know: {', '.join(sorted(unknown))}")
    config = _json(root / kinds.get("Pooling", "1_Pooling") / "config.json")
    names: dict[str, Pooling] = {
        "lasttoken": "last",
        "mean_tokens": "mean",
        "cls_token": "cls",
        "mean": "mean",
        "cls": "cls",
    }
    mode = config.get("pooling_mode") or next(
        (name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on),
        "mean",
    )
    if mode not in names:
        raise UserError(f"{root}: pooling {mode!r} is not one of {', '.join(get_args(Pooling))}")
    return names[mode], "Normalize" in kinds


def _json(file: Path) -> Json:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
