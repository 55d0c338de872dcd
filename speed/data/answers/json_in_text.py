"""Find the JSON values in the text of a model: as strict JSON first, then as almost-JSON (`lenient_json`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from speed.data.answers.lenient_json import DEEPEST, Members, Number, Reader, ReadError, Value, ends_inside, members
from speed.data.answers.reasoning import without_reasoning

_DECODER = json.JSONDecoder(object_pairs_hook=members, parse_int=Number, parse_float=Number, strict=False)
_START = re.compile(r"[{\[]")
_KEY_FIRST = re.compile(r"\s*(?:```\w*\s*)?(?=[\"'“]\w{1,64}[\"'”]\s*:)")
_LAST_FENCE = re.compile(r"\s*(?:```|~~~)\s*\Z")
_MOST_STARTS = 64
_LONGEST = 200_000


class Reading(NamedTuple):
    """The JSON values of a text, and how they were read."""

    values: tuple[Value, ...]
    fault: str = ""
    """`truncated` or `bad_syntax`: why a value that began could not be read. `unfinished_reasoning` or `empty`: why
    there is no answer that could hold a value."""
    unclosed: bool = False
    """Whether the last value lacked only its closing brackets."""
    mended: frozenset[str] = frozenset()
    """What was skipped or mended: keys of `speed.data.answers.lenient_json.MENDED`."""

    def also(self, mended: str) -> Reading:
        """The same reading with one more thing mended."""
        return self._replace(mended=self.mended | {mended})


def json_objects(text: str) -> Reading:
    """Find the outermost objects and lists of a text, in order. Never raises."""
    if len(text) <= _LONGEST:
        try:
            value = _DECODER.decode(text.lstrip("\ufeff"))
            if _is_shallow(value):
                return Reading((value,))
        except (ValueError, RecursionError):
            pass
    answered = without_reasoning(text)
    if answered.unfinished or not answered.text.strip():
        return Reading((), "unfinished_reasoning" if answered.unfinished else "empty")
    if len(answered.text) > _LONGEST:
        return Reading((), "bad_syntax")
    bare = _LAST_FENCE.sub("", answered.text)
    reading = _scanned(bare)
    reading = reading if bare == text else reading.also("around")
    if any(isinstance(value, dict) or (isinstance(value, list) and value) for value in reading.values):
        return reading
    if match := _KEY_FIRST.match(bare):
        return _scanned("{" + bare[match.end() :]).also("opening")
    if '{\\"' in bare:
        try:
            inner = _DECODER.decode('"' + bare[bare.index("{") : bare.rindex("}") + 1] + '"')
            return json_objects(inner).also("escaped")
        except (ValueError, RecursionError):
            return reading
    return reading


def _is_shallow(value: Value) -> bool:
    """Whether no value lies deeper than is read. Python's own limit is another one in each version."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


def _scanned(text: str) -> Reading:
    values: list[Value] = []
    position, fault, unclosed = 0, "", False
    mended: set[str] = set()
    for _ in range(_MOST_STARTS):
        start = _START.search(text, position)
        around = text[position : start.start() if start else None]
        if around and not around.isspace():
            mended.add("around")
        if not start:
            break
        try:
            value, end = _DECODER.raw_decode(text, start.start())
            if not _is_shallow(value):
                raise RecursionError
            position = end
        except (ValueError, RecursionError):
            reader = Reader(text, start.start())
            try:
                value = reader.value()
            except ReadError as unreadable:
                # Values inside an object that really began are parts of it, not answers of their own.
                really_began = reader.keys > 0 or unreadable.cause == "truncated"
                position = max(unreadable.position, start.end()) if really_began else start.end()
                fault = unreadable.cause if really_began else fault
                continue
            position, unclosed = reader.position, reader.unclosed
            mended |= reader.mended
        if ends_inside(text, position):
            fault = "bad_syntax"
        else:
            values.append(value)
    if len(values) > 1:
        mended.add("around")
    return Reading(tuple(values), fault, unclosed, frozenset(mended))


@lru_cache(maxsize=16)
def unwrapped(keys: tuple[str, ...]) -> Callable[[Value], Iterator[Value]]:
    """Find the objects that may be the answer: the value, or those inside a list, a string or an outer object."""
    wanted = {plain(key) for key in keys}

    def candidates(value: Value, depth: int = 0) -> Iterator[Value]:
        if isinstance(value, Members):
            inner = next(iter(value.values())) if len(value) == 1 else None
            if isinstance(inner, (dict, list, str)) and depth < 3 and wanted.isdisjoint(map(plain, value)):
                yield from list(candidates(inner, depth + 1)) or [value]
            else:
                yield value
        elif isinstance(value, list) and depth < 3:
            for item in value:
                yield from candidates(item, depth + 1)
        elif isinstance(value, str) and depth < 3 and "{" in value:
            for inner in json_objects(value).values:
                yield from candidates(inner, depth + 1)

    return candidates


def lists(value: Value) -> Iterator[Value]:
    """Find the lists that may be the answer: the value itself, or those inside an object or a string."""
    if isinstance(value, Members):
        yield from (inner for inner in value.values() if isinstance(inner, list))
    elif isinstance(value, list) and any(not isinstance(item, Number) for item in value):
        yield value
    elif isinstance(value, str) and "[" in value:
        yield from (inner for inner in json_objects(value).values if isinstance(inner, list))


def plain(key: str) -> str:
    """Key without case, spaces and punctuation, so that `User Query` equals `user_query`."""
    return re.sub(r"[\W_]+", "", key).lower()
