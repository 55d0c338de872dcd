"""Seed examples and corpora that a user gives in place of a stage: JSON lines, each read with its file and line."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, field_validator

from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.spec import Json, Spec
from speed.data.labelled_lines import json_object, labelled_texts, record_of
from speed.data.records import Example, Kind, Prompt
from speed.data.text_files import text_lines

TEMPLATE = "given"
"""Name of the template of a prompt that was given as a text."""
CORPUS = "stages/dedup/examples.jsonl"
"""The corpus in the folder of a run."""


def corpus_file(path: Content) -> Content:
    """The file of a corpus; of the folder of a run, what its deduplication left.

    Raises:
        ValueError: for a folder without that.
    """
    folder = path.path.expanduser()
    if not folder.is_dir():
        return path
    if not (folder / CORPUS).is_file():
        raise ValueError(f"the folder has no {CORPUS}: give the folder of a finished run, or a file")
    return Content(path=folder / CORPUS)


class Part(Spec):
    """One of the files that a corpus is mixed from: what one writer wrote, or a labelled set."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$", max_length=200)
    """Of the writer or the set; each record of the mixed corpus is told to be of it."""
    path: Content
    """JSON lines, or the folder of a run, for what its deduplication left."""
    weight: float = Field(1.0, gt=0)
    """Its share, beside the weights of the others."""
    tasks: tuple[str, ...] = ()
    """Instructions for records that state none, taken in turn."""
    kind: Kind = Kind.RETRIEVAL
    """Kind of records that state none."""

    @field_validator("path")
    @classmethod
    def _of_run(cls, path: Content) -> Content:
        return corpus_file(path)


class MixedRecord(NamedTuple):
    """A record of a corpus that is mixed from several files."""

    part: int
    """Its file's place among the parts."""
    number: int
    """How many records of that file stand before it."""
    example: Example


class GivenSeed(NamedTuple):
    """What a junior learns from one line."""

    prompt: Prompt
    example: Example


def given_examples(file: Path, tasks: Sequence[str] = (), kind: Kind = Kind.RETRIEVAL) -> Iterator[Example]:
    """The examples of a corpus: records of a run's `examples.jsonl`, rows of a pool (rejected ones are skipped), or
    labelled records.

    Args:
        tasks: for records that state none, taken in turn.
        kind: of records that state none.

    Raises:
        UserError: for a line that is no record.
    """
    seen = 0
    for number, _, text in text_lines(file):
        where = f"{file}, line {number}"
        record = record_of(text, where) if text.strip() else None
        if record is not None:
            task = tasks[seen % len(tasks)] if tasks else None
            yield _example(record | {"kind": record.get("kind") or kind, "task": record.get("task") or task}, where)
            seen += 1


def mixed_examples(parts: Sequence[Part]) -> Iterator[MixedRecord]:
    """The records of several files in turn, so that any number of them holds the parts in proportion to their weights
    (the largest quotient is next, as in Sainte-Lague's method). They end where the part whose turn it is has ended,
    since no further record would keep the proportions.

    Raises:
        UserError: for a line that is no record.
    """
    readers = [given_examples(part.path.path.expanduser(), part.tasks, part.kind) for part in parts]
    taken = [0] * len(parts)
    while True:
        turn = max(range(len(parts)), key=lambda place: _quotient(parts[place].weight, taken[place]))
        example = next(readers[turn], None)
        if example is None:
            return
        yield MixedRecord(turn, taken[turn], example)
        taken[turn] += 1


def mixed_size(weights: Sequence[float], sizes: Sequence[int]) -> int:
    """How many records `mixed_examples` gives of parts with so many each.

    The part ends them whose quotient is the largest when all of its records are taken. Of each other part come those
    before them whose quotients were larger, or as large in a part that stands before it.
    """
    ends = [_quotient(weight, size) for weight, size in zip(weights, sizes, strict=True)]
    last = max(range(len(ends)), key=ends.__getitem__)
    return sum(
        (bisect_right if place < last else bisect_left)(range(size), -ends[last], key=partial(_falling, weight))
        for place, (weight, size) in enumerate(zip(weights, sizes, strict=True))
    )


def _quotient(weight: float, taken: int) -> float:
    """Of a part of which so many records are taken; the part with the largest is next."""
    return weight / (taken + 0.5)


def _falling(weight: float, taken: int) -> float:
    """The quotient as a key of `bisect`, which wants rising ones."""
    return -_quotient(weight, taken)


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
