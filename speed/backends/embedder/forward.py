"""From rows of a token table to vectors: in chunks of like length, shared by the processes, checkpointed if asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.embedder.token_table import TokenTable
from speed.backends.encoding.embedding_model import ignores_later_tokens, vectors
from speed.backends.runtime.device import quietly
from speed.backends.runtime.precision import dtype_of
from speed.model.batching import chunks


class Forward:
    """A model and the table of the rows that it reads."""

    def __init__(
        self, config: ContrastiveSettings, model: Any, table: TokenTable, pad: int, device: torch.device, ranks: Ranks
    ) -> None:
        self.config, self.model, self.table, self.pad = config, model, table, pad
        self.device, self.ranks = device, ranks
        self.chunk_tokens, self.kept_tokens = config.chunk_tokens, config.kept_tokens
        self.causal = ignores_later_tokens(model)
        self.layers: list[Any] = []
        if config.checkpointing != "off":
            # only the non-reentrant kind is exact with adapters, dropout and two forward passes a backward one
            with quietly():
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self.layers = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
            self._checkpoint(False)

    def use(self, chunk_tokens: int) -> None:
        """Encode so many tokens at once, and keep as large a share of activations between the passes."""
        self.chunk_tokens = chunk_tokens
        self.kept_tokens = self.config.kept_tokens * chunk_tokens // self.config.chunk_tokens

    def chunks(self, lengths: list[int]) -> tuple[list[list[int]], list[int]]:
        """(this process's part of each chunk, padded tokens of the largest part of each chunk).

        All processes get equally many parts: under ZeRO-3 every pass is a collective operation.
        """
        count = self.ranks.count
        whole = chunks(lengths, self.chunk_tokens, ranks=count)
        parts = [chunk[self.ranks.rank :: count] for chunk in whole]
        return parts, [-(-len(chunk) // count) * lengths[chunk[0]] for chunk in whole]

    def encoder(self, rows: list[int]) -> Callable[[list[int]], Tensor]:
        """A function from a part to its vectors.

        It recognises the second pass over a part, which `checkpointing: kept` does not checkpoint.
        """
        seen: set[int] = set()

        def encode(part: list[int]) -> Tensor:
            again = part[0] in seen
            seen.add(part[0])
            if self.layers:
                self._checkpoint(torch.is_grad_enabled() and (self.config.checkpointing == "all" or not again))
            half = self.config.precision != "fp32"
            with torch.autocast(self.device.type, dtype_of(self.config.precision)) if half else nullcontext():
                ids = [self.table.row(rows[place]) for place in part]
                return vectors(self.model, ids, self.pad, self.causal, self.config.pooling, self.config.normalize)

        return encode

    def all(self, rows: list[int], lengths: list[int]) -> Tensor:
        """`[rows dim]` vectors of all rows, in every process; without a graph and without dropout."""
        parts, _ = self.chunks(lengths)
        encode, out = self.encoder(rows), None
        self.model.eval()
        with torch.no_grad():
            for part in parts:
                vectors_of_part = encode(part)
                if out is None:
                    out = vectors_of_part.new_zeros(len(rows), vectors_of_part.shape[1])
                out[torch.tensor(part, device=out.device)] = vectors_of_part
        self.model.train()
        assert out is not None, "there must be rows"
        self.ranks.all_reduce(out)
        return out

    def _checkpoint(self, on: bool) -> None:
        for layer in self.layers:
            layer.gradient_checkpointing = on
