"""Where models run, as the runtime asks, and libraries that keep to the matter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from speed.core.context import Context
from speed.core.errors import UserError


def device_of(ctx: Context) -> str:
    """`cuda` or `cpu`; `auto` takes a GPU if there is one."""
    import torch

    if ctx.runtime.device == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda, and this machine has no usable GPU\n  take runtime.device=auto or cpu")
    return "cuda" if ctx.runtime.device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bars of the libraries, and no word about what they will rename in their next version."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="(transformers|trl|peft)")
        yield
