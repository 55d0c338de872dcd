"""Closed journal files, compressed: zstd's seekable format, so that one entry can be read without the rest.

`<name>.jsonl.zst` is a row of zstd frames of whole lines, about 256 KiB of text each, and the table of their sizes in a
last frame that decoders skip: `zstdcat` shows the file as it was. Offsets count bytes of the text, so whatever knows
where an entry lies goes on knowing it. The compressed file is written aside, synced, read back and renamed before the
original goes; where a crash leaves both, the original counts.
"""

from __future__ import annotations

import bisect
import itertools
import os
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import zstandard

from speed.core.locks import locked
from speed.teaching.journal_file import Found, chunks_from, lines_from, lines_in

SUFFIX = ".zst"
FRAME = 1 << 18
"""Bytes of text in a frame: what is unpacked to read one entry, and what a damaged bit costs at most."""
LEVEL = 3
_SKIP, _MAGIC = 0x184D2A5E, 0x8F92EAB1  # zstd contrib/seekable_format
_FOOTER = struct.Struct("<IBI")
_SIZES = struct.Struct("<II")


def files_in(folder: Path) -> dict[str, int]:
    """Names of the journal's files, compressed or not, and the bytes of their text."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob(f"*.jsonl{SUFFIX}")):
        with suppress(OSError), closing(Packed(path)) as packed:
            found[path.name.removesuffix(SUFFIX)] = packed.size
    for path in sorted(folder.glob("*.jsonl")):
        with suppress(OSError):  # compressed in between
            found[path.name] = path.stat().st_size
    return dict(sorted(found.items()))


def lines_of_file(folder: Path, name: str, offset: int = 0) -> Iterator[Found]:
    """What a file of the journal holds from a position of its text on."""
    try:
        yield from lines_from(folder / name, offset)
    except FileNotFoundError:
        with closing(Packed(folder / (name + SUFFIX))) as packed:
            yield from packed.lines(offset)


def opened(folder: Path, name: str) -> Plain | Packed:
    """A file of the journal, for reading entries.

    Raises:
        OSError: when it is not there.
    """
    try:
        return Plain(folder / name)
    except FileNotFoundError:
        return Packed(folder / (name + SUFFIX))


class Plain:
    """A file as it was written."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the text."""
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


class Packed:
    """A compressed file. Remembers the last frame: neighbours are usually read together."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sizes = self._table() or self._walked()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._at = list(itertools.accumulate((packed for packed, _ in sizes), initial=0))
        self._starts = list(itertools.accumulate((plain for _, plain in sizes), initial=0))
        self._frame, self._text = -1, b""

    @property
    def size(self) -> int:
        """Bytes of the text."""
        return self._starts[-1]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the text; fewer where a frame is damaged."""
        found = b""
        frame = bisect.bisect_right(self._starts, offset) - 1
        while len(found) < length and 0 <= frame < len(self._at) - 1:
            text = self._unpacked(frame)
            if text is None:
                break
            start = offset + len(found) - self._starts[frame]
            found += text[start : start + length - len(found)]
            frame += 1
        return found

    def lines(self, offset: int) -> Iterator[Found]:
        """What stands from a position of the text on; a damaged frame is one damaged piece."""
        first = max(0, bisect.bisect_right(self._starts, offset) - 1)
        for frame in range(first, len(self._at) - 1):
            start, text = max(offset, self._starts[frame]), self._unpacked(frame)
            if text is None:
                yield Found(start, self._starts[frame + 1] - start - 1, None)
            else:
                yield from lines_in([text[start - self._starts[frame] :]], start)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)

    def _unpacked(self, frame: int) -> bytes | None:
        if frame != self._frame:
            raw = os.pread(self._descriptor, self._at[frame + 1] - self._at[frame], self._at[frame])
            size = self._starts[frame + 1] - self._starts[frame]
            try:
                self._text = zstandard.ZstdDecompressor().decompress(raw, max_output_size=size)
            except zstandard.ZstdError:
                return None
            self._frame = frame
        return self._text

    def _table(self) -> list[tuple[int, int]]:
        """(compressed, plain) bytes of each frame, from the table at the end; empty when there is no sound one."""
        end = os.fstat(self._descriptor).st_size
        footer = os.pread(self._descriptor, _FOOTER.size, max(0, end - _FOOTER.size))
        if len(footer) < _FOOTER.size:
            return []
        frames, flags, magic = _FOOTER.unpack(footer)
        body = os.pread(self._descriptor, _SIZES.size * frames, max(0, end - _FOOTER.size - _SIZES.size * frames))
        if magic != _MAGIC or flags or len(body) != _SIZES.size * frames:
            return []
        sizes = list(_SIZES.iter_unpack(body))
        whole = sum(packed for packed, _ in sizes) + _SIZES.size * (frames + 1) + _FOOTER.size
        return sizes if whole == end else []

    def _walked(self) -> list[tuple[int, int]]:
        """The same by unpacking frame after frame, for a file whose table is damaged."""
        raw, sizes = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0), []
        while raw:
            decoder = zstandard.ZstdDecompressor().decompressobj()
            try:
                plain = len(decoder.decompress(raw))
            except zstandard.ZstdError:
                break
            if not decoder.eof or not plain:
                break
            sizes.append((len(raw) - len(decoder.unused_data), plain))
            raw = decoder.unused_data
        return sizes


def pack(path: Path) -> bool:
    """Compress a file of the journal that nobody writes any more; False when somebody does, or nothing is in it.

    Raises:
        OSError: when the disk is full; the original then stays.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if not locked(descriptor):
            return False
        if not path.exists() or not os.fstat(descriptor).st_size:
            path.unlink(missing_ok=True)
            return False
        partial, final = path.with_name(path.name + ".partial"), path.with_name(path.name + SUFFIX)
        try:
            _write(path, partial)
            if not _same(path, partial):
                return False
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
        path.unlink()
        return True
    finally:
        os.close(descriptor)


def pack_closed(folder: Path) -> int:
    """Compress every file of a journal that no process writes any more; the number of files."""
    return sum(pack(path) for path in sorted(folder.glob("*.jsonl")))


def _write(path: Path, partial: Path) -> None:
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    sizes = []
    with partial.open("wb") as file:
        for text in _frames(path):
            frame = compressor.compress(text)
            sizes.append(_SIZES.pack(len(frame), len(text)))
            file.write(frame)
        file.write(_SIZES.pack(_SKIP, _SIZES.size * len(sizes) + _FOOTER.size))
        file.write(b"".join(sizes) + _FOOTER.pack(len(sizes), 0, _MAGIC))
        file.flush()
        os.fsync(file.fileno())


def _frames(path: Path) -> Iterator[bytes]:
    """The text in pieces of whole lines. A line half written at the end is left out: nobody has ever read it."""
    held = b""
    for chunk in chunks_from(path, 0):
        held += chunk
        while (end := held.find(b"\n", FRAME)) >= 0:
            yield held[: end + 1]
            held = held[end + 1 :]
    if (end := held.rfind(b"\n")) >= 0:
        yield held[: end + 1]


def _same(path: Path, partial: Path) -> bool:
    """Whether the compressed file gives back every frame of the text."""
    with closing(Packed(partial)) as packed:
        return all(packed._unpacked(place) == text for place, text in enumerate(_frames(path))) and packed.size == sum(
            map(len, _frames(path))
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
