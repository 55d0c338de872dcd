"""Sampling from a transformers model, many rows at once: the loop behind `TransformersEngine`.

`model.generate` keeps finished rows in the batch until the last one ends and draws all rows from one generator, so a
row's text depends on its neighbours. Here every row has its own stream of uniform numbers, finished rows leave the
batch, the n candidates of a prompt share its prefill, and keys and values grow in place instead of being copied at
each step. The forward pass is transformers' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speed.backends.runtime.attention import fast_on_cores
from speed.ports import Sampling

if TYPE_CHECKING:
    from torch import Tensor

GROWTH = 128
"""Positions by which the buffers of keys and values grow."""

SHRINK_BELOW = 0.875
"""The batch is packed anew when no more than this share of its rows still runs."""

LIKELY = 64
"""Tokens among which a nucleus is looked for first: sorting whole vocabularies is a sixth of a small model's time."""

BELOW_ONE = 1 - 1e-6
"""Scale of the uniform numbers, so that rounding never reaches the end of the distribution."""


@dataclass(frozen=True)
class Prefix:
    """One prompt of a batch and the continuations that are asked of it."""

    ids: Sequence[int]
    seed: int
    indices: Sequence[int]
    """Which candidates: candidate i of a prompt is the same text in every batch."""
    max_tokens: int


def continuations(
    model: Any, prefixes: Sequence[Prefix], sampling: Sampling, eos: Sequence[int], *, sharded: bool = False
) -> list[list[int]]:
    """Token ids of each continuation, by prefix and index; one that ended by itself ends in its EOS.

    `sharded` weights (ZeRO-3) are gathered in each pass, and must be tensors that can be trained afterwards.
    """
    with fast_on_cores(model):
        return _continuations(model, prefixes, sampling, eos, sharded)


