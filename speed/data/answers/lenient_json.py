"""Read almost-JSON, as language models write it when they are asked for a JSON object.

Only syntax is mended: delimiting quotes (Python's, typographic ones), missing or extra commas, comments, bare keys,
unescaped quotes inside a text, invalid escapes (`\\alpha` stays `\\alpha`). The characters of a value are never
changed. A text that is cut off is not completed, and an ambiguous one is not guessed: both raise `ReadError`. Nothing
is evaluated, and the time is linear in the length of any text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias

Value: TypeAlias = Any
"""str, Number, bool, None, list or dict."""

MENDED = {
    "around": "text around the JSON: a fence, a thought, prose, other JSON",
    "several_records": "several whole records, of which the last counts",
    "opening": "the first bracket was missing",
    "closing": "the last brackets were missing",
    "escaped": "the whole object was escaped, as inside a string",
    "marks": "a comma was missing or too many, or another mark stood for it or for a colon",
    "comments": "comments, or marks of byte order",
    "bare_keys": "keys without quotes",
    "quotes": "texts between other quotes than JSON's",
    "inner_quotes": "quotes inside a text that were not escaped",
    "escapes": "escapes that JSON does not know",
    "words": "Python's True, False or None",
}
"""What can be mended in an answer, by name."""


class Number(str):
    """A JSON number with the digits that were written, so that the label 1.50 stays 1.50."""

    __slots__ = ()


class Members(dict[str, Value]):
    """A JSON object that remembers a key it had twice with different values."""

    repeated: str | None = None


def members(pairs: Sequence[tuple[str, Value]]) -> Members:
    """Object of some pairs. The last value of a repeated key counts, as in JSON."""
    result = Members(pairs)
    if len(result) < len(pairs):
        result.repeated = next((key for key, value in pairs if result[key] != value), None)
    return result


class ReadError(Exception):
    """The text cannot be read from this position on."""

    def __init__(self, cause: Literal["truncated", "bad_syntax"], position: int) -> None:
        super().__init__(f"{cause} at character {position}")
        self.cause = cause
        self.position = position


_CLOSERS = {'"': '"', "'": "'", "“": '”“"', "”": '”"', "‘": "’'", "’": "’'", "„": '“”"', "`": "`'", "«": "»"}
_QUOTES = "".join(_CLOSERS)
_NEXT_STOP = {opener: re.compile(rf"\\.|[{re.escape(closers)}]", re.DOTALL) for opener, closers in _CLOSERS.items()}
_COMMENT = r"//[^\n]{0,200}\n|/\*[^*]{0,200}\*/"
_GAP = rf"(?:\s|\ufeff|{_COMMENT})*+"
_SPACE = re.compile(_GAP)
_ANY_KEY = rf"(?:[{_QUOTES}][^{_QUOTES}\n]{{1,64}}[{_QUOTES}»’”]|[A-Za-z_]\w{{0,63}}+)\s*+[:：]"
_END = r"[,，]?\s*+\Z"
_ENDS = {
    "key": re.compile(r"\s*+[:：]"),
    "member": re.compile(rf"{_GAP}(?:(?:[,，;]{_GAP})*+{_ANY_KEY}|[,，]?{_GAP}\}}|{_END})"),
    "item": re.compile(rf"[ \t]*+\n\s*+[{_QUOTES}]|{_GAP}(?:(?:[,，;]{_GAP})++[{_QUOTES}\[{{]|[,，]?{_GAP}\]|{_END})"),
}
"""What may follow a text, by its role. Possessive repeats keep the time linear."""
_BRACKETS = {
    "}": re.compile(rf"(?P<open>\{{\s*+[{_QUOTES}])|[{_QUOTES}»’”]\s*+[,，]?\s*+\}}"),
    "]": re.compile(rf"(?P<open>\[\s*+[{_QUOTES}{{\[])|[{_QUOTES}»’”]\s*+[,，]?\s*+\]"),
}
_INNER_COMMA = re.compile(rf"[{_QUOTES}»’”]\s*+[,，;]\s*+\Z")
_INNER_KEY = re.compile(rf"[{_QUOTES}»’”]\s*+[:：]")
_BARE_KEY = re.compile(r"[A-Za-z_]\w{0,63}(?=\s*[:：])")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_WORD = re.compile(r"(?:true|false|null|True|False|None)\b")
_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\.", re.DOTALL)
_MEANING = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_IN_JSON = _MEANING.keys() - {"'"}
DEEPEST = 40
"""Objects and lists inside one another; a value that lies deeper is no answer."""
_LONGEST_KEY = 100
_MOST_BRACKETS = 200


class Reader:
    """Reads the value that begins at `position`, and moves `position` behind it."""

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position
        self.keys = 0
        """Number of keys and items read so far; 0 if this may be no JSON at all."""
        self.strained = False
        """Whether a text contained unescaped quotes, so that any quote may be part of a text."""
        self.unclosed = False
        """Whether the text ended behind a complete value, with only closing brackets missing."""
        self.mended: set[str] = set()
        """Keys of `MENDED`."""

    def value(self, role: Literal["member", "item"] = "item", depth: int = 0) -> Value:
        """Read the value at `position`.

        Raises:
            ReadError: with the position from which it cannot be read.
        """
        first = self._peek()
        if first == "{":
            return self._object(depth + 1)
        if first == "[":
            return self._list(depth + 1)
        if first in _CLOSERS:
            return self._string(role)
        if match := _NUMBER.match(self.text, self.position):
            self.position = match.end()
            return Number(match.group())
        if match := _WORD.match(self.text, self.position):
            self.position = match.end()
            self._mend("words", match.group() in ("True", "False", "None"))
            return _WORDS[match.group()]
        raise self._unreadable("bad_syntax" if first else "truncated")

    def _object(self, depth: int) -> Members:
        pairs: list[tuple[str, Value]] = []
        while not self._closed("}", depth, bool(pairs)):
            quoted = self._peek() in _CLOSERS
            key = self._key()
            self._skip()
            self.keys += quoted
            if self._peek() not in (":", "："):
                raise self._unreadable("bad_syntax" if self._peek() else "truncated")
            self._mend("marks", self._peek() != ":")
            self.position += 1
            self._skip()
            pairs.append((key, self.value("member", depth)))
            self.keys += 1
        return members(pairs)

    def _list(self, depth: int) -> list[Value]:
        items: list[Value] = []
        while not self._closed("]", depth, bool(items)):
            items.append(self.value("item", depth))
            self.keys += 1
        return items

    def _closed(self, bracket: str, depth: int, begun: bool) -> bool:
        """Skip the opening bracket or a comma. True behind the closing bracket, or if only that one is missing."""
        if depth > DEEPEST:
            self.keys += 1
            raise self._unreadable("bad_syntax")
        self.position += not begun
        self._skip()
        commas = ""
        while self._peek() in (",", "，", ";"):
            commas += self._peek()
            self.position += 1
            self._skip()
        self._mend("marks", commas != ("," if begun and self._peek() not in ("", bracket) else ""))
        if self._peek() == bracket:
            self.position += 1
            return True
        if not self._peek() and not begun:
            raise self._unreadable("truncated")
        if not self._peek() and self.strained:
            raise self._unreadable("truncated")
        self.unclosed = not self._peek()
        self._mend("closing", self.unclosed)
        return self.unclosed

    def _key(self) -> str:
        if self._peek() in _CLOSERS:
            return self._string("key")
        if match := _BARE_KEY.match(self.text, self.position):
            self.position = match.end()
            self._mend("bare_keys")
            return match.group()
        raise self._unreadable("bad_syntax")

    def _string(self, role: Literal["key", "member", "item"]) -> str:
        """Read a quoted text. A quote ends it if what follows may follow a text here; otherwise it is part of it."""
        text, stops, ends = self.text, _NEXT_STOP[self.text[self.position]], _ENDS[role]
        start = self.position + 1
        strained = False
        stop = stops.search(text, start)
        while stop:
            if text[stop.start()] != "\\":
                if ends.match(text, stop.end()):
                    break
                strained = True
            if role == "key" and stop.end() > start + _LONGEST_KEY:
                raise self._unreadable("bad_syntax")
            stop = stops.search(text, stop.end())
        else:
            raise ReadError("truncated", len(text))
        if role != "key" and strained:
            self.strained = True
            if _INNER_KEY.search(text, start, stop.start() + 1) or _INNER_COMMA.search(text, start, stop.start()):
                raise ReadError("bad_syntax", stop.end())
        self.position = stop.end()
        raw = text[start : stop.start()]
        self._mend("quotes", text[start - 1] != '"' or text[stop.start()] != '"')
        self._mend("inner_quotes", strained)
        self._mend("escapes", "\\" in raw and any(_unknown(escape, _IN_JSON) for escape in _ESCAPE.findall(raw)))
        return _unescaped(raw)

    def _mend(self, name: str, was_needed: bool = True) -> None:
        if was_needed:
            self.mended.add(name)

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.position)
        if match:
            self._mend("comments", not match.group().isspace() and match.end() > match.start())
            self.position = match.end()

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _unreadable(self, cause: Literal["truncated", "bad_syntax"]) -> ReadError:
        return ReadError(cause, self.position)


def ends_inside(text: str, position: int) -> bool:
    """Whether a value that was read up to `position` may have ended inside one of its own texts.

    Then more objects or lists end behind it than begin, as in `{"a": "the set {"x"} of Python"}`.
    """
    brackets = _BRACKETS.get(text[position - 1 : position])
    open_ones = 0
    for bracket in islice(brackets.finditer(text, position), _MOST_BRACKETS) if brackets else ():
        open_ones += 1 if bracket["open"] else -1
        if open_ones < 0:
            return True
    return False


def _unknown(escape: str, known: Container[str] = _MEANING) -> bool:
    return len(escape) == 2 and escape[1] not in known


def _unescaped(raw: str) -> str:
    """Replace the escapes of a quoted text.

    An escape that JSON does not know keeps its backslash. It shows that the writer does not escape backslashes, so
    `\\beta` and `\\frac` in the same text are not read as backspace and form feed.
    """
    if "\\" not in raw:
        return raw
    escapes = _ESCAPE.findall(raw)
    careless = any(map(_unknown, escapes))

    def meaning(match: re.Match[str]) -> str:
        escape = match.group()
        if len(escape) > 2:
            return str(json.loads(f'"{escape}"'))
        if careless and escape[1] in "bf" and raw[match.end() : match.end() + 1].isalpha():
            return escape
        return _MEANING.get(escape[1], escape)

    return _ESCAPE.sub(meaning, raw)
