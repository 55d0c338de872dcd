"""Records as they stand in a page: JSON, compressed and in base64, so that no text of theirs can be markup or code."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from speed.core.escape import escape

LONGEST = 12_000
"""Characters of one text that are shown."""
MOST_BYTES = 5_500_000
"""Characters of packed records in a page, which stays below 8 MB with them."""


def plain(value: Any) -> Any:
    """The same value with control characters spelt out and very long texts cut."""
    if isinstance(value, str):
        cut = value if len(value) <= LONGEST else f"{value[:LONGEST]} ... {len(value) - LONGEST:,} characters more"
        return escape(cut)
    if isinstance(value, dict):
        return {plain(str(name)): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def packed(value: Any) -> str:
    """Base64 of the compressed JSON of a value; the same value gives the same text."""
    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii")


def unpacked(text: str) -> Any:
    """What `packed` took."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def packed_records(about: dict[str, Any], records: list[Any], most: int = MOST_BYTES) -> tuple[str, int]:
    """Records with what is said about them, packed, and how many of them there are: all, or every second, fourth ... as
    far as they fit."""
    step = 1
    while True:
        kept = records[::step]
        text = packed({**about, "records": kept})
        if len(text) <= most or len(kept) <= 1:
            return text, len(kept)
        step *= 2
