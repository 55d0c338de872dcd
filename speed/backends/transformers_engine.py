"""Generation through transformers: the engine that runs wherever PyTorch does.

A block of requests is cut into batches of similar length under a token budget. How it is cut is a pure function of the
block, so a block that is generated again after a crash gives the same texts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from speed.backends.decoding import Prefix, continuations
from speed.backends.device import device_of
from speed.backends.prompt_format import FormatName, prompt_format, prompt_ids
from speed.backends.weights import Loaded, Precision, load
from speed.core.context import Context
from speed.core.errors import UserError
from speed.ports import Engine, Generate, Generated, Sampling


class TransformersEngine(Engine):
    """Samples with transformers' forward pass and our own loop over it."""

    heavy: ClassVar[tuple[str, ...]] = ("torch", "peft", "transformers.generation", "transformers.modeling_utils")

    precision: Precision = "bf16"
    """Arithmetic of the forward pass."""
    batch_tokens: int = Field(default=65_536, ge=1)
    """Most tokens, prompts and answers together, that one batch may come to."""

    def generate(
        self, weights: Path, calls: Iterable[Sequence[Generate]], sampling: Sampling, ctx: Context
    ) -> Iterator[list[Generated]]:
        """For each block its texts, ordered by (request, index).

        Raises:
            UserError: for weights whose prompt format is no longer what they were trained on, prompts that all fill
                the model's context, or one text that does not fit into memory.
        """
        import torch

        torch.set_num_threads(ctx.runtime.threads)
        loaded = load(weights, self.precision, device_of(ctx))
        name = format_of(loaded, weights)
        meter = _Meter(ctx)
        for number, requests in enumerate(calls):
            begun = time.monotonic()
            found = self._block(requests, loaded, name, sampling, ctx, first=number == 0)
            meter.made(found, time.monotonic() - begun)
            yield found

    def _block(
        self,
        requests: Sequence[Generate],
        loaded: Loaded,
        name: FormatName,
        sampling: Sampling,
        ctx: Context,
        *,
        first: bool,
    ) -> list[Generated]:
        """The texts of one block."""
        eos = end_tokens(loaded)
        work = self._work(requests, loaded, name, ctx, first)
        found: dict[tuple[int, int], list[int]] = {}
        for batch in batches(work, self.batch_tokens):
            self._batch(work, batch, loaded, sampling, eos, found, ctx)
        return [
            _text(request, index, found.get((place, index), []), eos, loaded.tokenizer)
            for place, request in enumerate(requests)
            for index in range(request.n)
        ]

    def _work(
        self, requests: Sequence[Generate], loaded: Loaded, name: FormatName, ctx: Context, first: bool
    ) -> list[Prefix]:
        """Each request as token ids; one whose prompt fills the model's context wants no texts and gets empty ones. A
        first block of nothing else is a mistake of the user; a later one may be a few rows that are tried again."""
        context = context_length(loaded.model)
        work = []
        for request in requests:
            ids = prompt_ids(request.prompt, name, loaded.tokenizer, request.begun)
            room = request.max_tokens if context is None else min(request.max_tokens, context - len(ids))
            work.append(Prefix(ids, request.seed, range(request.n) if room > 0 else (), room))
        full = [request.key for request, prefix in zip(requests, work, strict=True) if prefix.max_tokens < 1]
        if first and full and len(full) == len(requests):
            raise UserError(
                f"every prompt of a block has more tokens than the model's context of {context} (first: {full[0]})\n"
                "  choose a generator with a longer context, or shorter prompts"
            )
        if full:
            ctx.say(f"{len(full)} prompts fill the model's context of {context} tokens and get no text: {full[:5]}")
        return work

    def _batch(
        self,
        work: Sequence[Prefix],
        batch: Batch,
        loaded: Loaded,
        sampling: Sampling,
        eos: Sequence[int],
        found: dict[tuple[int, int], list[int]],
        ctx: Context,
    ) -> None:
        """Generate one batch; halve it, and say so, when it does not fit into memory."""
        prefixes = [replace(work[place], indices=indices) for place, indices in batch]
        texts = _texts_or_none(loaded, prefixes, sampling, eos)
        if texts is not None:
            wanted = ((place, index) for place, indices in batch for index in indices)
            found.update(zip(wanted, texts, strict=True))
            return
        halves = halved(batch)
        if len(halves) < 2:
            raise UserError("one text alone does not fit into the GPU's memory\n  take a smaller generator, or bf16")
        ctx.say(
            f"a batch of {rows_of(batch)} texts does not fit into memory and is halved; "
            f"engine.batch_tokens={self.batch_tokens} is too high for this machine"
        )
        for half in halves:
            self._batch(work, half, loaded, sampling, eos, found, ctx)


