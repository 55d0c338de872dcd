"""Parse a model's answer into a record, or reject it with a cause.

Nothing raises, whatever the text: the result is a record, or a `Rejected` with a cause of `CAUSES`. Syntax is mended
and keys are recognised in other spellings; the text of a value is never changed. All functions are pure, so answers of
a journal can be parsed again for free.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from speed.core.spec import Spec
from speed.data.answers.json_in_text import json_objects, lists, plain, unwrapped
from speed.data.answers.lenient_json import Members, Value
from speed.data.answers.reasoning import without_reasoning
from speed.data.answers.schemas import ANSWERING
from speed.data.prompts.worked_examples import is_of_worked_example
from speed.data.records import KEYS, LEVELS, Example, Ground, Kind, Rejected, written_keys

CAUSES = {
    "empty": "no text at all, or none behind the reasoning",
    "unfinished_reasoning": "reasoning that began and never ended, whatever drafts it holds",
    "content_filter": "the provider withheld the text",
    "truncated": "the text ends before the object does",
    "refusal": "the model declined",
    "no_json": "no JSON in the text",
    "bad_syntax": "JSON that cannot be read without guessing",
    "bad_schema": "other keys or types than asked for, or an empty value",
    "bad_index": "a judgement that names no candidate, or the same one twice",
    "several": "several different lists side by side in one object",
    "same_texts": "documents of several levels of relevance that are one text",
    "worked_example": "a text of a worked example (teacher.examples) in place of one of its own",
    "bad_text": "a text that is no Unicode (lone surrogates)",
}
"""Causes of rejection, each with its meaning."""

SEVERAL = "several_records"
"""Key of `lenient_json.MENDED`, and the count of answers with several different records."""
_STOPPED = {"length": "truncated", "max_tokens": "truncated", "content_filter": "content_filter"}
"""Finish reason of an incomplete text -> cause of its rejection."""
_FINISHED = {"stop", "end_turn", "stop_sequence", "eos"}
"""Finish reasons of a complete text. Only in a complete text may the last bracket be missing."""
_REFUSAL = re.compile(
    r"\b(?:I(?:['’]m| am)? (?:sorry|unable to|not able to)|I (?:can(?:no|['’])t|cannot|won['’]t|will not|must decline)|"
    r"as an AI|(?:un)?able to (?:assist|comply|help) with|against my guidelines)\b",
    re.IGNORECASE,
)


class Judgement(Spec):
    """The judge's verdict on a list of candidates."""

    best: int
    """Place in the list as it was shown, from 0."""
    worst: int
    reason: str = ""


def example_json(example: Example) -> str:
    """JSON object of an example as canonical text; `parse_example` reads it back unchanged."""
    return json.dumps(example.fields(), ensure_ascii=False)


def parse_example(
    kind: Kind,
    task: str,
    text: str,
    finish_reason: str = "",
    met: Counter[str] | None = None,
    ground: Ground | None = None,
) -> Example | Rejected:
    """Parse the training example in an answer to a data prompt.

    Args:
        ground: here and in `parse_revision` the passages of a prompt that asks for a query alone.
        met: counts `SEVERAL`, here and in the other functions, where an answer holds several different records.
    """
    candidates = unwrapped(written_keys(kind, ground is not None))

    def read(value: Value) -> Iterator[Example | Rejected]:
        return (_example(kind, task, found, ground) for found in candidates(value))

    return _last(text, finish_reason, read, met)


def mended_in(text: str) -> tuple[str, ...]:
    """What must be skipped or mended to read the JSON of an answer: sorted keys of `lenient_json.MENDED`."""
    return tuple(sorted(json_objects(text).mended))


def parse_tasks(text: str, finish_reason: str = "", met: Counter[str] | None = None) -> tuple[str, ...] | Rejected:
    """Parse the tasks in an answer to a brainstorm prompt: in order, each once."""

    def read(value: Value) -> Iterator[tuple[str, ...] | Rejected]:
        results = [_tasks(found) for found in lists(value)]
        tasks = [found for found in results if not isinstance(found, Rejected)]
        # Lists under different keys of one object are no versions of one another, so that none of them is the last.
        if isinstance(value, Members) and any(found != tasks[0] for found in tasks[1:]):
            yield _rejected("several", f"{len(tasks)} different lists")
        else:
            yield from results

    return _last(text, finish_reason, read, met)


def parse_judgement(
    text: str, candidates: int, finish_reason: str = "", met: Counter[str] | None = None
) -> Judgement | Rejected:
    """Parse the best and worst of `candidates` answers. Other keys are allowed; an index out of range is rejected."""
    verdicts = unwrapped(("best", "worst"))

    def read(value: Value) -> Iterator[Judgement | Rejected]:
        return (_judgement(found, candidates) for found in verdicts(value))

    return _last(text, finish_reason, read, met)


