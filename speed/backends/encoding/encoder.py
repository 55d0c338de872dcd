"""Encode many texts with a saved embedder: sorted by length, in chunks of so many tokens, with bounded memory.

It reads the layout of sentence-transformers, with its pooling, length, normalisation and prompts, but does not import
the library, which takes longer than a small evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from speed.backends.encoding.embedding_model import (
    ADAPTER,
    ignores_later_tokens,
    keys_and_values,
    shared_start,
    transformer,
    vectors,
)
from speed.backends.encoding.text_encoder import Vectors, encoded
from speed.backends.encoding.token_rows import Frame, finished_frame, token_rows
from speed.backends.runtime.at_once import AtOnce, free_memory
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.costs.memory import CHUNK_TOKENS
from speed.model.batching import Ids, chunks
from speed.model.pooling import Pooling

LEAST_SHARED = 8
"""So many tokens that all texts of a chunk begin with are worth a pass of their own."""
PADDING_SHARE = 80
"""At most one in so many of a chunk's tokens may be padding."""


class UnknownLayout(UserError):
    """A model of sentence-transformers with parts that this encoder lacks (a dense layer, a T5 ...)."""


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
        self.chunk_tokens = CHUNK_TOKENS
        self.at_once: AtOnce | None = None
        """Where smaller chunks are remembered, once some did not fit into memory."""
        self.causal = ignores_later_tokens(model)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._read: tuple[tuple[int, ...], Any] = (), None
        """The last start that texts shared, and the model's keys and values of it."""

    @classmethod
    def load(cls, folder: Path | str, device: Any = "cpu", max_length: int | None = None) -> Encoder:
        """The embedder of a folder in sentence-transformers layout, in eval mode and its own precision.

        Raises:
            UserError: for a folder without a model.
            UnknownLayout: for a model that only sentence-transformers can encode with.
        """
        root = Path(folder)
        own = _json(root / "sentence_bert_config.json")
        config = _json(root / "config.json")
        if not config and not (root / ADAPTER).is_file():
            if (root / "modules.json").is_file():
                raise UnknownLayout(f"{root}: the transformer lies in a folder of its own")
            raise UserError(
                f"{root} holds no embedder: config.json is missing; give a folder in sentence-transformers layout"
            )
        if config.get("is_encoder_decoder") or own.get("do_lower_case"):
            raise UnknownLayout(f"{root}: an encoder-decoder, or one that reads everything in lower case")
        how, normalize = pooling_and_norm(root)
        model, tokenizer = transformer(str(root), None, "auto")
        widest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
        limit = max_length or own.get("max_seq_length") or widest
        prompts = _json(root / "config_sentence_transformers.json").get("prompts") or {}
        return cls(model.to(device).eval(), tokenizer, finished_frame(tokenizer), how, normalize, int(limit), prompts)

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return int(self.model.config.hidden_size)

    def encode(
        self,
        texts: Sequence[str],
        prefix: str = "",
        normalize: bool | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Vectors:
        """`[texts dim]` fp32 vectors, in the order of the texts; see `speed.backends.encoding.text_encoder.encoded`."""
        return encoded(self, texts, prefix, normalize, None, progress)

    def pieces(self, texts: Sequence[str], prefix: str = "") -> Iterator[tuple[list[int], Vectors]]:
        """Vectors `[rows dim]`, fp32, not normalised, with the places of their texts, the longest texts first.

        Raises:
            UserError: for a prefix that leaves no room for the texts.
        """
        if prefix:
            self._check_room(prefix)
        yield from self.pieces_of(
            token_rows(self.tokenizer, [prefix + text for text in texts], self.frame, self.max_length)
        )

    def pieces_of(self, rows: Sequence[Ids]) -> Iterator[tuple[list[int], Vectors]]:
        """The same of token rows."""
        left = list(range(len(rows)))
        while left:
            done = 0
            cut = chunks([len(rows[row]) for row in left], self.chunk_tokens, PADDING_SHARE)
            ordered = [left[place] for part in cut for place in part]
            for size in map(len, cut):
                part = ordered[done : done + size]
                of_part = self._vectors_or_none([rows[row] for row in part])
                if of_part is None:
                    break
                yield part, of_part
                done += size
            left = ordered[done:]

    def _vectors_or_none(self, rows: Sequence[Ids]) -> Vectors | None:
        """Vectors of a chunk; None where memory does not suffice, and chunks have half the tokens from now on.

        Raises:
            UserError: when that chunk was a single text.
        """
        try:
            with torch.inference_mode():
                return self._vectors(rows).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            if len(rows) < 2:
                raise UserError(
                    "one text alone does not fit into the GPU's memory to be encoded\n"
                    "  take eval.precision=bf16, or a smaller eval.max_length"
                ) from error
        self.lower(min(self.chunk_tokens, len(rows) * max(map(len, rows))) // 2)
        free_memory()
        return None

    def _vectors(self, rows: Sequence[Ids]) -> torch.Tensor:
        """Vectors of a chunk. An instruction in front of all its texts is read once: a decoder's state of it is the
        same before each of them."""
        start = shared_start(rows) if self.causal and self.how == "last" and len(rows) > 1 else 0
        if start < LEAST_SHARED:
            return vectors(self.model, rows, self.pad, self.causal, self.how, False)
        before = tuple(rows[0][:start].tolist())
        if before != self._read[0]:
            self._read = before, keys_and_values(self.model, rows[0][:start])
        return vectors(self.model, [row[start:] for row in rows], self.pad, True, self.how, False, self._read[1])

    def lower(self, chunk_tokens: int) -> None:
        """Encode so many tokens at once from now on, and remember it."""
        self.chunk_tokens = chunk_tokens
        if self.at_once is not None:
            self.at_once.ctx.say(self.at_once.lower(chunk_tokens))

    def _check_room(self, prefix: str) -> None:
        taken = len(token_rows(self.tokenizer, [prefix], self.frame, 10**6)[0])
        if taken >= self.max_length:
            raise UserError(
                f"the instruction {prefix!r} takes {taken} tokens, and the embedder reads {self.max_length}: "
                "none is left for the texts\n  raise max_length, shorten the instruction, or take protocol: native"
            )


def pooling_and_norm(root: Path) -> tuple[Pooling, bool]:
    """How a folder in sentence-transformers layout pools, and whether its vectors have length 1.

    Raises:
        UnknownLayout: for a model with parts that this encoder lacks.
    """
    modules = _json(root / "modules.json")
    if not modules:
        return "mean", False  # what sentence-transformers does with a bare transformer
    kinds = {str(module["type"]).rsplit(".", 1)[-1]: str(module.get("path", "")) for module in modules}
    unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise UnknownLayout(f"{root}/modules.json has parts unknown here: {', '.join(sorted(unknown))}")
    config = _json(root / kinds.get("Pooling", "1_Pooling") / "config.json")
    names: dict[str, Pooling] = {
        "lasttoken": "last",
        "mean_tokens": "mean",
        "cls_token": "cls",
        "mean": "mean",
        "cls": "cls",
    }
    on = [name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on]
    modes = [config["pooling_mode"]] if config.get("pooling_mode") else on or ["mean"]
    if len(modes) > 1 or modes[0] not in names:
        raise UnknownLayout(f"{root}: pooling {'+'.join(modes)} is not one of {', '.join(get_args(Pooling))}")
    return names[modes[0]], "Normalize" in kinds


def _json(file: Path) -> Json:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
