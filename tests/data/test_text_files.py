"""Text files are read alike whatever they are packed in, whatever ends their lines; what is no text is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from speed.core.errors import UserError
from speed.data.text_files import text_lines

TEXT = "Größe\nzwei\n\ndrei\n"


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_one_file_in_every_dress(tmp_path: Path, newline: str, bom: bytes, pack: object) -> None:
    assert callable(pack)
    content = bom + TEXT.replace("\n", newline).encode()
    (tmp_path / "file").write_bytes(pack(content))
    lines = list(text_lines(tmp_path / "file"))
    assert [(line.number, line.text) for line in lines] == [(1, "Größe"), (2, "zwei"), (3, ""), (4, "drei")]
    assert b"".join(line.raw for line in lines) == content.removeprefix(b"\xef\xbb\xbf")


def test_archives_of_several_members(tmp_path: Path) -> None:
    for name, pack in (("a.gz", gzip.compress), ("a.zst", zstd)):
        (tmp_path / name).write_bytes(pack(b"one\ntw") + pack(b"") + pack(b"o\n" * 100_000))
        lines = [line.text for line in text_lines(tmp_path / name)]
        assert lines[:3] == ["one", "two", "o"]
        assert len(lines) == 100_001


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.gz", gzip.compress(TEXT.encode() * 9, mtime=0)[:-12], "damaged after line"),
        ("cut.zst", zstd(TEXT.encode() * 9)[:-5], "damaged after line 0 .the archive ends in the middle"),
        ("bad.zst", zstd(TEXT.encode())[:9] + b"\xff" * 40, "damaged after line 0"),
        ("plain.gz", TEXT.encode(), "is not a gzip archive, as its name says"),
        ("plain.zst", TEXT.encode(), "is not a zstd archive, as its name says"),
        ("latin1", "eins\nGröße\n".encode("latin1"), "line 2 is not UTF-8 .byte 0xf6 at 3.: save the file"),
        ("utf16", TEXT.encode("utf-16"), "is UTF-16"),
        ("zip", b"PK\x03\x04\x00\x00", "line 1: this is no text file"),
        ("folder", None, "is a folder"),
        ("nowhere", None, "does not exist"),
    ],
)
def test_what_is_no_text_is_refused_with_file_and_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path / name}.* ?{message}"):
        list(text_lines(tmp_path / name))