def _continuations(
    model: Any, prefixes: Sequence[Prefix], sampling: Sampling, eos: Sequence[int], sharded: bool
) -> list[list[int]]:
    import torch

    device = model.device
    rows = [prefix for prefix in prefixes for _ in prefix.indices]
    limits = torch.tensor([row.max_tokens for row in rows], device=device)
    longest = int(limits.max())
    draws = uniforms(prefixes, longest).to(device) if sampling.temperature > 0 else None
    ends = torch.tensor(list(eos), device=device)
    with torch.no_grad() if sharded else torch.inference_mode():
        logits, cache, mask, positions = _prefill(model, prefixes, longest)
        width = mask.shape[1] - longest
        written = torch.zeros((len(rows), longest), dtype=torch.long, device=device)
        counts = torch.zeros(len(rows), dtype=torch.long, device=device)
        running = torch.arange(len(rows), device=device)
        live = torch.ones(len(rows), dtype=torch.bool, device=device)
        for step in range(longest):
            tokens = chosen_tokens(logits, sampling, None if draws is None else draws[running, step])
            written[running, step] = tokens
            counts[running] += live
            live &= ~torch.isin(tokens, ends) & (limits[running] > step + 1)
            left = int(live.sum())
            if left == 0:
                break
            if left <= SHRINK_BELOW * len(running):
                kept = live.nonzero().squeeze(1)
                cache.batch_select_indices(kept)
                running, mask, positions, tokens = running[kept], mask[kept], positions[kept], tokens[kept]
                live = live[kept]
            logits = model(
                input_ids=tokens[:, None],
                attention_mask=mask[:, : width + step + 1],
                position_ids=positions[:, None] + step,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
    return [ids[:count] for ids, count in zip(written.tolist(), counts.tolist(), strict=True)]


def chosen_tokens(logits: Tensor, sampling: Sampling, draws: Tensor | None) -> Tensor:
    """One token a row from `logits` (rows, vocabulary): the largest, or by inverting the distribution at `draws`."""
    import torch

    if draws is None:
        return logits.argmax(-1)
    logits = logits.float() / sampling.temperature
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    if sampling.top_p < 1:
        weights = _nucleus(weights, sampling.top_p)
    summed = weights.cumsum(-1)
    targets = draws[:, None] * summed[:, -1:]
    return torch.searchsorted(summed, targets, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)


def uniforms(prefixes: Sequence[Prefix], longest: int) -> Tensor:
    """(rows, longest) numbers in [0, 1): each row a counter-based stream of (seed, index), in every batch the same."""
    import numpy
    import torch

    drawn = [
        numpy.random.Generator(numpy.random.Philox(key=[prefix.seed % 2**64, index])).random(longest, numpy.float32)
        for prefix in prefixes
        for index in prefix.indices
    ]
    return torch.from_numpy(numpy.stack(drawn)) * BELOW_ONE


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Weights with all tokens zeroed but the most likely ones that together reach top_p (the first always stays).

    Tokens as likely as the last of them stay too, so that no order among equals decides.
    """
    wanted = top_p * weights.sum(-1, keepdim=True)
    ordered = weights.topk(min(LIKELY, weights.shape[1]), dim=-1).values
    least = _least_kept(ordered, wanted)
    flat = ordered.sum(-1) < wanted.squeeze(-1)
    if flat.any():  # these rows alone are sorted whole
        least[flat] = _least_kept(weights[flat].sort(dim=-1, descending=True).values, wanted[flat])
    return weights.masked_fill(weights < least, 0.0)


def _least_kept(ordered: Tensor, wanted: Tensor) -> Tensor:
    """The smallest of the largest weights of each row that are needed to reach what is wanted: (rows, 1)."""
    before = ordered.cumsum(-1) - ordered
    needed = (before < wanted).sum(-1, keepdim=True).clamp_(min=1)
    return ordered.gather(-1, needed - 1)


def _prefill(model: Any, prefixes: Sequence[Prefix], longest: int) -> tuple[Tensor, Any, Tensor, Tensor]:
    """Run the prompts once, left-padded; then one row a continuation.

    Returns:
        logits of the next token (rows, vocabulary), cache, mask (rows, width + longest), and each row's next position.
    """
    import torch

    lengths = torch.tensor([len(prefix.ids) for prefix in prefixes])
    width = int(lengths.max())
    ids = torch.zeros((len(prefixes), width), dtype=torch.long)
    for row, prefix in enumerate(prefixes):
        ids[row, width - len(prefix.ids) :] = torch.tensor(prefix.ids)
    columns = torch.arange(width + longest)
    mask = (columns >= (width - lengths)[:, None]).long().to(model.device)
    positions = (mask[:, :width].cumsum(1) - 1).clamp_(min=0)
    cache = growing_cache(model.config)
    with _contiguous_states(model):
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask[:, :width],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    repeats = torch.tensor([len(prefix.indices) for prefix in prefixes])
    if int(repeats.max()) > 1:
        source = torch.arange(len(prefixes)).repeat_interleave(repeats).to(model.device)
        cache.batch_select_indices(source)
        logits, mask, lengths = logits[source], mask[source], lengths.to(model.device)[source]
    return logits, cache, mask, lengths.to(model.device)


@contextmanager
def _contiguous_states(model: Any) -> Iterator[None]:
    """The last positions' states reach the output layer as a tensor of their own.

    As a slice of all states they make PyTorch copy the layer's weights once a row: 2.7 s of 23 where SmolLM2-135M reads
    46 prompts of 350 tokens on two cores.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, states: (states[0].contiguous(),))
    try:
        yield
    finally:
        hook.remove()


def growing_cache(config: Any) -> Any:
    """transformers' dynamic cache, with full-attention layers that grow in place."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):  # type: ignore[misc]
        """Keys and values (rows, heads, positions, size) in buffers that are extended now and then."""

        def update(self, key_states: Tensor, value_states: Tensor, *rest: Any, **more: Any) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.stored: list[Tensor] = [key_states[:, :, :0], value_states[:, :, :0]]
                self.length = 0
            start, stop = self.length, self.length + key_states.shape[2]
            if stop > self.stored[0].shape[2]:
                self.stored = [self._extended(tensor, stop + GROWTH) for tensor in self.stored]
            for stored, new in zip(self.stored, (key_states, value_states), strict=True):
                stored[:, :, start:stop] = new
            self.length = stop
            self._expose()
            return self.keys, self.values

        def batch_select_indices(self, indices: Tensor) -> None:
            """Keep (and repeat) these rows; a layer that shares another's keys holds none."""
            if not self.is_initialized:
                return
            self.stored = [tensor[indices] for tensor in self.stored]
            self._expose()

        def _extended(self, tensor: Tensor, positions: int) -> Tensor:
            rows, heads, _, size = tensor.shape
            wider = tensor.new_zeros((rows, heads, positions, size))
            wider[:, :, : self.length] = tensor[:, :, : self.length]
            return wider

        def _expose(self) -> None:
            self.keys, self.values = (tensor[:, :, : self.length] for tensor in self.stored)

    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
