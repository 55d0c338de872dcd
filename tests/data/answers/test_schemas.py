"""Schemas allow what the parser accepts, and forbid what it rejects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from speed.data.answers.parse import (
    Judgement,
    example_json,
    parse_example,
    parse_judgement,
    parse_revision,
    parse_tasks,
)
from speed.data.answers.schemas import Form, example_form, judgement_form, revision_form, tasks_form
from speed.data.records import KEYS, Example, Kind, Rejected

jsonschema = pytest.importorskip("jsonschema")


def fits(answer: Any, form: Form) -> bool:
    validator: Any = jsonschema.Draft202012Validator(form.body)
    return bool(validator.is_valid(answer))


def record(kind: Kind) -> Example:
    return Example(kind=kind, task="t", query="a", positive="b", negative="c" if KEYS[kind].negative else None)


@pytest.mark.parametrize("kind", list(Kind))
def test_an_example_in_its_form_is_read_and_any_other_is_not(kind: Kind) -> None:
    right = json.loads(example_json(record(kind)))
    assert fits(right, example_form(kind))
    for wrong in ({**right, "more": "x"}, dict(list(right.items())[1:]), {**right, next(iter(right)): None}):
        assert not fits(wrong, example_form(kind))
        assert isinstance(parse_example(kind, "t", json.dumps(wrong)), Rejected)
    told = {"reason": "r", "revision": right}
    assert fits(told, revision_form(kind))
    assert parse_revision(kind, "t", json.dumps(told)) == ("r", record(kind))
    assert not fits({"reason": "r", "revision": {**right, "more": "x"}}, revision_form(kind))


def test_judgements_and_tasks_in_their_forms_are_read() -> None:
    assert set(judgement_form(3).body["properties"]) == set(Judgement.model_fields)
    for best in range(-1, 5):
        answer = {"reason": "r", "best": best, "worst": 1 if best != 1 else 0}
        assert fits(answer, judgement_form(3)) is isinstance(parse_judgement(json.dumps(answer), 3), Judgement)
    assert fits({"tasks": ["a", "b"]}, tasks_form())
    assert parse_tasks(json.dumps({"tasks": ["a", "b"]})) == ("a", "b")
    assert not fits(["a", "b"], tasks_form())


def test_forms_are_as_strict_modes_want_them() -> None:
    def objects(body: Any) -> list[Any]:
        found = [body] if body.get("type") == "object" else []
        return found + [deeper for inner in body.get("properties", {}).values() for deeper in objects(inner)]

    forms = [tasks_form(), judgement_form(5), *(form(kind) for kind in Kind for form in (example_form, revision_form))]
    for form in forms:
        assert form.body["type"] == "object"
        for body in objects(form.body):
            assert body["additionalProperties"] is False
            assert body["required"] == list(body["properties"])
    assert len({form.name for form in forms}) == 12
