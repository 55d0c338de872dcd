"""Where models run, as the runtime asks."""

from __future__ import annotations

from speed.core.context import Context
from speed.core.errors import UserError


def device_of(ctx: Context) -> str:
    """`cuda` or `cpu`; `auto` takes a GPU if there is one."""
    import torch

    if ctx.runtime.device == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda, and this machine has no usable GPU\n  take runtime.device=auto or cpu")
    return "cuda" if ctx.runtime.device != "cpu" and torch.cuda.is_available() else "cpu"
