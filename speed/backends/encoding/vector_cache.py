"""Vectors of texts on disk, shared by all tasks of a model: FEVER and ClimateFEVER have the same five million pages.

    <root>/<model>/about.json            what the model is
    <root>/<model>/<process>.vectors     rows of fp32, appended as they are computed, not normalised
    <root>/<model>/<process>.keys        for each row 16 bytes of blake2b(prompt, text) and 8 bytes of checksum

A process appends to files of its own and reads those of all, so that writing needs no lock and a kill loses at most the
row that was being written: the reason why this cache is no folder of `speed.core.cache`. Vectors stay on disk, memory-
mapped; memory holds 16 bytes a text. A row whose checksum is wrong is computed again. Over the cap, models that no
process is using are deleted, the least recently used first; the whole folder may be deleted at any time.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from speed.core.cache import write_aside
from speed.core.spec import Json, digest

Keys = NDArray[np.uint64]
"""`[texts 2]`: 128 bits of each (prompt, text)."""
Vectors = NDArray[np.float32]
READ = 1024
"""Rows read at once."""
ROW_BITS = 40
"""Bits of a place that number the row; the bits above them number the file."""
FREE_BYTES = 2 << 30
"""Bytes that stay free on the disk, whatever the cap."""
LOOK_EVERY = 64 << 20
"""Bytes written between two checks of the disk."""


class Run(NamedTuple):
    """A part of the index, sorted by the first half of the key."""

    first: NDArray[np.uint64]
    places: NDArray[np.uint64]


class VectorCache:
    """The vectors of one model."""

    def __init__(
        self, root: Path, model: Json, dimension: int, max_bytes: int, say: Callable[[str], None] = lambda message: None
    ) -> None:
        """Open the vectors of one model.

        Args:
            model: all that a vector depends on, beside its prompt and its text.
            dimension: width of the vectors.
            max_bytes: cap of the whole root.
            say: called once, when the cache is full.
        """
        self.root, self.folder, self.dimension = root, root / digest(model)[:40], dimension
        self.max_bytes, self.say = max_bytes, say
        self.hits = self.misses = 0
        """Texts whose vectors were in the cache, and texts whose vectors were not."""
        self._runs: list[Run] = []
        self._files: list[Path] = []
        self._written = 0
        self._looked = -LOOK_EVERY
        self._full = False
        self._out: tuple[io.FileIO, io.FileIO] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")  # held while in use, so that no other process deletes it
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        os.utime(self.folder)
        with write_aside(self.folder / "about.json") as aside:
            aside.write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")
        for file in sorted(self.folder.glob("*.keys")):
            rows = min(file.stat().st_size // 24, _size(file.with_suffix(".vectors")) // (4 * dimension))
            self._files.append(file)
            if rows:
                self._insert(self._rows_of(len(self._files) - 1)[:rows, 0], 0, len(self._files) - 1)

    def close(self) -> None:
        """Close the files and give up the lock."""
        for file in self._out or ():
            file.close()
        self._lock.close()

    def keys(self, prefix: str, texts: Sequence[str]) -> Keys:
        """Keys of texts under a prompt."""
        start = hashlib.blake2b(f"{len(prefix)}\0{prefix}".encode("utf-8", "surrogatepass"), digest_size=16)
        digests = bytearray()
        for text in texts:
            key = start.copy()
            key.update(text.encode("utf-8", "surrogatepass"))
            digests += key.digest()
        return np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2)

    def look_up(self, keys: Keys) -> Iterator[tuple[list[int], Vectors]]:
        """(places in `keys`, vectors) of those that are in the cache, piece by piece."""
        left = np.arange(len(keys))
        for run in reversed(self._runs):
            missed = [left[:0]]
            at = np.searchsorted(run.first, keys[left, 0])
            while len(left):  # once more for each row that was damaged and is followed by another of the same key
                same = run.first.take(at, mode="clip") == keys[left, 0]
                same &= at < len(run.first)
                missed.append(left[~same])
                left, at = left[same], at[same]
                whole = np.zeros(len(left), dtype=bool)
                for start in range(0, len(left), READ):
                    part = slice(start, start + READ)
                    vectors, whole[part] = self._read(keys[left[part]], run.places[at[part]])
                    if whole[part].any():
                        self.hits += int(whole[part].sum())
                        yield left[part][whole[part]].tolist(), vectors[whole[part]]
                left, at = left[~whole], at[~whole] + 1
            left = np.concatenate(missed)
        self.misses += len(left)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Keep the vectors of these keys, unless the cache is full."""
        if self._full or not len(keys) or not self._room(vectors.nbytes + 24 * len(keys)):
            return
        if self._out is None:
            self.folder.mkdir(parents=True, exist_ok=True)  # it may have been deleted meanwhile
            name = self.folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            self._out = (
                name.with_suffix(".keys").open("ab", buffering=0),
                name.with_suffix(".vectors").open("ab", buffering=0),
            )
            self._files.append(name.with_suffix(".keys"))
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        checks = [_check(key, row) for key, row in zip(keys, rows, strict=True)]
        heads = np.column_stack([keys, np.array(checks, dtype="<u8")]).astype("<u8")
        file = len(self._files) - 1
        start = self._out[0].tell() // 24
        try:
            _write(self._out[1], rows.tobytes())  # before the keys: a row exists once its key is written
            _write(self._out[0], heads.tobytes())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._stop("the disk is full")
            return
        self._insert(keys[:, 0], start, file)

    def _insert(self, first: NDArray[np.uint64], start: int, file: int) -> None:
        """Index rows `start`, `start + 1` ... of a file; runs of like size are merged."""
        places = (np.uint64(file) << np.uint64(ROW_BITS)) + np.arange(start, start + len(first), dtype=np.uint64)
        order = np.argsort(first, kind="stable")
        run = Run(first[order], places[order])
        while self._runs and len(self._runs[-1].first) <= 2 * len(run.first):
            older = self._runs.pop()
            first, places = np.concatenate([run.first, older.first]), np.concatenate([run.places, older.places])
            order = np.argsort(first, kind="stable")
            run = Run(first[order], places[order])
        self._runs.append(run)

    def _rows_of(self, file: int) -> NDArray[np.uint64]:
        rows = _size(self._files[file]) // 24
        return np.memmap(self._files[file], dtype="<u8", mode="r", shape=(rows, 3))

    def _read(self, keys: Keys, places: NDArray[np.uint64]) -> tuple[Vectors, NDArray[np.bool_]]:
        """Vectors at these places, and which of them are whole and belong to the keys."""
        out = np.empty((len(keys), self.dimension), dtype=np.float32)
        sound = np.zeros(len(keys), dtype=bool)
        files, rows = places >> np.uint64(ROW_BITS), places & np.uint64((1 << ROW_BITS) - 1)
        for file in np.unique(files):
            name = self._files[int(file)]
            whole = _size(name) // 24, _size(name.with_suffix(".vectors")) // (4 * self.dimension)
            here = np.flatnonzero((files == file) & (rows < min(whole)))
            if not len(here):
                continue  # the file was deleted or cut meanwhile
            heads = np.memmap(name, dtype="<u8", mode="r", shape=(whole[0], 3))[rows[here]]
            vectors = np.memmap(name.with_suffix(".vectors"), dtype="<f4", mode="r", shape=(whole[1], self.dimension))[
                rows[here]
            ]
            out[here] = vectors
            for place, head, vector in zip(here, heads, vectors, strict=True):
                key = keys[place]
                sound[place] = head[0] == key[0] and head[1] == key[1] and int(head[2]) == _check(key, vector)
        return out, sound

    def _room(self, wanted: int) -> bool:
        """Whether so many bytes more may be written; deletes models that no process uses where that is needed."""
        self._written += wanted
        if self._written - self._looked < LOOK_EVERY:
            return True
        self._looked = self._written
        others = sorted((path for path in self.root.iterdir() if path.is_dir() and path != self.folder), key=_when_used)
        while _bytes_below(self.root) + wanted > self.max_bytes or shutil.disk_usage(self.root).free < FREE_BYTES:
            if not others:
                self._stop(f"it holds {self.max_bytes / 1e9:g} GB, or the disk is nearly full")
                return False
            _clear(others.pop(0))
        return True

    def _stop(self, why: str) -> None:
        self._full = True
        self.say(
            f"{self.root} keeps no more vectors ({why}); the evaluation continues without. "
            "Raise runtime.vectors_gb, or delete folders in it"
        )


def _write(file: io.FileIO, content: bytes) -> None:
    """Write all of it, unbuffered: it stays when the process is killed."""
    left = memoryview(content)
    while len(left):
        left = left[file.write(left) :]


def _check(key: NDArray[np.uint64], row: Vectors) -> int:
    return xxhash.xxh3_64_intdigest(row.tobytes(), seed=int(key[0]))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _when_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _bytes_below(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            total += _size(Path(folder) / name)
    return total


def _clear(folder: Path) -> None:
    """Delete a model's vectors, unless a process is using them."""
    with suppress(FileNotFoundError), (folder / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        shutil.rmtree(folder, ignore_errors=True)
