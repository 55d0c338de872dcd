"""Models behind an OpenAI-compatible `/embeddings`: batches, several in flight, retries, a price before the start.

The key is read from the environment only: OPENAI_API_KEY for api.openai.com, OPENAI_COMPATIBLE_API_KEY for any other
server, so that the first is never sent to another host. A text that the server refuses as too long is cut until it is
accepted, and counted; a server may also cut texts without saying so.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from speed.backends.encoding.text_encoder import TextEncoder, Vectors
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.costs import prices as cost
from speed.data.evaluation_record import SERVERS_OWN
from speed.runtime import Context
from speed.teaching.errors import Patience, TransportError, public_url
from speed.teaching.openai_teacher import KEY, post, read_as
from speed.teaching.session import teaching_loop

OPENAI = "api.openai.com"
KEYS = {OPENAI: "OPENAI_API_KEY"}
TEXTS = 128
"""Texts of a request at most; OpenAI accepts 2,048, small servers 32 to 256."""
CHARACTERS = 200_000
"""Characters of a request at most, unless one text alone is longer; OpenAI accepts 300,000 tokens."""
SECONDS = 300.0
"""How long one request may take."""
PROBE = "the quick brown fox"


class EndpointModel:
    """A model that a server holds; its identity is the server's address and the model's name."""

    batch = SERVERS_OWN

    def __init__(
        self,
        url: str,
        model: str,
        dimensions: int | None = None,
        usd_per_million: float | None = None,
        name: str | None = None,
    ) -> None:
        """Name an endpoint and a model there.

        Args:
            url: such as `https://api.openai.com/v1`.
            dimensions: width to ask the server for, where the model offers several; every vector is checked.
            usd_per_million: price of a million tokens, where the table of prices lacks the model; a server on this
                machine costs nothing.
            name: for tables and result files; `host/model` when None.

        Raises:
            UserError: for a malformed URL.
        """
        host = urlsplit(url).hostname
        if not url.startswith(("http://", "https://")) or not host:
            raise UserError(f"{url} is not a URL: give one such as http://127.0.0.1:8000/v1")
        self.url, self.model, self.dimensions = url.rstrip("/"), model, dimensions
        self.variable = KEYS.get(host, KEY)
        known = cost.price(model) if host == OPENAI else None
        self.price = usd_per_million if usd_per_million is not None else known.input if known else None
        if self.price is None and host in ("localhost", "127.0.0.1", "::1"):
            self.price = 0.0
        self.name = name or f"{host}/{model.replace('/', '_')}"

    def precision(self, asked: str) -> str:
        """The server does not tell it."""
        return SERVERS_OWN

    def identity(self) -> Json:
        """Address, name and width; the server may change the model behind them without notice."""
        return {"endpoint": public_url(self.url), "model": self.model, "dimensions": self.dimensions}

    def dollars(self, tokens: float) -> float | None:
        """Price of so many tokens; None when it is not known."""
        return None if self.price is None else tokens * self.price / 1e6

    def load(self, max_length: int | None, at_most: int | None, precision: str, ctx: Context) -> TextEncoder:
        """The encoder, after one request that shows that the server answers.

        Raises:
            UserError: for a length or precision, which the server decides, and for a server that does not answer.
        """
        if max_length is not None or precision != "fp32":
            raise UserError("an endpoint decides its own length and precision: leave --max-length and --precision out")
        return EndpointEncoder(self, ctx)


class EndpointEncoder:
    """Requests vectors, and counts their cost."""

    max_length = None
    normalize = False  # vectors are used as the server returns them
    prompts: Mapping[str, str] = {}

    def __init__(self, model: EndpointModel, ctx: Context, patience: Patience | None = None) -> None:
        self.model, self.ctx, self.patience = model, ctx, patience or Patience()
        self.cut = 0
        """Texts that were cut because the server refused their length."""
        self.dimension = model.dimensions or 0
        _, probe = next(self.pieces([PROBE], ""))
        self.dimension = probe.shape[1]

    def pieces(self, texts: Sequence[str], prefix: str) -> Iterator[tuple[list[int], Vectors]]:
        """Vectors with the places of their texts, in order, `runtime.concurrency` requests ahead.

        Raises:
            UserError: when the server refuses, cannot be reached in spite of all retries, or does not answer with
                vectors, and when `runtime.max_usd` is spent. All vectors that were paid for are in the cache.
        """
        waiting: deque[tuple[list[int], Future[tuple[Vectors, int]]]] = deque()
        batches = _batches(texts, prefix)
        try:
            while True:
                while len(waiting) < self.ctx.runtime.concurrency and (rows := next(batches, None)) is not None:
                    self._refuse_over_budget()
                    asked = [prefix + texts[row] for row in rows]
                    waiting.append((rows, asyncio.run_coroutine_threadsafe(self._vectors(asked), teaching_loop())))
                if not waiting:
                    return
                rows, future = waiting.popleft()
                vectors, tokens = future.result()
                self.ctx.tally.cost["calls"] += 1
                self.ctx.tally.cost["tokens_in"] += tokens
                self.ctx.tally.spend(self.model.dollars(tokens))
                yield rows, vectors
        except TransportError as error:
            raise UserError(
                f"{public_url(self.model.url)} could not be reached ({error.cause}: {error.detail[:200]})\n"
                "  all vectors so far are kept; run the same command again when the server answers"
            ) from None
        finally:
            for _, future in waiting:
                future.cancel()

    def _refuse_over_budget(self) -> None:
        cap, spent = self.ctx.runtime.max_usd, self.ctx.tally.dollars
        if cap is not None and spent is not None and spent > 0 and spent >= cap:
            raise UserError(
                f"${spent:.2f} are spent, and --max-usd is {cap:g}: stopped. All vectors so far are kept\n"
                "  run the same command again with a higher --max-usd"
            )

    async def _vectors(self, texts: list[str], whole: bool = True) -> tuple[Vectors, int]:
        """Vectors of one batch and the tokens that the server counted.

        Args:
            whole: False for a text that has been cut already.
        """
        try:
            return await self.patience.resend(partial(self._asked, texts))
        except TransportError as trouble:
            if trouble.cause != "too_long":
                raise
        if len(texts) > 1:
            middle = len(texts) // 2
            left, right = await self._vectors(texts[:middle]), await self._vectors(texts[middle:])
            return np.concatenate([left[0], right[0]]), left[1] + right[1]
        if len(texts[0]) < 16:
            raise UserError(f"{public_url(self.model.url)} says that {texts[0]!r} is too long: check the model's name")
        self.cut += whole
        return await self._vectors([texts[0][: len(texts[0]) * 3 // 4]], whole=False)

    async def _asked(self, texts: list[str], resent: int) -> tuple[Vectors, int]:
        """One request.

        Raises:
            TransportError: a failure after which another try may succeed.
            UserError: a refusal, or vectors of another width.
        """
        if resent:
            self.ctx.tally.cost["retries"] += 1
        fields: dict[str, Json] = {
            "model": self.model.model,
            "input": [text or " " for text in texts],  # some servers reject an empty text
            "encoding_format": "float",
        }
        if self.model.dimensions:
            fields["dimensions"] = self.model.dimensions
        model = self.model
        remedy = f"the URL {public_url(model.url)}, the model {model.model}"
        url, seconds = f"{model.url}/embeddings", self.patience.timeout or SECONDS
        body = await post(url, fields, seconds, remedy, model.variable, "the endpoint")
        vectors, tokens = read_as(body, lambda answer: _vectors_in(answer, len(texts)))
        if self.dimension and vectors.shape[1] != self.dimension:
            raise UserError(
                f"{public_url(self.model.url)} gives vectors of width {vectors.shape[1]} instead of {self.dimension}: "
                "the model behind it has changed, or does not know `dimensions`"
            )
        return vectors, tokens


def _vectors_in(answer: Any, count: int) -> tuple[Vectors, int]:
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    if [int(row["index"]) for row in rows] != list(range(count)):
        raise ValueError(f"{len(rows)} vectors for {count} texts")
    vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise TransportError("bad_response", "vectors that hold something else than finite numbers")
    return vectors, int((answer.get("usage") or {}).get("prompt_tokens") or 0)


def _batches(texts: Sequence[str], prefix: str) -> Iterator[list[int]]:
    rows: list[int] = []
    characters = 0
    for row, text in enumerate(texts):
        length = len(prefix) + len(text)
        if rows and (len(rows) == TEXTS or characters + length > CHARACTERS):
            yield rows
            rows, characters = [], 0
        rows.append(row)
        characters += length
    if rows:
        yield rows


def estimated(model: EndpointModel, characters: int) -> tuple[str, float | None]:
    """What so much text will cost: in words, and in dollars (None when the price is not known)."""
    tokens = math.ceil(characters / cost.CHARACTERS_PER_TOKEN)
    dollars = model.dollars(tokens)
    price = "at a price that is not known" if dollars is None else f"about ${dollars:,.2f}"
    return f"{characters:,} characters, about {tokens:,} tokens, {price}", dollars
