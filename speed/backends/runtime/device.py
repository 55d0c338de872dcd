"""The device that models run on, and the libraries' progress bars and warnings turned off."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speed.core.errors import UserError
from speed.runtime import Context, Runtime


def device_of(ctx: Context) -> str:
    """`cuda` or `cpu`, for a build that computes there; `auto` takes a GPU if there is one."""
    device = device_for(ctx.runtime)
    ctx.gpus = max(ctx.gpus, 1) if device == "cuda" else ctx.gpus
    return device


def device_for(runtime: Runtime) -> str:
    """As `device_of`; imports torch.

    Raises:
        UserError: where a GPU is asked for and there is none.
    """
    import torch

    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda, and this machine has no usable GPU\n  take runtime.device=auto or cpu")
    return "cuda" if runtime.device != "cpu" and torch.cuda.is_available() else "cpu"


def gpu_in_sight() -> bool:
    """Whether there may be a GPU: a quick look that does not import torch; true where it cannot tell."""
    # in a container the devices alone may be visible
    drivers = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/sys/module/amdgpu/version", "/dev/kfd", "/dev/dxg")
    return sys.platform != "linux" or any(Path(driver).exists() for driver in drivers)


def fills_gpu(runtime: Runtime) -> bool:
    """Whether a model that works here takes the whole GPU of this machine; answered without importing torch."""
    return runtime.device != "cpu" and gpu_in_sight()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the libraries' progress bars and their warnings about future versions."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="(transformers|trl|peft)")
        yield