def parse_relevance(
    text: str, finish_reason: str = "", met: Counter[str] | None = None
) -> tuple[bool, bool] | Rejected:
    """Parse a verdict on two documents: whether the first, and whether the second, answers the query."""
    verdicts = unwrapped(("answer",))

    def read(value: Value) -> Iterator[tuple[bool, bool] | Rejected]:
        return (_relevance(found) for found in verdicts(value))

    return _last(text, finish_reason, read, met)


def parse_graded(text: str, finish_reason: str = "", met: Counter[str] | None = None) -> tuple[str, ...] | Rejected:
    """Parse a document for each of `LEVELS`, in their order; equal texts are rejected, as one of them is not what was
    asked for."""
    documents = unwrapped(LEVELS)

    def read(value: Value) -> Iterator[tuple[str, ...] | Rejected]:
        return (_graded(found) for found in documents(value))

    return _last(text, finish_reason, read, met)


def parse_revision(
    kind: Kind,
    task: str,
    text: str,
    finish_reason: str = "",
    met: Counter[str] | None = None,
    ground: Ground | None = None,
) -> tuple[str, Example] | Rejected:
    """Parse reason and revised example: an object, or a string that holds one in JSON or in Python's notation."""
    revisions = unwrapped(("revision",))

    def read(value: Value) -> Iterator[tuple[str, Example] | Rejected]:
        return (revision for found in revisions(value) for revision in _revisions(kind, task, found, ground))

    return _last(text, finish_reason, read, met)


T = TypeVar("T")


def _last(
    text: str, finish_reason: str, read: Callable[[Value], Iterator[T | Rejected]], met: Counter[str] | None
) -> T | Rejected:
    """The last record among the values of a text, since drafts stand before what they become; or reject the text."""
    stopped = _STOPPED.get(finish_reason)
    if not text or text.isspace():
        return _rejected(stopped or "empty", finish_reason)
    reading = json_objects(text)
    whole = reading.values[:-1] if reading.unclosed and finish_reason not in _FINISHED else reading.values
    results = [result for outer in whole for result in read(outer)]
    records = [result for result in results if not isinstance(result, Rejected)]
    if records:
        if met is not None and any(record != records[-1] for record in records):
            met[SEVERAL] += 1
        return records[-1]
    if reading.fault == "unfinished_reasoning" and stopped != "content_filter":
        return _rejected(reading.fault, text[-80:])
    if stopped:
        return _rejected(stopped, text[-80:])
    if reading.fault == "truncated" or len(whole) < len(reading.values):
        return _rejected("truncated", text[-80:])
    if results:
        return next(result for result in results if isinstance(result, Rejected))
    if _REFUSAL.search(without_reasoning(text).text[:400]):
        return _rejected("refusal", text[:160])
    begun = any(isinstance(value, (dict, list)) for value in reading.values)
    return _rejected(reading.fault or ("bad_schema" if begun else "no_json"), text[:160])


def _rejected(cause: str, detail: object) -> Rejected:
    return Rejected(cause=cause, detail=str(detail).encode("utf-8", "backslashreplace").decode())


def _by_key(value: Members, keys: tuple[str, ...]) -> dict[str, Value] | str:
    """The object with its keys in our spelling; or, as a string, what is wrong with them."""
    if value.repeated is not None:
        return f"the key {value.repeated!r} occurs twice with different values"
    if len(value) == len(keys) and all(key in value for key in keys):
        return value
    spelt = {plain(key): key for key in keys}
    renamed: dict[str, Value] = {}
    for key, inner in value.items():
        name = spelt.get(plain(key), key)
        if name in renamed:
            return f"the key {name!r} occurs twice"
        renamed[name] = inner
    return renamed


def _text(value: Any) -> str | Rejected:
    """A value as text: a string, or a number with the digits that were written."""
    if not isinstance(value, str):
        return _rejected("bad_schema", f"a string was asked for, not {json.dumps(value)[:80]}")
    if not value or value.isspace():
        return _rejected("bad_schema", "an empty value")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return _rejected("bad_text", f"lone surrogates in {value[:80]!a}")
    return str(value)


def _texts(members: Mapping[str, Value], names: Sequence[str]) -> dict[str, str] | Rejected:
    """The texts of some members, by name; or the fault of the first that is no text, with its name."""
    texts: dict[str, str] = {}
    for name in names:
        text = _text(members[name])
        if isinstance(text, Rejected):
            return _rejected(text.cause, f"{name}: {text.detail}")
        if is_of_worked_example(text):
            return _rejected("worked_example", f"{name}: {text[:80]}")
        texts[name] = text
    return texts


