"""The form of each answer as a JSON schema, for providers with structured output.

A schema says what the prompt says and no more: the keys, their types, and which candidates there are. It comes from
what the answer is read into, so an answer in this form is a record. The paper's teacher answered in free text.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from speed.core.spec import Json, Spec
from speed.data.records import KEYS, Kind

_TEXT: Json = {"type": "string"}


class Form(Spec):
    """A named JSON schema. Every key is required and no other is allowed, as strict modes want it."""

    name: str
    body: Json


@lru_cache
def example_form(kind: Kind) -> Form:
    """An example of a kind: its keys, all texts."""
    return Form(name=f"{kind}_example", body=_object(dict.fromkeys(KEYS[kind].all, _TEXT)))


@lru_cache
def tasks_form() -> Form:
    """A list of tasks, under a key: strict modes want an object outermost."""
    return Form(name="tasks", body=_object({"tasks": {"type": "array", "items": _TEXT}}))


@lru_cache
def judgement_form(candidates: int) -> Form:
    """A judgement of so many candidates; the reason first, as in the prompt, so that the verdict follows from it."""
    place: Json = {"type": "integer", "enum": list(range(candidates))}
    return Form(name="judgement", body=_object({"reason": _TEXT, "best": place, "worst": place}))


@lru_cache
def revision_form(kind: Kind) -> Form:
    """A reason and a repaired example; the repair is an object, as in the paper's Figure 6."""
    return Form(name=f"{kind}_revision", body=_object({"reason": _TEXT, "revision": example_form(kind).body}))


def _object(properties: Mapping[str, Json]) -> Json:
    required = list(properties)
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}
