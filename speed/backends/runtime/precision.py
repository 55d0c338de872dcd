"""Arithmetic of a model by its name in the config."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


def dtype_of(precision: str) -> Any:
    """PyTorch's type of a `Precision`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
