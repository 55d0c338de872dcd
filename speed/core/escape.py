"""Escape control characters before printing untrusted text."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """Spell out control characters (ANSI codes, NUL, marks that reverse writing) and lone surrogates, but for tab and
    newline."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def on_one_line(text: str, most: int) -> str:
    """Escape the text and put it on one line of at most `most` characters."""
    line = escape(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."
