"""Files that appear whole or not at all, and folders that are made once and kept, by content.

Two functions carry everything that is kept below `<home>/cache`, and every file that is replaced:

    with write_aside(path) as aside: ...     write to `aside`; it takes the place of `path` when the block ends well
    kept(folder, make)                       the folder as `make` wrote it: found whole, or made now

The name of a kept folder is a digest of all that its content depends on, so nothing is ever out of date, and everything
below `cache` may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

SUMS = ".sha256.json"
"""In a kept folder: the sha256 of every other file; written last."""


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_aside(path: Path, shared: bool = False) -> Iterator[Path]:
    """A free path beside `path`, for a file or a folder that takes the place of `path` when the block ends.

    Everything is on the disk (fsync) before it gets its name. After an error `path` is as before and what was written
    is removed; what a killed process left is removed by the next one. A folder replaces an empty folder only.

    Args:
        shared: several processes may write `path` at once, without a lock; the last one wins.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial" if shared else f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(aside)
    try:
        yield aside
        for file in aside.rglob("*") if aside.is_dir() else (aside,):
            if file.is_file():
                _sync(file)
        aside.replace(path)
    except BaseException:
        _remove(aside)
        raise


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
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
    """Whether `kept` has made this folder and every file in it is as it was."""
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
