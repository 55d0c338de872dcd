"""Files that appear whole or not at all, and folders that are made once and kept, by content.

Two functions carry everything that is kept below `<home>/cache`, and every file that is replaced:

    with write_aside(path) as aside: ...     write to `aside`; it takes the place of `path` when the block ends well
    make_once(folder, make)                  the folder as `make` wrote it: found whole, or made now

The name of a kept folder is a digest of all that its content depends on, so nothing is ever out of date, and everything
below `cache` may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

SUMS = ".sha256.json"
"""In a kept folder: the sha256 of every other file; written last."""

STALE = 24 * 3600
"""Seconds after which what a process of another machine has begun to write counts as left, if it has not changed."""

_ASIDE = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.partial$")
"""The end of the name of what is being written: machine, process, and a random number."""


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """A free path beside `path`, for a file or a folder that takes the place of `path` when the block ends.

    Everything is on the disk (fsync) before it gets its name. After an error `path` is as before and what was written
    is removed. Each writer has a name of its own: of several at once, on whatever machines, the last one wins. What a
    killed process left in the folder is removed by the next that writes there. A folder replaces an empty folder only;
    a link is no folder.
    """
    aside = aside_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent.absolute(), os.getpid())
    try:
        yield aside
        whole = aside.rglob("*") if aside.is_dir() else (aside,)
        for file in whole if not aside.is_symlink() else ():
            if file.is_file():
                _sync(file)
        aside.replace(path)
    except BaseException:
        _remove(aside)
        raise


def aside_name(path: Path) -> Path:
    """A name beside `path` that no other writer has: not this process again, and no process of another machine."""
    return path.with_name(f"{path.name}.{this_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")


def remove_left(folder: Path) -> None:
    """Remove what `write_aside` left anywhere below a folder that this process alone may write, by its lock."""
    for path in [path for path in folder.rglob("*.partial") if _ASIDE.search(path.name)]:
        _remove(path)


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Digest of what process ids belong to: a machine, and in it a container."""
    container = ""
    with suppress(OSError):
        container = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {container}".encode()).hexdigest()[:8]


@lru_cache(maxsize=1024)
def _tidy(folder: Path, process: int) -> None:
    """Remove from a folder what killed processes left; once for each process, since a folder may have many files."""
    for path in folder.glob("*.partial"):
        if (named := _ASIDE.search(path.name)) and not _is_written(path, named[1], int(named[2])):
            with suppress(OSError):  # the next one may
                _remove(path)


def _is_written(path: Path, machine: str, process: int) -> bool:
    """Whether its writer may be alive."""
    try:
        if machine != this_machine():
            newest = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
            return time.time() - newest < STALE
        os.kill(process, 0)
    except PermissionError:  # a process of somebody else
        return True
    except OSError:  # no such process, or no such file any more
        return False
    return True


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder` with what `make` wrote into it.

    One process makes it, under a lock, while the others wait; a file that does not have its recorded sha256, or is
    missing, has the whole folder made again.

    Args:
        folder: named by all that its content depends on.
        make: writes files into the empty folder that it is given.
    """
    if not is_whole(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not is_whole(folder):  # another process may have made it meanwhile
                _remove(folder)
                with write_aside(folder) as aside:
                    aside.mkdir()
                    make(aside)
                    files = sorted(path for path in aside.rglob("*") if path.is_file())
                    sums = {file.relative_to(aside).as_posix(): file_sha256(file) for file in files}
                    (aside / SUMS).write_text(json.dumps(sums, indent=1) + "\n")
    return folder


def is_whole(folder: Path) -> bool:
    """Whether `make_once` has made this folder and every file in it is as it was."""
    try:
        sums = json.loads((folder / SUMS).read_text())
        return all(file_sha256(folder / name) == recorded for name, recorded in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
