"""Read text files of users: plain or packed (gzip, zstd), with any kind of newline, in UTF-8 with or without BOM.

Topics, labelled records and whatever else comes as lines are read here, so that one file is read alike everywhere.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import zstandard

from speed.core.errors import UserError

_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of archives."""
DAMAGED = (OSError, EOFError, zlib.error)
"""What reading a damaged archive raises."""
_ENDINGS = {".gz": "gzip", ".zst": "zstd"}


class Line(NamedTuple):
    """One line of a text file."""

    number: int
    """From 1."""
    raw: bytes
    """As it stands in the (unpacked) file, with its newline and without BOM."""
    text: str
    """Without its newline."""


def text_lines(file: Path, where: str = "") -> Iterator[Line]:
    """The lines of a file, which end in LF, CRLF or CR.

    Args:
        where: how messages name the file.

    Raises:
        UserError: for a file that is missing, a folder, unreadable or a damaged archive, or a line that is not UTF-8.
    """
    where = where or str(file)
    with opened(file, where) as raw, unpacked(raw, file.name, where) as stream:
        yield from lines_of(stream, where)


def lines_with_text(file: Path) -> int:
    """How many lines of a file are not blank; counted once for as long as the file stays as it is.

    Raises:
        UserError: as `text_lines` does.
    """
    state = file.stat()
    return _lines_with_text(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _lines_with_text(file: Path, modified: int, size: int) -> int:
    return sum(1 for line in text_lines(file) if not line.text.isspace() and line.text)


def lines_of(stream: io.BufferedIOBase, where: str) -> Iterator[Line]:
    """The lines of an open file; see `text_lines`."""
    number = 0
    try:
        for block in stream:
            for raw in block.splitlines(keepends=True):  # of bytes: at LF, CRLF and CR alone
                number += 1
                own = raw.removeprefix(_BOM) if number == 1 else raw
                yield Line(number, own, _decoded(own, number, where).rstrip("\r\n"))
    except DAMAGED as error:
        raise damaged(where, f"line {number}", error) from error


def opened(file: Path, where: str) -> IO[bytes]:
    """A file for reading.

    Raises:
        UserError: when it is missing, a folder or unreadable.
    """
    file = file.expanduser()
    if not file.exists():
        raise UserError(f"{where} does not exist: give the path of an existing file")
    if file.is_dir():
        raise UserError(f"{where} is a folder: give the file in it")
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}") from error


def unpacked(raw: IO[bytes], name: str, where: str) -> io.BufferedReader[Any]:
    """The content of a file that may be packed, which its first bytes tell.

    Args:
        name: its name, which may promise an archive.

    Raises:
        UserError: when the name promises another kind of file.
    """
    buffered: io.BufferedReader[Any] = io.BufferedReader(cast(io.RawIOBase, raw), _BLOCK)
    head = buffered.peek(4)
    found = next((kind for start, kind in _PACKED.items() if head.startswith(start)), "")
    ending = Path(name).suffix
    if _ENDINGS.get(ending, found) != found:
        raise UserError(
            f"{where} is not a {_ENDINGS[ending]} archive, as its name says: fetch it again, or take {ending} off its "
            "name"
        )
    if found == "gzip":
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=buffered)), _BLOCK)
    return io.BufferedReader(_Zstd(buffered), _BLOCK) if found else buffered


class _Zstd(io.RawIOBase):
    """The content of zstd frames. Unlike the library's own reader it notices a file that ends within a frame."""

    def __init__(self, packed: io.BufferedIOBase) -> None:
        self._packed, self._decoder, self._ready = packed, zstandard.ZstdDecompressor().decompressobj(), b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        """Fill some of `target`."""
        while not self._ready:
            block = self._decoder.unused_data or self._packed.read(1 << 16)
            if self._decoder.eof:
                if not block:
                    return 0
                self._decoder = zstandard.ZstdDecompressor().decompressobj()
            elif not block:
                raise EOFError("the archive ends in the middle")
            try:
                self._ready = self._decoder.decompress(block)
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from error
        count = min(len(target), len(self._ready))
        target[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        """Close the file, too."""
        self._packed.close()
        super().close()


def damaged(where: str, place: str, error: Exception) -> UserError:
    """The refusal of an archive that cannot be unpacked beyond some place."""
    return UserError(f"{where}: damaged after {place} ({error}): fetch the file again")


def _decoded(raw: bytes, number: int, where: str) -> str:
    if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{where} is UTF-16: save it as UTF-8 (iconv -f utf-16 -t utf-8 FILE > NEW)")
    if b"\0" in raw:
        raise UserError(f"{where}, line {number}: this is no text file: it holds zero bytes; give a text file in UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}, line {number} is not UTF-8 (byte 0x{raw[error.start]:02x} at {error.start + 1}): save the file "
            "as UTF-8, for instance with iconv -f latin1 -t utf-8 FILE > NEW"
        ) from error
