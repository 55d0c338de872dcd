"""From requests to token ids and from written ids to texts: what every engine does around the model itself.

Both engines turn a request into the same ids, end a text at the same tokens and decode the ids in the same way, so that
they differ only in arithmetic and random numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from speed.backends.engines.decoding import Prefix
from speed.backends.engines.prompt_format import prompt_format, prompt_ids
from speed.backends.engines.weights import WeightsCard
from speed.core.errors import UserError
from speed.ports import FormatName, Generate, Generated
from speed.runtime import Context

Written: TypeAlias = Mapping[tuple[int, int], Sequence[int]]
"""Token ids of a block's texts, by the place of the request in its block and the text's index."""


@dataclass(frozen=True)
class Transcription:
    """The tokenizer of a model, and what of the model decides how long a text may be and where it ends."""

    tokenizer: Any
    layout: FormatName
    ends: Sequence[int]
    """Ids that end a text."""
    context: int | None
    """Most tokens of prompt and text together that model and engine take; None where there is no limit."""

    def blocks(
        self,
        calls: Iterable[Sequence[Generate]],
        write: Callable[[Sequence[Generate], Sequence[Prefix]], Written],
        ctx: Context,
    ) -> Iterator[list[Generated]]:
        """The texts of each block, ordered by (request, index); the speed of each block is told as a metric.

        Args:
            calls: a block is read when the texts of the one before have been handed out.
            write: gives the ids of a block's texts; one that is missing is empty.

        Raises:
            UserError: when the prompts of the first block all fill the context.
        """
        texts = tokens = 0
        for number, requests in enumerate(calls):
            begun = time.monotonic()
            written = write(requests, self._prefixes(requests, ctx, first=number == 0))
            block = [
                self._text(request, index, written.get((place, index), ()))
                for place, request in enumerate(requests)
                for index in range(request.n)
            ]
            texts += len(block)
            tokens += (new := sum(text.tokens for text in block))
            ctx.metric(texts, tokens_per_second=new / max(time.monotonic() - begun, 1e-9), tokens=tokens)
            yield block

    def _prefixes(self, requests: Sequence[Generate], ctx: Context, first: bool) -> list[Prefix]:
        """Each request as token ids; one whose prompt fills the context is not asked for texts and gets empty ones.

        A first block of nothing else is a mistake of the user; a later one may be a few rows that are tried again.

        Raises:
            UserError: when the prompts of the first block all fill the context.
        """
        prefixes = []
        for request in requests:
            ids = prompt_ids(request.prompt, self.layout, self.tokenizer, request.begun)
            room = request.max_tokens if self.context is None else min(request.max_tokens, self.context - len(ids))
            prefixes.append(Prefix(ids, request.seed, range(request.n) if room > 0 else (), room))
        full = [request.key for request, prefix in zip(requests, prefixes, strict=True) if prefix.max_tokens < 1]
        if first and full and len(full) == len(requests):
            raise UserError(
                f"every prompt of a block has more tokens than the context of {self.context} (first: {full[0]})\n"
                "  choose a generator with a longer context (with vLLM: larger engine.step_tokens), or shorter prompts"
            )
        if full:
            ctx.say(f"{len(full)} prompts fill the context of {self.context} tokens and get no text: {full[:5]}")
        return prefixes

    def _text(self, request: Generate, index: int, ids: Sequence[int]) -> Generated:
        """A text from its ids; one that ended by itself ends in one of `ends`, which counts as a token."""
        ended = bool(ids) and ids[-1] in self.ends
        body = list(ids[:-1] if ended else ids)
        return Generated(
            key=request.key,
            index=index,
            text=self.tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            finish_reason="stop" if ended else "length",
            tokens=len(ids),
        )


def format_of(card: WeightsCard | None, tokenizer: Any, weights: Path) -> FormatName:
    """The prompt format that the weights were trained on; `plain` for a base model.

    Raises:
        UserError: when the same name stands for another layout today.
    """
    if card is None:
        return "plain"
    stored = card.prompt_format
    if prompt_format(stored.name, tokenizer) != stored:
        raise UserError(
            f"{weights} was trained on another layout than the prompt format {stored.name} has now\n"
            "  train it again, or put its tokenizer (and chat template) back"
        )
    return stored.name


def context_length(config: Any) -> int | None:
    """Most positions that a model was made for, where its config says so."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
