"""Training records in JSONL files: the corpus of the run, and labelled sources beside it. Read one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from speed.backends.embedder.settings import Source
from speed.core.errors import UserError, mistakes_of, refuse_for
from speed.core.spec import Json, digest
from speed.data.labelled_lines import KNOWN, is_text_column, json_object, labelled_texts
from speed.data.records import Kind
from speed.data.text_files import text_lines

CORPUS = -1
"""Number of the run's own corpus among the sources."""
HEAD = 10_000
"""Records of a source that a plan reads."""
READER = 1
"""Raised when something is refused that was not before: sources are then read again."""
SECONDS = 10.0
"""Between two messages on progress."""


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
    graded: tuple[str, ...] = ()
    """Documents of falling relevance (`speed.data.records.LEVELS`); mostly none."""


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
            raise _no_records(file)
    if count < 2:
        raise UserError(f"{examples} holds {count} examples; contrastive training needs at least 2 (better thousands)")
    if len(answers) < 2:
        raise UserError(
            f"all {count} records of {examples} have one positive, {next(iter(answers))[:80]!r}, and no negatives: "
            "contrastive training has no negatives\n  give records with different positives, or with hard negatives"
        )


def check_sources(sources: Sequence[Source]) -> None:
    """Read the first records of each source: the embedder is trained when all else is built and paid for.

    Raises:
        UserError: for sources that are missing or empty, or have a line in their head that is no record.
    """

    def check(place: int, source: Source) -> None:
        file = source.path.path.expanduser()
        if not sum(1 for _ in islice(_of_file(file, place, source), HEAD)):
            raise _no_records(file)

    refuse_for(mistakes_of(partial(check, place, source) for place, source in enumerate(sources)))


def read_sources(sources: Sequence[Source], read: Path, say: Callable[[str], None]) -> None:
    """Read each source whole, unless one of the same content was read before.

    Args:
        read: folder that remembers what was read.
        say: takes progress, for a person.

    Raises:
        UserError: for a line that is no record.
    """
    for place, source in enumerate(sources):
        file = source.path.path.expanduser()
        mark = read / digest({"content": source.path.recipe(), "kind": source.kind, "reader": READER})
        if mark.is_file():
            continue
        last = time.monotonic()
        for number, _ in enumerate(_of_file(file, place, source), start=1):
            if time.monotonic() - last > SECONDS:
                last = time.monotonic()
                say(f"reading {file} before anything is built: {number:,} records so far")
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _no_records(file: Path) -> UserError:
    return UserError(f"{file} holds no records; take it out of embedder.sources")


def _of_file(file: Path, place: int, source: Source | None) -> Iterator[Labelled]:
    tasks, seen = source.tasks if source else (), 0
    for number, raw, text in text_lines(file):
        if not text.strip():
            continue
        where = f"{file}, line {number}"
        row = json_object(text, where)
        _refuse_unknown_columns(row, where)
        texts, kind, task = labelled_texts(row, where), _kind(row, source, where), row.get("task") or ""
        if not isinstance(task, str):
            raise UserError(f"{where}: task must be a text, the instruction in front of the query")
        task = task or (tasks[seen % len(tasks)] if tasks else "")
        seen += 1
        for positive in texts.positives:
            yield Labelled(place, number, len(raw), kind, task, texts.query, positive, texts.negatives, texts.graded)
            raw = b""


def _refuse_unknown_columns(row: dict[str, Json], where: str) -> None:
    unknown = [name for name in row if name not in ("kind", "task", "document") and not is_text_column(name)]
    if unknown:
        raise UserError(
            f"{where}: unknown column {', '.join(map(repr, unknown))}; known are kind, task, {KNOWN}\n"
            "  rename it or take it out, so that none is ignored by mistake"
        )


def _kind(row: dict[str, Json], source: Source | None, where: str) -> Kind:
    named = row.get("kind")
    if named is not None:
        if named not in list(Kind):
            raise UserError(f"{where}: kind {named!r} is unknown; it is one of {', '.join(Kind)}")
        return Kind(named)
    if source is None or source.kind is None:
        raise UserError(
            f"{where}: kind is missing; state it in the line, or for all as the source's kind ({', '.join(Kind)})"
        )
    return source.kind
