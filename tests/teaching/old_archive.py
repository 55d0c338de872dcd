"""Journal files as earlier versions compressed them: zstd's seekable format, in frames of whole lines."""

from __future__ import annotations

import struct
from pathlib import Path

import zstandard


def archived(plain: Path, frame: int = 2000) -> Path:
    """Compress a journal file and remove it; the archive."""
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
    frames, sizes, text = [], [], b""
    for line in plain.read_bytes().splitlines(keepends=True):
        text += line
        if len(text) >= frame:
            frames.append(text)
            text = b""
    frames += [text] if text else []
    packed = [compressor.compress(text) for text in frames]
    sizes = [struct.pack("<II", len(small), len(text)) for small, text in zip(packed, frames, strict=True)]
    footer = struct.pack("<IBI", len(sizes), 0, 0x8F92EAB1)
    table = struct.pack("<II", 0x184D2A5E, 8 * len(sizes) + len(footer)) + b"".join(sizes) + footer
    archive = plain.with_name(plain.name + ".zst")
    archive.write_bytes(b"".join(packed) + table)
    plain.unlink()
    return archive
