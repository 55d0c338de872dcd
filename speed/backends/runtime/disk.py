"""A full disk, whichever library meets it while it writes weights."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = ("os error 28", "PytorchStreamWriter failed", "inline_container.cc")
"""How safetensors and torch.save tell of a disk without space."""


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """A full disk as the OSError that it is: safetensors and torch.save raise other things for it."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if any(sign in str(error) for sign in DISK_FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out)) from error
        raise