def _texts_or_none(
    loaded: Loaded, prefixes: Sequence[Prefix], sampling: Sampling, eos: Sequence[int]
) -> list[list[int]] | None:
    """Token ids of a batch, or None where memory does not suffice (and then nothing of it is held any more)."""
    import torch

    try:
        return continuations(loaded.model, prefixes, sampling, eos)
    except torch.OutOfMemoryError:
        pass
    torch.cuda.empty_cache()
    return None


Batch = tuple[tuple[int, Sequence[int]], ...]
"""(place of a request in its block, candidates wanted) of each prompt in a batch."""


def batches(work: Sequence[Prefix], batch_tokens: int) -> Iterator[Batch]:
    """The requests of a block, longest possible text first, cut where a batch would pass `batch_tokens`.

    A batch costs its rows times its longest prompt and longest answer. A request with more candidates than fit is cut.
    """
    wanted = [place for place, prefix in enumerate(work) if prefix.indices]
    order = sorted(wanted, key=lambda place: (-len(work[place].ids), -work[place].max_tokens, place))
    batch: list[tuple[int, Sequence[int]]] = []
    rows = prompt = answer = 0
    for place in order:
        prefix = work[place]
        prompt_with, answer_with = max(prompt, len(prefix.ids)), max(answer, prefix.max_tokens)
        if batch and (rows + len(prefix.indices)) * (prompt_with + answer_with) > batch_tokens:
            yield tuple(batch)
            batch, rows, prompt_with, answer_with = [], 0, len(prefix.ids), prefix.max_tokens
        size = max(1, batch_tokens // (prompt_with + answer_with))
        indices = prefix.indices
        while len(indices) > size:
            yield ((place, indices[:size]),)
            indices = indices[size:]
        batch.append((place, indices))
        rows, prompt, answer = rows + len(indices), prompt_with, answer_with
    if batch:
        yield tuple(batch)


def halved(batch: Batch) -> list[Batch]:
    """Two batches with half the rows each; the batch alone when it is a single row."""
    if len(batch) > 1:
        return [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    place, indices = batch[0]
    if len(indices) < 2:
        return [batch]
    middle = len(indices) // 2
    return [((place, indices[:middle]),), ((place, indices[middle:]),)]


def rows_of(batch: Batch) -> int:
    """Texts of a batch."""
    return sum(len(indices) for _, indices in batch)


def format_of(loaded: Loaded, weights: Path) -> FormatName:
    """The prompt format that the weights were trained on; `plain` for a base model.

    Raises:
        UserError: when the same name stands for another layout today.
    """
    if loaded.card is None:
        return "plain"
    stored = loaded.card.prompt_format
    if prompt_format(stored.name, loaded.tokenizer) != stored:
        raise UserError(
            f"{weights} was trained on another layout than the prompt format {stored.name} has now\n"
            "  train it again, or put its tokenizer (and chat template) back"
        )
    return stored.name


def end_tokens(loaded: Loaded) -> list[int]:
    """Ids that end a text: the tokenizer's, and those of the model's generation config."""
    given = loaded.model.generation_config.eos_token_id
    more = given if isinstance(given, list) else [] if given is None else [given]
    return sorted({loaded.tokenizer.eos_token_id, *more})


def context_length(model: Any) -> int | None:
    """Most positions that the model was made for, where its config says so."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _text(request: Generate, index: int, ids: list[int], eos: Sequence[int], tokenizer: Any) -> Generated:
    ended = bool(ids) and ids[-1] in eos
    return Generated(
        key=request.key,
        index=index,
        text=tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        finish_reason="stop" if ended else "length",
        tokens=len(ids),
    )


@dataclass
class _Meter:
    """Counts what is made and, block by block, says how fast. How far the work is, only the caller knows."""

    ctx: Context
    texts: int = 0
    tokens: int = 0

    def made(self, texts: Sequence[Generated], seconds: float) -> None:
        """A block is done."""
        self.texts += len(texts)
        self.tokens += (tokens := sum(text.tokens for text in texts))
        self.ctx.metric(self.texts, tokens_per_second=tokens / max(seconds, 1e-9), tokens=self.tokens)
