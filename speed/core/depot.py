"""What is carried to a machine that does not see the store of a run: a folder of its own, laid out as a store is.

The folder lies where that machine keeps temporary files. Its name says whose it is, so that later workers of the run
find what was carried, also after a kill; it goes when the run leaves. A file appears there when it is whole and has its
sha256, a folder when all its files have.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from speed.core.cache import file_sha256, remove_left, write_aside
from speed.core.errors import UserError
from speed.core.manifest import Output

IN_USE = "in_use"
"""A file on which each process that works in a depot has a lock."""
_SHARD = re.compile(r"rows-(\d{9})-\d{9}\.(json|jsonl|jsonl\.zst)")
"""Name of a file of a shard; what is written aside, maybe by another process, has a longer one."""


class Bundle(NamedTuple):
    """Files that belong together."""

    folder: str
    """Of them, below the root of a depot as below that of a store."""
    files: tuple[Output, ...]
    """The last one stands for all: it is written when the others are there."""
    whole: bool
    """Whether they are all that the folder holds, which then appears at once; otherwise they join what it holds."""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


class Depot:
    """One process's hold on such a folder; one call at a time."""

    def __init__(self, name: str, within: Path | None = None) -> None:
        """Name it; `open` makes it.

        Args:
            name: of what is carried and for whom.
            within: the folder of temporary files (TMPDIR), where None.
        """
        self.root = depot_root(name, within)
        self._use: IO[str] | None = None
        self._lock: IO[str] | None = None
        """Of a bundle; no FileLock, which counts by thread, and calls come from several."""
        self._bundle = Bundle("", (), whole=False)
        self._file: _Incoming | None = None

    def open(self) -> str:
        """The root, made where it is missing, and not cleared as long as this process lives.

        Raises:
            UserError: where it cannot be made, or is somebody else's.
        """
        with self._refusing():
            while self._use is None:
                with suppress(FileNotFoundError):  # it was cleared just now
                    self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                    if self.root.is_symlink() or self.root.lstat().st_uid != os.getuid():
                        raise PermissionError(0, "it is not of this user")
                    self._use = _held(self.root / IN_USE)
            for folder in ("store", "locks", "logs", "cache"):
                (self.root / folder).mkdir(exist_ok=True)
        return str(self.root)

    def lacks(self, bundle: Bundle) -> bool:
        """Whether something of a bundle is not here, or is another."""
        folder, last = self.root / bundle.folder, bundle.files[-1]
        sizes = all(_size(folder / file.path) == file.bytes for file in bundle.files)
        return not sizes or file_sha256(folder / last.path) != last.sha256

    def begin(self, bundle: Bundle) -> list[str]:
        """The files that must be carried, in the order in which `add` wants them; none where the bundle is here. Waits
        for a process that is being given the same. `end` closes what this begins."""
        with self._refusing():
            self._lock = (self.root / "locks" / f"{bundle.folder.replace('/', '-')}.carried.lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if not self.lacks(bundle):
                self._release()
                return []
            self._bundle, folder, target = bundle, self.root / bundle.folder, self._target(bundle)
            if bundle.whole:
                if folder.is_dir() and not target.exists():  # something of it was removed, or it was built again
                    folder.replace(target)
                shutil.rmtree(folder, ignore_errors=True)
                target.mkdir(parents=True, exist_ok=True)
                remove_left(target)
                _remove_others(target, bundle)
            else:  # what another manifest stands for is replaced, so that goes first
                (folder / bundle.files[-1].path).unlink(missing_ok=True)
            return [
                file.path
                for file in bundle.files
                if _size(target / file.path) != file.bytes or file_sha256(target / file.path) != file.sha256
            ]

    def add(self, pieces: Sequence[tuple[str, bytes]]) -> list[str]:
        """Take the next pieces (file, bytes) of the files that `begin` named; the files that came with another sha256
        than theirs, which are not kept."""
        damaged = []
        outputs = {file.path: file for file in self._bundle.files}
        with self._refusing():
            for path, piece in pieces:
                self._file = self._file or _Incoming(self._target(self._bundle) / path, outputs[path])
                try:
                    is_kept = self._file.add(piece)
                except OSError:  # the disk is full: what came is of no use
                    self._file.give_up()
                    raise
                if is_kept is not None:
                    self._file = None
                    damaged += [] if is_kept else [path]
        return damaged

    def end(self) -> None:
        """All is here: a whole folder gets its name."""
        with self._refusing():
            if self._bundle.whole:
                self._target(self._bundle).replace(self.root / self._bundle.folder)
        self._release()

    def read(self, path: str, start: int, size: int) -> bytes:
        """Bytes of a file below the root, from `start` on; none after its end, or where there is no such file."""
        with suppress(FileNotFoundError), (self.root / path).open("rb") as file:
            file.seek(start)
            return file.read(size)
        return b""

    def size(self, path: str) -> int:
        """Bytes of a file below the root; -1 where there is none."""
        return _size(self.root / path)

    def drop(self, path: str) -> None:
        """Remove the artifact or the shard that a damaged file belongs to: this is not the place of originals.

        Args:
            path: of a file of the store below the root; another's is left alone.
        """
        file = self.root / path
        if not file.is_relative_to(self.root / "store"):
            return
        if file.name.startswith("rows-"):
            for part in file.parent.glob(file.name.partition(".")[0] + ".*"):
                if _SHARD.fullmatch(part.name):
                    part.unlink(missing_ok=True)
        else:
            shutil.rmtree(self.root.joinpath(*file.relative_to(self.root).parts[:3]), ignore_errors=True)

    def keep_shards(self, folder: str, keep: Sequence[str], rows: int) -> None:
        """Of the shards that begin before `rows`, remove those of other names: blocks that were cut otherwise."""
        for file in (self.root / folder).glob("rows-*"):
            shard = _SHARD.fullmatch(file.name)
            if shard and file.name not in keep and int(shard[1]) < rows:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it, as the end of the process does."""
        self._release()
        if self._use is not None:
            self._use.close()
        self._use = None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def _target(self, bundle: Bundle) -> Path:
        folder = self.root / bundle.folder
        return folder.with_name(folder.name + ".partial") if bundle.whole else folder

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.root} cannot take what a run carries to this machine: {error.strerror or error}\n"
                "  start Ray there with TMPDIR=DIR, a folder on a disk that has room for the models"
            ) from error


class _Incoming:
    """A file that comes piece by piece, aside."""

    def __init__(self, path: Path, output: Output) -> None:
        self.output, self.bytes, self.sha256 = output, 0, hashlib.sha256()
        self.stack = ExitStack()
        self.file: IO[bytes] = self.stack.enter_context(write_aside(path)).open("wb")

    def add(self, piece: bytes) -> bool | None:
        """Take a piece; with the last one, whether the file is what it should be, and has its name."""
        self.file.write(piece)
        self.sha256.update(piece)
        self.bytes += len(piece)
        if self.bytes < self.output.bytes:
            return None
        self.file.close()
        if (self.bytes, self.sha256.hexdigest()) != (self.output.bytes, self.output.sha256):
            self.give_up()
            return False
        self.stack.close()
        return True

    def give_up(self) -> None:
        """Remove what came."""
        with suppress(OSError):  # what was not written yet cannot be
            self.file.close()
        with suppress(_GivenUp), self.stack:
            raise _GivenUp


class _GivenUp(Exception):
    pass


def depot_root(name: str, within: Path | None = None) -> Path:
    """Where the depot of a name lies on this machine."""
    return (within or Path(tempfile.gettempdir())) / f"speed-{os.getuid()}-{name}"


def clear(name: str, within: Path | None = None, seconds: float = 5.0) -> bool:
    """Remove a depot in which nobody works, and what a killed removal has left of it; whether it is gone.

    Args:
        seconds: for which its last users may take to end.
    """
    root, deadline = depot_root(name, within), time.monotonic() + seconds
    for left in root.parent.glob(f"{root.name}.gone-*"):
        shutil.rmtree(left, ignore_errors=True)
    while True:
        try:
            with (root / IN_USE).open() as use:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone = root.with_name(f"{root.name}.gone-{uuid.uuid4().hex[:8]}")
                root.replace(gone)  # at once: whoever opens it from now on makes a new one
            shutil.rmtree(gone, ignore_errors=True)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)


def _held(path: Path) -> IO[str] | None:
    """The file, with a lock that others may have too; None where it has been moved away meanwhile."""
    file = path.open("a")
    fcntl.flock(file, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()
    return None


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return -1


def _remove_others(folder: Path, bundle: Bundle) -> None:
    names: set[Any] = {folder / file.path for file in bundle.files}
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in names]:
        path.unlink()
