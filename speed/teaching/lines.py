"""The lines of journal files: how one is written, and how a file is read past any damage.

A line is JSON with a checksum in front: `{"crc":"0a1b2c3d","entry":{...}}`, where the crc32 is that of the bytes of
the entry as they stand in the line. A flipped bit, a torn end and two lines run together are therefore noticed
without parsing, and reading goes on behind the damage.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from speed.core.cache import write_aside
from speed.core.errors import UserError, explained
from speed.core.locks import locked

MARK = b'{"crc":"'
_HEAD = len(b'{"crc":"0a1b2c3d","entry":')
_CHUNK = 1 << 20
ARCHIVE = ".jsonl.zst"
"""How files end that earlier versions compressed."""
_FRAME, _SKIPPED = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"  # zstd's marks of a frame, and of a frame without content


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


def files_in(folder: Path, name: str = "*.jsonl") -> dict[str, int]:
    """Names of the journal's files, or of one of them, and their bytes."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.jsonl")) if "*" in name else [folder / name]:
        with suppress(FileNotFoundError):
            found[path.name] = path.stat().st_size
    return found


def lines_from(path: Path, offset: int = 0) -> Iterator[Found]:
    """What a file holds from a byte position on.

    Bytes behind the last newline are left out: a line half written.
    """
    with path.open("rb") as file:
        file.seek(offset)
        yield from _lines_in(iter(lambda: file.read(_CHUNK), b""), offset)


def _lines_in(chunks: Iterable[bytes], offset: int) -> Iterator[Found]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield from _pieces(line, offset)
            offset += len(line) + 1


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


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


OLD = ("index-[12].sqlite", "index-1.sqlite-wal", "index-1.sqlite-shm", "account.json", "asking/*")
"""What earlier versions kept beside the journal's files, and made from them or forgot in seconds."""


def tidy(folder: Path) -> None:
    """Remove what earlier versions kept here, and files that a process opened and never wrote to, once it is gone."""
    for path in [path for pattern in OLD for path in folder.glob(pattern)]:
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        (folder / "asking").rmdir()
    for name in [name for name, size in files_in(folder).items() if not size]:
        with suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if locked(descriptor) and not os.fstat(descriptor).st_size:
                    (folder / name).unlink(missing_ok=True)
            finally:
                os.close(descriptor)


# -- files that earlier versions compressed ----------------------------------------------------------------------------


def unpack_archives(folder: Path, say: Callable[[str], None]) -> None:
    """Turn every `NAME.jsonl.zst` into `NAME.jsonl`; what cannot be read of it is said and kept.

    The plain file is written aside, synced and renamed before the archive goes, under a lock on the archive: a kill at
    any point loses nothing, and of two processes one does it. Where both files are there, the plain one counts.

    Raises:
        UserError: when the folder cannot be written: the answers inside would be paid for again.
    """
    for archive in sorted(folder.glob(f"*{ARCHIVE}")):
        try:
            with archive.open("rb") as file:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink:  # otherwise somebody else has done it
                    _unpack(archive, file.fileno(), say)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise explained(error, f"unpacking {archive.name}") or UserError(
                f"{archive} cannot be unpacked ({error.strerror}): mend that, and run the same command again; the "
                "answers in it are paid for"
            ) from error


def _unpack(archive: Path, descriptor: int, say: Callable[[str], None]) -> None:
    plain = archive.with_suffix("")
    damaged = 0
    if not plain.exists():
        with write_aside(plain) as aside, aside.open("wb") as file:
            for text in _frames(descriptor):
                damaged += text is None
                file.write(text or b"")
        sync_folder(archive.parent)
    if damaged:
        kept = archive.with_name(archive.name + ".damaged")
        archive.replace(kept)
        say(f"{damaged} damaged pieces of {archive.name} count as missing; the file is kept as {kept.name}")
    else:
        archive.unlink()


def _frames(descriptor: int) -> Iterator[bytes | None]:
    """The text of each frame, which is whole lines; None for a damaged one, behind which the next is looked for."""
    import zstandard

    size, place = os.fstat(descriptor).st_size, 0
    if not size:
        return
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        while place < size:
            if content[place + 1 : place + 4] == _SKIPPED:
                place += 8 + int.from_bytes(content[place + 4 : place + 8], "little")
                continue
            decoder, text, end = zstandard.ZstdDecompressor().decompressobj(), b"", place
            with suppress(zstandard.ZstdError):
                while not decoder.eof and end < size:
                    text += decoder.decompress(content[end : end + _CHUNK])
                    end = min(size, end + _CHUNK)
            if decoder.eof:
                yield text
                place = end - len(decoder.unused_data)
            else:
                yield None
                place = content.find(_FRAME, place + 1)
                if place < 0:
                    return