def _example(kind: Kind, task: str, value: Members, ground: Ground | None) -> Example | Rejected:
    keys = KEYS[kind]
    names = written_keys(kind, ground is not None)
    members = _by_key(value, names)
    if isinstance(members, str):
        return _rejected("bad_schema", members)
    if members is not value and members.keys() != set(names):
        missing, extra = sorted(set(names) - members.keys()), sorted(members.keys() - set(names))
        return _rejected("bad_schema", f"missing {missing}, not asked for {extra}")
    texts = _texts(members, names)
    if isinstance(texts, Rejected):
        return texts
    if ground is not None:
        query = texts[keys.query]
        return Example(
            kind=kind, task=task, query=query, positive=ground.text, negative=ground.negative, document=ground.document
        )
    negative = texts[keys.negative] if keys.negative else None
    return Example(kind=kind, task=task, query=texts[keys.query], positive=texts[keys.positive], negative=negative)


def _tasks(value: list[Value]) -> tuple[str, ...] | Rejected:
    """A list of strings, or of objects with one string each."""
    tasks: list[str] = []
    for item in value:
        text = _text(next(iter(item.values())) if isinstance(item, Members) and len(item) == 1 else item)
        if isinstance(text, Rejected):
            return text
        tasks.append(text)
    if not tasks:
        return _rejected("bad_schema", "an empty list")
    own = [task for task in tasks if not is_of_worked_example(task)]
    return tuple(dict.fromkeys(own)) if own else _rejected("worked_example", tasks[0][:80])


def _judgement(value: Members, candidates: int) -> Judgement | Rejected:
    members = _by_key(value, ("reason", "best", "worst"))
    if isinstance(members, str):
        return _rejected("bad_schema", members)
    places: list[int] = []
    for key in ("best", "worst"):
        if key not in members:
            return _rejected("bad_schema", f"missing {key!r}")
        if not isinstance(members[key], str) or not re.fullmatch(r"\s*-?[0-9]{1,9}(?:\.0{1,9})?\s*", members[key]):
            return _rejected("bad_schema", f"{key}: an index was asked for, not {json.dumps(members[key])[:80]}")
        place = int(float(members[key]))
        if not 0 <= place < candidates:
            return _rejected("bad_index", f"{key} is {place}, and the candidates are 0..{candidates - 1}")
        places.append(place)
    if places[0] == places[1]:
        return _rejected("bad_index", f"best and worst are both {places[0]}")
    reason = _text(members.get("reason", "none"))
    reason = "" if isinstance(reason, Rejected) or "reason" not in members else reason
    return Judgement(best=places[0], worst=places[1], reason=reason)


def _relevance(value: Members) -> tuple[bool, bool] | Rejected:
    members = _by_key(value, ("reason", "answer"))
    if isinstance(members, str) or "answer" not in members:
        return _rejected("bad_schema", members if isinstance(members, str) else "missing 'answer'")
    said = _text(members["answer"])
    if isinstance(said, Rejected):
        return said
    named = re.sub(r"[^a-z]", "", said.casefold())
    if named not in ANSWERING:
        return _rejected("bad_schema", f"answer: one of {', '.join(ANSWERING)} was asked for, not {said[:80]!r}")
    return ANSWERING[named]


def _graded(value: Members) -> tuple[str, ...] | Rejected:
    members = _by_key(value, LEVELS)
    if isinstance(members, str):
        return _rejected("bad_schema", members)
    if missing := [level for level in LEVELS if level not in members]:
        return _rejected("bad_schema", f"missing {missing}")
    texts = _texts(members, LEVELS)
    if isinstance(texts, Rejected):
        return texts
    seen = set[str]()
    for level, text in texts.items():
        same = " ".join(text.casefold().split())
        if same in seen:
            return _rejected("same_texts", f"{level} and another are {text[:80]!r}")
        seen.add(same)
    return tuple(texts.values())


def _revisions(
    kind: Kind, task: str, value: Members, ground: Ground | None
) -> Iterator[tuple[str, Example] | Rejected]:
    members = _by_key(value, ("reason", "revision"))
    if isinstance(members, str) or "revision" not in members:
        yield _rejected("bad_schema", members if isinstance(members, str) else "missing 'revision'")
        return
    given = _text(members.get("reason"))
    reason = "" if isinstance(given, Rejected) else given
    candidates = unwrapped(written_keys(kind, ground is not None))
    results = [_example(kind, task, inner, ground) for inner in candidates(members["revision"])]
    for result in results:
        yield result if isinstance(result, Rejected) else (reason, result)
    if not results:
        yield _rejected("bad_schema", "the revision holds no object")
