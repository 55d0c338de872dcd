"""Text from outside, as it may stand on a terminal: whatever it holds stays text."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """The text with control characters (ANSI codes, NUL, marks that turn writing around) and lone surrogates spelt out;
    tab and newline stay."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def on_one_line(text: str, most: int) -> str:
    """The same on one line of at most so many characters."""
    line = shown(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."
