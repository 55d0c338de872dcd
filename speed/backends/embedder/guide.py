"""A guide: a finished embedder tells which other documents of a batch answer a query (GISTEmbed, arXiv 2402.16829)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from speed.backends.embedder.forward import Forward
from speed.backends.embedder.plan import Batch
from speed.backends.embedder.ranks import Ranks
from speed.backends.embedder.records import Labelled
from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.embedder.token_table import Wording, token_table
from speed.backends.encoding.encoder import Encoder
from speed.core.content import locate_model
from speed.core.spec import Json
from speed.runtime import Context


class Guide:
    """The guide's own similarities of the texts of a batch."""

    def __init__(
        self,
        config: ContrastiveSettings,
        records: Callable[[], Iterable[Labelled]],
        content: Json,
        ctx: Context,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        assert config.masks.guide is not None
        encoder = Encoder.load(Path(locate_model(config.masks.guide.name)[0]), device=device)
        wording = Wording(
            query=encoder.prompts.get("query", "") + "{query}", document=encoder.prompts.get("document", "")
        )
        table = token_table(
            records,
            content,
            encoder.tokenizer,
            encoder.frame,
            encoder.max_length,
            wording,
            ctx.store.home / "cache",
            graded=config.listwise > 0,  # the same rows as the trained model's table
        )
        reading = {"pooling": encoder.how, "normalize": True, "checkpointing": "off", "precision": "fp32"}
        self.forward = Forward(config.model_copy(update=reading), encoder.model, table, encoder.pad, device, ranks)

    def similarity(self, batch: Batch) -> Tensor:
        """`[queries documents]` cosine similarities."""
        starts, rows = self.forward.table.starts, batch.rows[: batch.compared.stop]
        lengths = [int(starts[row + 1] - starts[row]) for row in rows]
        vectors = self.forward.all(rows, lengths)
        self.forward.model.eval()
        return vectors[: len(batch.records)] @ vectors[batch.compared].T
