"""Search training records for the texts of evaluation tasks: what `speed.decontaminate` does, and each evaluation of a
run with the corpus that its embedder learned from.

Records are streamed, so memory depends on the texts of the tasks only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from speed.core.spec import Spec
from speed.data.labelled_lines import labelled_texts, record_of
from speed.data.quality.contamination import EvaluationTexts
from speed.data.text_files import lines_with_text, text_lines

WORDS, SIMILARITY = 13, 0.8
"""Of a shared run, and of near duplicates, unless somebody says otherwise."""
CHARACTERS = 200_000_000
"""Of the tasks' texts that an evaluation searches for: by a measurement of 24 million some two minutes of a core and
2.5 GB, less than encoding them takes."""
RECORDS = 250_000
"""Of a corpus that an evaluation searches: all of the paper's 230,000, some eight minutes of a core."""
_CHUNK = 512
_SECONDS = 10.0
"""Seconds between two messages on progress."""


class TaskTexts(NamedTuple):
    """The texts that a task judges by."""

    name: str
    characters: int | None
    """About; None where that is not known."""
    read: Callable[[], Iterator[str]]


@dataclass
class Tally:
    """Counts of the records searched so far."""

    records: int = 0
    rejected: int = 0
    """Rows whose answer was rejected."""
    contaminated: int = 0
    by_run: int = 0
    """Records that share a run of words with a data set."""
    by_nearness: int = 0
    shared: Counter[int] = field(default_factory=Counter)
    near: Counter[int] = field(default_factory=Counter)
    either: Counter[int] = field(default_factory=Counter)
    """Number of contaminated records of each data set."""
    first: dict[int, int] = field(default_factory=dict)
    """Line of the first contaminated record of each data set."""


class TaskOverlap(Spec):
    """What a corpus shares with one task."""

    texts: int
    """Of the task."""
    records: int
    """Of the corpus that hold one of them."""


class Contamination(Spec):
    """What a corpus shares with the tasks that its embedder is judged by."""

    words: int
    similarity: float
    records: int
    """That were searched."""
    every: int
    """One record of so many was searched: 1 for all."""
    contaminated: int
    tasks: dict[str, TaskOverlap]
    left_out: tuple[str, ...]
    """Tasks of too much text, or of nobody knows how much."""
    labelled: int = 0
    """Files of labelled records that were searched beside the corpus."""


def contamination_of(files: Sequence[Path], tasks: Sequence[TaskTexts], say: Callable[[Tally], None]) -> Contamination:
    """Search records for the texts of tasks, within `CHARACTERS` (the shortest tasks first) and `RECORDS`.

    Args:
        files: the corpus, then labelled records that an embedder learned from as well.

    Raises:
        UserError: for a line that is no record, or a task that cannot be read.
    """
    taken, room = list[TaskTexts](), CHARACTERS
    for task in sorted(tasks, key=lambda task: task.characters or 0):
        if task.characters is not None and task.characters <= room:
            taken.append(task)
            room -= task.characters
    lines = sum(map(lines_with_text, files))
    every, tally, overlaps = -(-lines // RECORDS) or 1, Tally(), dict[str, TaskOverlap]()
    if taken:
        known = EvaluationTexts((task.read() for task in taken), WORDS, SIMILARITY)
        records = chain.from_iterable(map(record_texts, files))
        tally = search(islice(records, 0, None, every), known, None, say)
        counts = enumerate(known.counts)
        overlaps = {taken[n].name: TaskOverlap(texts=texts, records=tally.either[n]) for n, texts in counts}
    return Contamination(
        words=WORDS,
        similarity=SIMILARITY,
        records=tally.records,
        every=every,
        contaminated=tally.contaminated,
        tasks={task.name: overlaps[task.name] for task in tasks if task.name in overlaps},
        left_out=tuple(task.name for task in tasks if task.name not in overlaps),
        labelled=len(files) - 1,
    )


def record_texts(file: Path) -> Iterator[tuple[int, bytes, list[str] | None]]:
    """Read each line of a file of records: its number, its bytes, and its texts, or None if its row was rejected.

    Raises:
        UserError: for a line that is no record.
    """
    for number, raw, text in text_lines(file):
        if text.strip():
            yield number, raw, _texts(text, f"{file}, line {number}")


def _texts(line: str, where: str) -> list[str] | None:
    record = record_of(line, where)
    if record is None:
        return None
    texts = labelled_texts(record, where)
    return [texts.query, *texts.positives, *texts.negatives, *texts.graded]


def search(
    lines: Iterator[tuple[int, bytes, list[str] | None]],
    known: EvaluationTexts,
    clean: BinaryIO | None,
    say: Callable[[Tally], None],
) -> Tally:
    """Search records, and write the lines of the clean ones unchanged if a file is given.

    Args:
        lines: as `record_texts` gives them.
        say: told how far it is, every ten seconds.

    Raises:
        UserError: for a line that is no record.
    """
    tally, last_message = Tally(), time.monotonic()
    while chunk := list(islice(lines, _CHUNK)):
        kept = [(number, line, texts) for number, line, texts in chunk if texts is not None]
        tally.rejected += len(chunk) - len(kept)
        overlaps = known.overlaps([texts for _, _, texts in kept])
        for (number, line, _), overlap in zip(kept, overlaps, strict=True):
            either = overlap.shared | overlap.near
            tally.records += 1
            tally.contaminated += bool(either)
            tally.by_run += bool(overlap.shared)
            tally.by_nearness += bool(overlap.near)
            tally.shared.update(overlap.shared)
            tally.near.update(overlap.near)
            tally.either.update(either)
            for dataset in either:
                tally.first.setdefault(dataset, number)
            if clean is not None and not either:
                clean.write(line if line.endswith((b"\n", b"\r")) else line + b"\n")
        if time.monotonic() - last_message > _SECONDS:
            last_message = time.monotonic()
            say(tally)
    return tally
