"""Count training records that contain texts of evaluation tasks, and write the others to a new file.

    python -m speed.decontaminate RECORDS.jsonl --tasks FOLDER ...                 the table
    python -m speed.decontaminate RECORDS.jsonl --tasks FOLDER ... --to CLEAN.jsonl    and the clean records

RECORDS is a corpus (`stages/dedup/examples.jsonl` of a run), a shard of a pool of examples (rejected rows are skipped),
or labelled data: JSON lines (plain, .gz or .zst) with `query`, `positive` and, if known, `negative` or `negatives`.
Each FOLDER holds tasks
as eval=local reads them. All their texts are searched for, except those of splits named train. A record is contaminated
if one of its texts shares a run of 13 words (--words) with a text of a task, equals a text that is shorter than that,
or is a near duplicate (--similarity: Jaccard similarity of runs of 5 words, or of characters in short texts).

Records are streamed, so memory depends on the texts of the tasks only. The input is not changed, and the network is not
used.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from speed.backends.evaluation.task_folder import TaskFolder, task_folders
from speed.core.cache import write_aside
from speed.core.errors import UserError
from speed.data.labelled_lines import labelled_texts, record_of
from speed.data.quality.contamination import EvaluationTexts
from speed.data.text_files import text_lines
from speed.runs.entry import one_message
from speed.runs.tables import Table

_CHUNK = 512
_SECONDS = 10.0
"""Seconds between two messages on progress."""


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


def tasks_of(folders: Sequence[Path]) -> dict[str, TaskFolder]:
    """Tasks of some folders by name, or by folder if several have the same name.

    Raises:
        UserError: for a folder without tasks.
    """
    tasks = [task for folder in folders for task in task_folders(folder.expanduser())]
    times = Counter(task.name for task in tasks)
    return {task.name if times[task.name] == 1 else str(task.folder): task for task in tasks}


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


def decontaminate(records: Path, known: EvaluationTexts, clean: BinaryIO | None) -> Tally:
    """Search all records, and write the lines of the clean ones unchanged if a file is given.

    Raises:
        UserError: for a line that is no record.
    """
    tally, last_message = Tally(), time.monotonic()
    lines = record_texts(records)
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
            _say(f"{tally.records:,} records, {tally.contaminated:,} contaminated")
    return tally


def contamination_table(names: Sequence[str], known: EvaluationTexts, tally: Tally, words: int) -> Table:
    """Counts by data set. A record that several contaminate counts for each, and once in the last line."""
    table = Table("data set", "test texts", f"share {words} words", "near duplicates", "records", "first in line")
    for number, name in enumerate(names):
        counts = (known.counts[number], tally.shared[number], tally.near[number], tally.either[number])
        table.add(name, *(f"{count:,}" for count in counts), tally.first.get(number, "-"))
    whole = (sum(known.counts), tally.by_run, tally.by_nearness, tally.contaminated)
    table.add("any", *(f"{count:,}" for count in whole), min(tally.first.values(), default="-"))
    return table


def run(given: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        UserError: for options, tasks or records that cannot be read.
    """
    if given.words < 2:
        raise UserError(f"--words {given.words}: a run has at least two words (usual: 13)")
    if not 0.7 <= given.similarity <= 1:
        raise UserError(f"--similarity {given.similarity:g}: give 0.7 to 1 (below, some duplicates would be missed)")
    if not given.records.is_file():
        raise UserError(f"{given.records} is no file: give JSON lines such as stages/dedup/examples.jsonl of a run")
    if given.to is not None and given.to.exists():
        raise UserError(f"{given.to} already exists: give a new file")
    tasks = tasks_of(given.tasks)
    known = EvaluationTexts(map(_read_texts, tasks.items()), given.words, given.similarity)
    with ExitStack() as stack:
        clean = None
        if given.to is not None:
            clean = stack.enter_context(stack.enter_context(write_aside(given.to)).open("wb"))
        tally = decontaminate(given.records, known, clean)
    print(contamination_table(list(tasks), known, tally, given.words).text())
    share = tally.contaminated / max(tally.records, 1)
    passed = f"; {tally.rejected:,} rejected rows were skipped" if tally.rejected else ""
    print(f"\n{tally.contaminated:,} of {tally.records:,} records are contaminated ({share:.2%}){passed}")
    if given.to is not None:
        print(f"written: {given.to}, {tally.records - tally.contaminated:,} records")


def _read_texts(task: tuple[str, TaskFolder]) -> Iterator[str]:
    _say(f"reading {task[0]}")
    return task[1].texts()


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Command line options."""
    out = argparse.ArgumentParser(
        prog="python -m speed.decontaminate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("records", type=Path, metavar="RECORDS", help="JSON lines")
    out.add_argument("--tasks", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders of tasks")
    out.add_argument("--words", type=int, default=13, help="length of a shared run (default: 13)")
    out.add_argument("--similarity", type=float, default=0.8, help="of near duplicates, 0.7 to 1 (default: 0.8)")
    out.add_argument("--to", type=Path, metavar="FILE", help="a new file for the clean records")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    given = parser().parse_args(arguments)
    with one_message("looking for texts of tasks"):
        run(given)


if __name__ == "__main__":
    main()
