"""A full disk is one kind of error, whichever library meets it while it writes weights."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = ("os error 28", "PytorchStreamWriter failed", "inline_container.cc")
"""Texts by which errors of safetensors and torch.save are known to mean a full disk."""


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn what safetensors and torch.save raise for a full disk into an OSError."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if any(sign in str(error) for sign in DISK_FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out)) from error
        raise
