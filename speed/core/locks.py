"""Locks that say whether the process that writes a file is alive. They go with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def locked(descriptor: int) -> bool:
    """Take the lock that says that a file has an owner; False when another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_owned(path: Path) -> bool:
    """Whether a process still writes this file.

    Where the file system knows no locks, every file counts as owned.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not locked(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)
