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
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from speed.backends.evaluation.task_folder import TaskFolder, task_folders
from speed.core.cache import write_aside
from speed.core.errors import UserError
from speed.data.quality.contaminated_records import SIMILARITY, WORDS, Tally, record_texts, search
from speed.data.quality.contamination import EvaluationTexts
from speed.runs.entry import one_message
from speed.runs.tables import Table


def tasks_of(folders: Sequence[Path]) -> dict[str, TaskFolder]:
    """Tasks of some folders by name, or by folder if several have the same name.

    Raises:
        UserError: for a folder without tasks.
    """
    tasks = [task for folder in folders for task in task_folders(folder.expanduser())]
    times = Counter(task.name for task in tasks)
    return {task.name if times[task.name] == 1 else str(task.folder): task for task in tasks}


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
        tally = search(record_texts(given.records), known, clean, say_so_far)
    print(contamination_table(list(tasks), known, tally, given.words).text())
    share = tally.contaminated / max(tally.records, 1)
    passed = f"; {tally.rejected:,} rejected rows were skipped" if tally.rejected else ""
    print(f"\n{tally.contaminated:,} of {tally.records:,} records are contaminated ({share:.2%}){passed}")
    if given.to is not None:
        print(f"written: {given.to}, {tally.records - tally.contaminated:,} records")


def _read_texts(task: tuple[str, TaskFolder]) -> Iterator[str]:
    _say(f"reading {task[0]}")
    return task[1].texts()


def say_so_far(tally: Tally) -> None:
    """A line on progress."""
    _say(f"{tally.records:,} records, {tally.contaminated:,} contaminated")


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Command line options."""
    out = argparse.ArgumentParser(
        prog="python -m speed.decontaminate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("records", type=Path, metavar="RECORDS", help="JSON lines")
    out.add_argument("--tasks", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders of tasks")
    out.add_argument("--words", type=int, default=WORDS, help="length of a shared run (default: %(default)s)")
    out.add_argument(
        "--similarity", type=float, default=SIMILARITY, help="of near duplicates, 0.7 to 1 (default: %(default)s)"
    )
    out.add_argument("--to", type=Path, metavar="FILE", help="a new file for the clean records")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    given = parser().parse_args(arguments)
    with one_message("looking for texts of tasks"):
        run(given)


if __name__ == "__main__":
    main()
