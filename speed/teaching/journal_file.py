"""One line of the call journal, and the files that lines are appended to.

A line is JSON with a checksum in front: `{"crc":"0a1b2c3d","entry":{...}}`, where the crc32 is that of the bytes of
the entry as they stand in the line. A flipped bit, a torn end and two lines run together are therefore noticed
without parsing, and reading goes on behind the damage.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from speed.core.errors import explained

MARK = b'{"crc":"'
_HEAD = len(b'{"crc":"0a1b2c3d","entry":')
_CHUNK = 1 << 20


class Found(NamedTuple):
    """A piece of a journal file: a sound entry, or the damaged bytes between two entries."""

    offset: int
    length: int
    entry: bytes | None
    """The entry's JSON; None where the checksum does not match."""


def line_of(body: bytes) -> bytes:
    """The line of an entry's JSON, newline included."""
    return b'{"crc":"%08x","entry":%b}\n' % (zlib.crc32(body), body)


def entry_in(line: bytes) -> bytes | None:
    """The entry's JSON in a line (without its newline), or None when the line is not what was written."""
    body = line[_HEAD:-1]
    return body if line == b'{"crc":"%08x","entry":%b}' % (zlib.crc32(body), body) else None


def chunks_from(path: Path, offset: int) -> Iterator[bytes]:
    """The bytes of a file from a position on, a megabyte at a time."""
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            yield chunk


def lines_in(chunks: Iterable[bytes], offset: int) -> Iterator[Found]:
    """What stands in a stream of bytes that begins at `offset`. Bytes behind the last newline are left out: a line
    half written."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield from _pieces(line, offset)
            offset += len(line) + 1


def lines_from(path: Path, offset: int) -> Iterator[Found]:
    """What a file holds from a byte position on."""
    return lines_in(chunks_from(path, offset), offset)


def _pieces(line: bytes, offset: int) -> Iterator[Found]:
    entry = entry_in(line)
    if entry is not None or line.find(MARK, 1) < 0:
        yield Found(offset, len(line), entry)
        return
    # The newline between two lines was hit: quotes inside an entry are escaped, so a mark is always a line's start.
    starts = [match.start() for match in re.finditer(re.escape(MARK), line)]
    for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
        piece = line[start:end]
        shorter = entry_in(piece[:-1])
        if shorter is not None:
            yield Found(offset + start, len(piece) - 1, shorter)
        else:
            yield Found(offset + start, len(piece), entry_in(piece))


class Appender:
    """This process's own file: opened at the first line, one write per line, never touched by anyone else.

    It is locked for as long as it is open. A file that is closed is done: what comes later goes into another one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = self._new_name()
        self.size = 0
        self._descriptor: int | None = None
        self._closing = threading.Lock()

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._folder / self.name

    def append(self, line: bytes) -> int:
        """Write a line and return its offset. A write that fails halfway is taken back.

        Raises:
            UserError: when the disk is full or may not be written.
        """
        offset = self.size
        try:
            descriptor = self.open()
            written = os.write(descriptor, line)
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError as error:
            self._take_back(offset)
            raise explained(_named(error, self.path), "writing down a teacher's answer") or error from error
        self.size = offset + len(line)
        return offset

    def sync(self) -> None:
        """Bring what was written onto the disk.

        Raises:
            UserError: when the disk is full.
        """
        with self._closing:
            if self._descriptor is None:
                return
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise explained(_named(error, self.path), "saving the teacher's answers") or error from error

    def open(self) -> int:
        """The file's descriptor; creates the file, and locks it, where that has not been done."""
        while self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            with suppress(OSError):  # waits only for someone who is tidying the empty file away
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        return self._descriptor

    def close(self) -> None:
        """Give the file back."""
        with self._closing:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor, self.size, self.name = None, 0, self._new_name()

    def _new_name(self) -> str:
        host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname()) or "host"
        return f"{host}-{os.getpid()}-{time.time_ns()}.jsonl"

    def _take_back(self, size: int) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, size)


def _named(error: OSError, path: Path) -> OSError:
    """The same error, with the file that os.write and os.fsync do not name."""
    return OSError(error.errno, error.strerror, error.filename or str(path))
