"""Attention on cores, where two of PyTorch's ways are many times slower than they need be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ON_CORES = "speed_on_cores"
"""Our name among transformers' ways to compute attention."""


@contextmanager
def fast_on_cores(model: Any) -> Iterator[None]:
    """Inside the block a model on the CPU computes the same attention in other ways, where these are faster.

    - In training in half precision, in fp32: PyTorch's backward pass in bf16 takes several times as long on short
      texts, and a LoRA step of SmolLM2-135M 1.2 to 1.3 times up to 64 tokens (`tests/bench/lora_step.py`).
    - Of one new token, keys and values are read once for all heads that share them: as positions of one head, those
      heads are one product. PyTorch repeats the work for each head; all of writing takes SmolLM2-135M 2.4 times as
      long so, in bf16 (`tests/bench/engine.py`).
    """
    config = model.config
    if model.device.type != "cpu" or config._attn_implementation != "sdpa":
        yield
        return
    _register()
    config._attn_implementation = ON_CORES
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


@lru_cache(maxsize=1)
def _register() -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
    ) -> tuple[Tensor, None]:
        """Attention of `query` (rows, heads, positions, size) over `key` and `value` (rows, groups, all, size)."""
        rows, heads, positions, size = query.shape
        groups = key.shape[1]
        if positions == 1 < heads // groups and all(more.get(each) is None for each in ("position_bias", "softcap")):
            together = query.reshape(rows, groups, heads // groups, size)
            weighed = scaled_dot_product_attention(together, key, value, attn_mask=mask, scale=more.get("scaling"))
            return weighed.reshape(rows, 1, heads, size), None
        if not module.training:
            return plain(module, query, key, value, mask, **more)
        if mask is not None and mask.is_floating_point():
            mask = mask.float()
        with torch.autocast("cpu", enabled=False):
            found, _ = plain(module, query.float(), key.float(), value.float(), mask, **more)
        return found.to(query.dtype), None

    def plain(*arguments: Any, **more: Any) -> tuple[Tensor, None]:
        found: tuple[Tensor, None] = sdpa_attention_forward(*arguments, **more)
        return found

    AttentionInterface.register(ON_CORES, attention)
    AttentionMaskInterface.register(ON_CORES, sdpa_mask)
