"""Reads a model's answer into a record, or says why it is none. Pure, so it can be run again over a journal for free.

Whatever the text is, nothing raises: the result is a record or a `Rejected` with a cause of `CAUSES`. Syntax is mended,
keys are recognised in other spellings, and the text inside a value is never changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from speed.core.spec import Spec
from speed.data.answers.json_values import json_objects, lists, plain, unwrapped
from speed.data.answers.lenient_json import Members, Value
from speed.data.records import KEYS, Example, Kind, Rejected

CAUSES = {
    "empty": "no text at all",
    "content_filter": "the provider withheld the text",
    "truncated": "the text ends before the object does",
    "refusal": "the model declined",
    "no_json": "no JSON in the text",
    "bad_syntax": "JSON that cannot be read without guessing",
    "bad_schema": "other keys or types than asked for, or an empty value",
    "bad_index": "a judgement that names no candidate, or the same one twice",
    "several": "several different answers in one text",
    "bad_text": "a text that is no Unicode (lone surrogates)",
}
"""Why an answer is no record."""

_STOPPED = {"length": "truncated", "max_tokens": "truncated", "content_filter": "content_filter"}
"""Finish reasons after which a text is no whole one, by cause."""
_FINISHED = {"stop", "end_turn", "stop_sequence", "eos"}
"""Finish reasons that say that the model was done: only then may its last bracket be missing."""
_REFUSAL = re.compile(
    r"\b(?:I(?:['’]m| am)? (?:sorry|unable to|not able to)|I (?:can(?:no|['’])t|cannot|won['’]t|will not|must decline)|"
    r"as an AI|(?:un)?able to (?:assist|comply|help) with|against my guidelines)\b",
    re.IGNORECASE,
)


class Judgement(Spec):
    """The teacher's verdict on a list of candidates."""

    best: int
    """Place in the list as shown, from 0."""
    worst: int
    reason: str = ""


def rendered(example: Example) -> str:
    """The JSON object of an example, as canonical text; `example()` reads it back unchanged."""
    return json.dumps(example.fields(), ensure_ascii=False)


def example(kind: Kind, task: str, text: str, finish_reason: str = "") -> Example | Rejected:
    """The training example in an answer to a data prompt."""
    keys = KEYS[kind]

    def read(value: Value) -> Example | Rejected:
        return _example(kind, task, value)

    return _only(text, finish_reason, unwrapped(keys.all), read)


def mended(text: str) -> tuple[str, ...]:
    """What had to be overlooked or mended to read an answer: keys of `lenient_json.MENDED`, in order."""
    return tuple(sorted(json_objects(text).mended))


def tasks(text: str, finish_reason: str = "") -> tuple[str, ...] | Rejected:
    """The tasks in an answer to a brainstorming prompt, in order and each once."""
    return _only(text, finish_reason, lists, _tasks)


def judgement(text: str, candidates: int, finish_reason: str = "") -> Judgement | Rejected:
    """Best and worst of `candidates` answers. Further keys are allowed; an index out of range is never shifted."""

    def read(value: Value) -> Judgement | Rejected:
        return _judgement(value, candidates)

    return _only(text, finish_reason, unwrapped(("best", "worst")), read)


def revision(kind: Kind, task: str, text: str, finish_reason: str = "") -> tuple[str, Example] | Rejected:
    """Reason and repaired example; the repair is an object, or a string that holds one in JSON or in Python's style."""

    def read(value: Value) -> tuple[str, Example] | Rejected:
        return _revision(kind, task, value)

    return _only(text, finish_reason, unwrapped(("revision",)), read)


T = TypeVar("T")


def _only(
    text: str,
    finish_reason: str,
    candidates: Callable[[Value], Iterator[Value]],
    read: Callable[[Value], T | Rejected],
) -> T | Rejected:
    """The one record among the values of a text."""
    stopped = _STOPPED.get(finish_reason)
    if not text or text.isspace():
        return _rejected(stopped or "empty", finish_reason)
    reading = json_objects(text)
    whole = reading.values[:-1] if reading.unclosed and finish_reason not in _FINISHED else reading.values
    results = [read(value) for outer in whole for value in candidates(outer)]
    records = [result for result in results if not isinstance(result, Rejected)]
    if records:
        same = all(record == records[0] for record in records[1:])
        return records[0] if same else _rejected("several", f"{len(records)} different answers")
    if stopped:
        return _rejected(stopped, text[-80:])
    if reading.fault == "truncated" or len(whole) < len(reading.values):
        return _rejected("truncated", text[-80:])
    if results:
        return next(result for result in results if isinstance(result, Rejected))
    if _REFUSAL.search(text[:400]):
        return _rejected("refusal", text[:160])
    begun = any(isinstance(value, (dict, list)) for value in reading.values)
    return _rejected(reading.fault or ("bad_schema" if begun else "no_json"), text[:160])


