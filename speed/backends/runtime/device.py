"""The device that models run on, and the libraries' progress bars and warnings turned off."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from speed.core.errors import UserError
from speed.core.machine import gpus
from speed.runtime import Context, Runtime


def device_of(ctx: Context) -> str:
    """`cuda` or `cpu`, for a build that computes there; `auto` takes a GPU if there is one."""
    device = device_for(ctx.runtime)
    ctx.gpus = max(ctx.gpus, ctx.grant.processes, len(ctx.grant.devices)) if device == "cuda" else ctx.gpus
    return device


def devices_of(ctx: Context) -> list[str]:
    """As torch names them, the devices that a build has for itself; the one that it computes on where it has none."""
    device = device_of(ctx)
    own = range(len(ctx.grant.devices))
    return [f"{device}:{place}" if device == "cuda" else device for place in own] or [device]


def device_for(runtime: Runtime) -> str:
    """As `device_of`; imports torch.

    Raises:
        UserError: where GPUs are named and torch can use none.
    """
    import torch

    if isinstance(runtime.devices, tuple) and not torch.cuda.is_available():
        listed = ",".join(map(str, runtime.devices))
        raise UserError(f"runtime.devices=[{listed}], and torch can use no GPU here\n  take runtime.devices=cpu")
    return "cuda" if runtime.devices != "cpu" and torch.cuda.is_available() else "cpu"


def device_gigabytes(ctx: Context) -> float | None:
    """Memory of the smallest GPU that the build has, or as the runtime declares it; None where neither is known."""
    sizes = [gpu.gigabytes for gpu in gpus() if gpu.gigabytes is not None] if device_of(ctx) == "cuda" else []
    return ctx.runtime.device_gb or min(sizes, default=None)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the libraries' progress bars and their warnings about future versions."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="(transformers|trl|peft)")
        yield
