"""Training records in JSONL files: the corpus of the run, and labelled sources beside it. Read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from speed.backends.embedder.settings import Source
from speed.core.errors import UserError
from speed.core.spec import Spec
from speed.data.records import Kind

CORPUS = -1
"""Number of the run's own corpus among the sources."""


class Line(Spec):
    """One line of a JSONL file of records."""

    kind: Kind | None = None
    task: str = ""
    query: str
    positive: str
    negative: str | None = None
    negatives: tuple[str, ...] = ()


class Labelled(NamedTuple):
    """A record to train on."""

    source: int
    """Place among the trainer's sources, or `CORPUS`."""
    number: int
    """Line in its file, from 1."""
    size: int
    """Bytes of the line."""
    kind: Kind
    task: str
    query: str
    positive: str
    negatives: tuple[str, ...]


def labelled(examples: Path, sources: Sequence[Source]) -> Iterator[Labelled]:
    """The records of the corpus, then of each source.

    Raises:
        UserError: for a missing or empty file, a line that is no record, an empty query or positive, a record without a
            kind, or records that give no negatives.
    """
    count, answers = 0, set[str]()
    for place, source in [(CORPUS, None), *enumerate(sources)]:
        before = count
        file = examples if source is None else source.path.path.expanduser()
        for record in _of_file(file, place, source):
            count += 1
            if len(answers) < 2:
                answers |= {record.positive, *record.negatives}
            yield record
        if source is not None and count == before:
            raise UserError(f"{file} holds no records; take it out of embedder.sources")
    if count < 2:
        raise UserError(f"{examples} holds {count} examples; contrastive training needs at least 2 (better thousands)")
    if len(answers) < 2:
        raise UserError(
            f"all {count} records of {examples} have one positive, {next(iter(answers))[:80]!r}, and no negatives: "
            "contrastive training has no negatives\n  give records with different positives, or with hard negatives"
        )


def _of_file(file: Path, place: int, source: Source | None) -> Iterator[Labelled]:
    if not file.is_file():
        raise UserError(f"{file} does not exist: the embedder needs a JSONL file of examples")
    with file.open("rb") as lines:
        seen = 0
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                read = Line.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "line"
                raise UserError(f"{file}, line {number}: no usable example ({where}: {first['msg']})") from error
            for field in ("query", "positive"):
                if not getattr(read, field).strip():
                    raise UserError(
                        f"{file}, line {number}: {field} is empty; every record needs a query and a positive"
                    )
            kind = read.kind or (source.kind if source else None)
            if kind is None:
                raise UserError(
                    f"{file}, line {number}: kind is missing; state it in the line, or for all as the source's "
                    f"kind ({', '.join(Kind)})"
                )
            tasks = source.tasks if source else ()
            task = read.task or (tasks[seen % len(tasks)] if tasks else "")
            seen += 1
            negatives = tuple(text for text in (read.negative or "", *read.negatives) if text.strip())
            yield Labelled(place, number, len(line), kind, task, read.query, read.positive, negatives)
