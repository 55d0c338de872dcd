"""JSON schemas of the answers, for engines and providers with structured output.

A schema states what the prompt states and no more: the keys, their types and the candidates. It is made from the record
that the answer is parsed into, so an answer of this form is always accepted by the parser. The paper's teacher answered
in free text.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from speed.core.spec import Json, Spec
from speed.data.records import LEVELS, Kind, written_keys

_TEXT: Json = {"type": "string"}
ANSWERING = {"first": (True, False), "second": (False, True), "both": (True, True), "neither": (False, False)}
"""What a verdict on two documents may say, and whether the first and the second answer the query by it."""


class Form(Spec):
    """A named JSON schema. All its keys are required and no others allowed, as strict modes demand."""

    name: str
    body: Json


@lru_cache
def example_form(kind: Kind, grounded: bool = False) -> Form:
    """Schema of an example: the keys of its kind, each with a string.

    Args:
        grounded: whether a query for a given passage is asked for, and nothing else.
    """
    keys = written_keys(kind, grounded)
    return Form(name=f"{kind}_{'query' if grounded else 'example'}", body=_object(dict.fromkeys(keys, _TEXT)))


@lru_cache
def tasks_form() -> Form:
    """Schema of a list of tasks. The list stands under a key, since strict modes demand an object."""
    return Form(name="tasks", body=_object({"tasks": {"type": "array", "items": _TEXT}}))


@lru_cache
def judgement_form(candidates: int) -> Form:
    """Schema of a judgement. The reason comes first, as in the prompt, so that the verdict follows from it."""
    place: Json = {"type": "integer", "enum": list(range(candidates))}
    return Form(name="judgement", body=_object({"reason": _TEXT, "best": place, "worst": place}))


@lru_cache
def relevance_form() -> Form:
    """Schema of a verdict on two documents."""
    answer: Json = {"type": "string", "enum": list(ANSWERING)}
    return Form(name="relevance", body=_object({"reason": _TEXT, "answer": answer}))


@lru_cache
def graded_form() -> Form:
    """Schema of four documents by relevance."""
    return Form(name="graded", body=_object(dict.fromkeys(LEVELS, _TEXT)))


@lru_cache
def revision_form(kind: Kind, grounded: bool = False) -> Form:
    """Schema of a reason and a revised example; the example is an object, as in the paper's Figure 6."""
    body = _object({"reason": _TEXT, "revision": example_form(kind, grounded).body})
    return Form(name=f"{kind}_{'query_' if grounded else ''}revision", body=body)


def _object(properties: Mapping[str, Json]) -> Json:
    required = list(properties)
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}
