"""A served model beside the checkpoint that it should be: the same texts, prompts and scale on both sides.

Servers normalise vectors and read texts up to a limit of their own. So all vectors are compared at length 1, the
checkpoint reads as many tokens as its folder says, and the server gets the checkpoint's own prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from speed.backends.encoding.endpoint import EndpointModel
from speed.backends.encoding.parity import Agreement, served_agreement
from speed.backends.encoding.text_encoder import TextEncoder, Vectors, unit_length
from speed.backends.evaluation.evaluated_model import LocalModel
from speed.backends.runtime.at_once import AtOnce
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.runtime import Context

NEAR = 0.9
"""Mean cosine below which a server holds another model; weights of four bits stay above it."""


class UnitLengthEncoder:
    """An encoder whose vectors have length 1, with prompts that are given."""

    normalize = True

    def __init__(self, encoder: TextEncoder, prompts: Mapping[str, str]) -> None:
        self.encoder, self.prompts = encoder, prompts
        self.dimension, self.max_length = encoder.dimension, encoder.max_length
        self.at_once: AtOnce | None = getattr(encoder, "at_once", None)

    @property
    def cut(self) -> int:
        """Texts that the server refused as too long, and got cut."""
        return getattr(self.encoder, "cut", 0)

    def pieces(self, texts: Sequence[str], prefix: str) -> Iterator[tuple[list[int], Vectors]]:
        """See `TextEncoder`."""
        for places, vectors in self.encoder.pieces(texts, prefix):
            yield places, unit_length(vectors)


class Checkpoint(LocalModel):
    """The folder that a server should hold, as its vectors would come from a faultless server."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self._encoder: TextEncoder | None = None

    def identity(self) -> Json:
        """The content of the folder, at unit length."""
        return {"files": super().identity(), "as_served": True}

    def encoder(self, ctx: Context) -> TextEncoder:
        """The model in memory, read once.

        Raises:
            UserError: for a folder without a model.
        """
        if self._encoder is None:
            self._encoder = super().load(None, None, "fp32", ctx)
        return self._encoder

    def load(self, max_length: int | None, at_most: int | None, precision: str, ctx: Context) -> TextEncoder:
        """With its own limit of tokens, which the server has too."""
        encoder = self.encoder(ctx)
        return UnitLengthEncoder(encoder, encoder.prompts)


class ServedCheckpoint:
    """A model behind a server, asked as the checkpoint would be.

    Its results are kept by what the server was seen to be: the checkpoint, and how near the probes came to it. So a
    server that has been mended is measured anew, although its address and the model's name are the former ones.
    """

    def __init__(self, served: EndpointModel, checkpoint: Checkpoint, anyway: bool) -> None:
        """Pair a served model with its checkpoint.

        Args:
            anyway: measure a server with a known fault, too.
        """
        self.served, self.checkpoint, self.anyway = served, checkpoint, anyway
        self.name, self.batch = served.name, served.batch
        self.agreement: Agreement | None = None

    def precision(self, asked: str) -> str:
        """The server does not tell it."""
        return self.served.precision(asked)

    def probe(self, ctx: Context) -> Agreement:
        """Compare the vectors of 64 texts before any task is sent.

        Raises:
            UserError: for a server that does not answer, one with a fault of the common ones, and another model.
        """
        agreement, fault = served_agreement(self.checkpoint.encoder(ctx), self.served, ctx)
        self.agreement = agreement
        if fault is None:
            return agreement
        told = f"{agreement.program} embeds otherwise than {self.checkpoint.folder}: {fault.told}"
        if agreement.lowest == agreement.mean == -1.0:  # no vector compares: another width
            raise UserError(f"{told}\n  likely: {fault.likely}; check the name, the URL and --dimensions")
        if not self.anyway and (fault.named or agreement.mean < NEAR):
            raise UserError(f"{told}\n  likely: {fault.likely}\n  mend the server, or see what it costs with --anyway")
        ctx.say(f"{told}; likely: {fault.likely}")
        return agreement

    def identity(self) -> Json:
        """Address, name and width, the checkpoint, and how near they were."""
        near = None if self.agreement is None else f"{self.agreement.lowest:.3f} {self.agreement.mean:.3f}"
        return {"served": self.served.identity(), "checkpoint": self.checkpoint.identity(), "near": near}

    def load(self, max_length: int | None, at_most: int | None, precision: str, ctx: Context) -> TextEncoder:
        """The server's encoder with the checkpoint's prompts.

        Raises:
            UserError: for a length or precision, which the server decides, and for a server that does not answer.
        """
        return UnitLengthEncoder(
            self.served.load(max_length, None, precision, ctx), self.checkpoint.encoder(ctx).prompts
        )