def _rejected(cause: str, detail: object) -> Rejected:
    return Rejected(cause=cause, detail=str(detail).encode("utf-8", "backslashreplace").decode())


def _by_key(value: Members, keys: tuple[str, ...]) -> dict[str, Value] | str:
    """The values of the keys, which may be spelt otherwise; or what is wrong."""
    if value.repeated is not None:
        return f"the key {value.repeated!r} stands there twice with different values"
    if len(value) == len(keys) and all(key in value for key in keys):
        return value
    spelt = {plain(key): key for key in keys}
    found: dict[str, Value] = {}
    for key, inner in value.items():
        name = spelt.get(plain(key), key)
        if name in found:
            return f"the key {name!r} stands there twice"
        found[name] = inner
    return found


def _text(value: Any) -> str | Rejected:
    """A value as text: a string, or a number by its digits."""
    if not isinstance(value, str):
        return _rejected("bad_schema", f"a string was asked for, not {json.dumps(value)[:80]}")
    if not value or value.isspace():
        return _rejected("bad_schema", "an empty value")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return _rejected("bad_text", f"lone surrogates in {value[:80]!a}")
    return str(value)


def _example(kind: Kind, task: str, value: Members) -> Example | Rejected:
    keys = KEYS[kind]
    names = keys.all
    found = _by_key(value, names)
    if isinstance(found, str):
        return _rejected("bad_schema", found)
    if found is not value and found.keys() != set(names):
        missing, extra = sorted(set(names) - found.keys()), sorted(found.keys() - set(names))
        return _rejected("bad_schema", f"missing {missing}, not asked for {extra}")
    texts: dict[str, str] = {}
    for key in names:
        text = _text(found[key])
        if isinstance(text, Rejected):
            return _rejected(text.cause, f"{key}: {text.detail}")
        texts[key] = text
    negative = texts[keys.negative] if keys.negative else None
    return Example(kind=kind, task=task, query=texts[keys.query], positive=texts[keys.positive], negative=negative)


def _tasks(value: list[Value]) -> tuple[str, ...] | Rejected:
    """A list of strings, or of objects with one string each."""
    found: list[str] = []
    for item in value:
        text = _text(next(iter(item.values())) if isinstance(item, Members) and len(item) == 1 else item)
        if isinstance(text, Rejected):
            return text
        found.append(text)
    return tuple(dict.fromkeys(found)) if found else _rejected("bad_schema", "an empty list")


def _judgement(value: Members, candidates: int) -> Judgement | Rejected:
    found = _by_key(value, ("reason", "best", "worst"))
    if isinstance(found, str):
        return _rejected("bad_schema", found)
    places: list[int] = []
    for key in ("best", "worst"):
        if key not in found:
            return _rejected("bad_schema", f"missing {key!r}")
        if not isinstance(found[key], str) or not re.fullmatch(r"\s*-?[0-9]{1,9}(?:\.0{1,9})?\s*", found[key]):
            return _rejected("bad_schema", f"{key}: an index was asked for, not {json.dumps(found[key])[:80]}")
        place = int(float(found[key]))
        if not 0 <= place < candidates:
            return _rejected("bad_index", f"{key} is {place}, and the candidates are 0..{candidates - 1}")
        places.append(place)
    if places[0] == places[1]:
        return _rejected("bad_index", f"best and worst are both {places[0]}")
    reason = _text(found.get("reason", "none"))
    reason = "" if isinstance(reason, Rejected) or "reason" not in found else reason
    return Judgement(best=places[0], worst=places[1], reason=reason)


def _revision(kind: Kind, task: str, value: Members) -> tuple[str, Example] | Rejected:
    found = _by_key(value, ("reason", "revision"))
    if isinstance(found, str) or "revision" not in found:
        return _rejected("bad_schema", found if isinstance(found, str) else "missing 'revision'")
    results = [_example(kind, task, inner) for inner in unwrapped(KEYS[kind].all)(found["revision"])]
    records = [result for result in results if isinstance(result, Example)]
    if not records:
        return next(iter(results), None) or _rejected("bad_schema", "the revision holds no object")  # type: ignore[return-value]
    if any(record != records[0] for record in records):
        return _rejected("several", f"{len(records)} different revisions")
    reason = _text(found.get("reason"))
    return ("" if isinstance(reason, Rejected) else reason), records[0]
