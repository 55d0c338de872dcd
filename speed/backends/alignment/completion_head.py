"""TRL's language-model head on a CPU: the positions of completions, and no others.

On GPUs TRL 1.16 projects the hidden states that a label asks for; elsewhere it projects every one, prompts included,
and throws most of it away. A prompt of the paper is four times as long as its answer, so on a CPU that was a third of a
training. Both ways give the same loss and gradient (a test compares them).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def completions_only() -> Iterator[None]:
    """While this lasts, TRL's trainers in this process project completions only, on a CPU as on a GPU.

    TRL decides it by one private function of its module; where a later version has none, nothing changes.
    """
    from trl.trainer import utils

    there = getattr(utils, "_use_triton", None)
    if there is None:
        yield
        return

    def compact(device: Any) -> bool:
        return device.type == "cpu" or bool(there(device))

    utils._use_triton = compact
    try:
        yield
    finally:
        utils._use_triton = there
