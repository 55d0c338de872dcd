"""Seed examples and corpora that a user gives in place of a stage: JSON lines, each read with its file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.labelled_lines import json_object, labelled_texts, record_of
from speed.data.records import Example, Kind, Prompt
from speed.data.text_files import text_lines

TEMPLATE = "given"
"""Name of the template of a prompt that was given as a text."""


class GivenSeed(NamedTuple):
    """What a junior learns from one line."""

    prompt: Prompt
    example: Example


def given_examples(file: Path) -> Iterator[Example]:
    """The examples of a corpus: records of a run's `examples.jsonl`, rows of a pool (rejected ones are skipped), or
    labelled records that also have a `task`; without a `kind` they count as retrieval.

    Raises:
        UserError: for a line that is no record.
    """
    for number, _, text in text_lines(file):
        where = f"{file}, line {number}"
        record = record_of(text, where) if text.strip() else None
        if record is not None:
            yield _example(record, where)


def given_seeds(file: Path) -> Iterator[GivenSeed]:
    """The seed examples of a file: rows of a run's seed data (rejected ones are skipped), or lines with a `prompt` and
    an `example`.

    Raises:
        UserError: for a line that is no seed example.
    """
    for number, _, text in text_lines(file):
        where = f"{file}, line {number}"
        row = json_object(text, where) if text.strip() else {"rejected": "blank"}
        if row.get("rejected") and not row.get("example"):
            continue
        prompt, record = row.get("prompt"), row.get("example")
        shown = prompt.get("text") if isinstance(prompt, dict) else prompt
        if not isinstance(shown, str) or not shown.strip() or not isinstance(record, dict):
            raise UserError(
                f'{where} is no seed example: give a "prompt" (a text) and an "example" (an object with kind, task, '
                "query, positive and negative)"
            )
        example = _example(record, where)
        slots = prompt.get("slots") if isinstance(prompt, dict) else None
        known = {str(name): str(value) for name, value in slots.items()} if isinstance(slots, dict) else {}
        yield GivenSeed(
            Prompt(text=shown, template=TEMPLATE, kind=example.kind, task=example.task, slots=known), example
        )


def _example(record: dict[str, Json], where: str) -> Example:
    texts = labelled_texts(record, where)
    kind, task = record.get("kind") or Kind.RETRIEVAL, record.get("task")
    if kind not in list(Kind):
        raise UserError(f"{where}: kind is {str(kind)[:40]!r}: it must be one of {', '.join(Kind)}")
    if not isinstance(task, str) or not task.strip():
        raise UserError(f"{where} has no task: give the instruction that stands in front of the query")
    negative = next(iter(texts.negatives), None)
    document = record.get("document")
    return Example(
        kind=Kind(kind),
        task=task,
        query=texts.query,
        positive=texts.positives[0],
        negative=negative,
        document=document if isinstance(document, str) else None,
    )
