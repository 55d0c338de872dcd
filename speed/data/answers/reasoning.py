"""Set aside what a model thinks before it answers.

Reasoning arrives between tags such as `<think>` and `</think>`; where the chat template swallowed the opening one, only
the closing one arrives. Drafts in it are no answers: nothing of it is ever read as one.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import NamedTuple

_TAG = re.compile(
    r"<(?P<end>/)?(?:\w{1,16}:)?(?:think|thinking|thought|thoughts|reasoning)>|\[(?P<bracket_end>/)?THINK\]",
    re.IGNORECASE,
)
_START = re.compile(r"[{\[]")
_JSON = json.JSONDecoder(strict=False)
_MOST_STARTS = 64
"""Attempts to find the JSON value around a tag; a limit, so that time grows with the length of the text alone."""


class Answered(NamedTuple):
    """A text without its reasoning."""

    text: str
    unfinished: bool = False
    """Whether reasoning began and never ended, so that there is no answer yet."""


def without_reasoning(text: str) -> Answered:
    """The answer alone. A tag inside a value of strict JSON is a part of that value, and no tag."""
    if _TAG.search(text) is None:
        return Answered(text)
    kept: list[str] = []
    position, inside, starts = 0, False, _MOST_STARTS
    value_ends = 0
    for tag in _TAG.finditer(text):
        if tag.start() < value_ends:
            continue
        ends = bool(tag["end"] or tag["bracket_end"])
        if inside:
            if ends:
                inside, position = False, tag.end()
            continue
        value_ends, starts = _value_around(text, max(position, value_ends), tag.start(), starts)
        if value_ends > tag.start():
            continue
        if ends:  # it began where nobody saw it: all before it was reasoning
            kept.clear()
            position = tag.end()
        else:
            kept.append(text[position : tag.start()])
            inside = True
    return Answered("".join(kept), True) if inside else Answered("".join([*kept, text[position:]]))


def _value_around(text: str, start: int, place: int, starts: int) -> tuple[int, int]:
    """Where the last JSON value ends that begins in start..place-1, or 0; and how many attempts are left."""
    ended = 0
    for match in islice(_START.finditer(text, start, place), starts):
        if match.start() < ended:
            continue
        starts -= 1
        try:
            _, ended = _JSON.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if ended > place:
            break
    return ended, starts
