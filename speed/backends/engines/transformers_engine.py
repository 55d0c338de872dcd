"""Generation through transformers: the engine that runs wherever PyTorch does.

A block of requests is cut into batches of similar length under a token budget. How it is cut is a pure function of the
block, so a block that is generated again after a crash gives the same texts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from speed.backends.engines.decoding import Prefix, continuations
from speed.backends.engines.local_weights import LocalWeights
from speed.backends.engines.transcription import Transcription, Written, context_length, format_of
from speed.backends.engines.weights import Loaded, end_tokens, load
from speed.backends.runtime.at_once import AtOnce
from speed.backends.runtime.device import device_of
from speed.backends.runtime.precision import Precision
from speed.core.errors import UserError
from speed.data.costs.loads import EngineLoad
from speed.data.costs.memory import cache_bytes
from speed.data.costs.model_shapes import shape_of
from speed.ports import Generate, Generated, Sampling
from speed.runtime import Context


class TransformersEngine(LocalWeights):
    """Samples with transformers' forward pass and our own loop over it."""

    precision: Precision = "bf16"
    """Arithmetic of the forward pass."""
    batch_tokens: int = Field(default=65_536, ge=1)
    """Most tokens, prompts and answers together, that one batch may come to."""

    def load(self, base: str) -> EngineLoad | None:
        shape = shape_of(base)
        if shape is None:
            return None
        wide = 4 if self.precision == "fp32" else 2
        weights, token = float(wide * shape.parameters), float(cache_bytes(shape, wide))
        return EngineLoad(weights, token, self.batch_tokens, "engine.batch_tokens")

    @property
    def held_tokens(self) -> int:
        return self.batch_tokens

    def generate(
        self,
        weights: Path,
        calls: Iterable[Sequence[Generate]],
        sampling: Sampling,
        ctx: Context,
        *,
        endless: bool = False,
    ) -> Iterator[list[Generated]]:
        """For each block its texts, ordered by (request, index).

        Raises:
            UserError: for weights whose prompt format is no longer what they were trained on, prompts that all fill
                the model's context, or one text that does not fit into memory.
        """
        import torch

        torch.set_num_threads(ctx.grant.threads)
        loaded = load(weights, self.precision, device_of(ctx))
        transcription = Transcription(
            loaded.tokenizer,
            format_of(loaded.card, loaded.tokenizer, weights),
            [] if endless else end_tokens(loaded.tokenizer, loaded.model.generation_config),
            context_length(loaded.model.config),
        )

        what = ["generation", self.recipe(), str(weights)]
        at_once = AtOnce(ctx, what, self.batch_tokens, "tokens", "engine.batch_tokens")

        def write(requests: Sequence[Generate], work: Sequence[Prefix]) -> Written:
            written: dict[tuple[int, int], list[int]] = {}
            waiting = deque(batches(work, at_once.value))
            while waiting:
                prefixes = [replace(work[place], indices=indices) for place, indices in waiting[0]]
                texts = _texts_or_none(loaded, prefixes, sampling, transcription.ends)
                if texts is None:
                    waiting = self._in_smaller_batches(work, waiting, at_once)
                    continue
                places = ((place, index) for place, indices in waiting.popleft() for index in indices)
                written.update(zip(places, texts, strict=True))
            return written

        try:
            yield from transcription.blocks(calls, write, ctx)
        finally:
            at_once.tell()

    def _in_smaller_batches(self, work: Sequence[Prefix], waiting: Sequence[Batch], at_once: AtOnce) -> deque[Batch]:
        """What is left of a block, cut anew after its first batch did not fit into memory; later blocks follow.

        Raises:
            UserError: when that batch was a single text.
        """
        if rows_of(waiting[0]) < 2:
            raise UserError("one text alone does not fit into the GPU's memory\n  take a smaller generator, or bf16")
        at_once.ctx.say(at_once.lower(min(at_once.value, tokens_of(work, waiting[0])) // 2))
        left: dict[int, list[int]] = {}
        for batch in waiting:
            for place, indices in batch:
                left.setdefault(place, []).extend(indices)
        rest = [replace(prefix, indices=left.get(place, ())) for place, prefix in enumerate(work)]
        return deque(batches(rest, at_once.value))


def _texts_or_none(
    loaded: Loaded, prefixes: Sequence[Prefix], sampling: Sampling, eos: Sequence[int]
) -> list[list[int]] | None:
    """Token ids of a batch, or None where memory does not suffice (then what it took is free again)."""
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


def rows_of(batch: Batch) -> int:
    """Texts of a batch."""
    return sum(len(indices) for _, indices in batch)


def tokens_of(work: Sequence[Prefix], batch: Batch) -> int:
    """What a batch costs: its rows times its longest prompt and longest answer."""
    longest = max(len(work[place].ids) for place, _ in batch) + max(work[place].max_tokens for place, _ in batch)
    return rows_of(batch) * longest
