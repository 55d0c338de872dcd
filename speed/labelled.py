"""Make a labelled data set ready for training beside the synthetic data, and count it.

    python -m speed.labelled nq-train.jsonl.gz --to labelled/nq.jsonl
    python -m speed.labelled msmarco/*.jsonl --to labelled/msmarco_passage.jsonl

Reads JSON lines (plain, .gz or .zst) in the layouts in which the sets of E5-mistral's training are public, and writes
lines of `query`, `positive` and, where they are known, `negatives`: what `embedder.sources` reads. A query with several
positives becomes several lines. `+experiment=full_data` names the 14 files that it looks for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from speed.core.cache import write_aside
from speed.core.errors import UserError, explained
from speed.data.labelled_layouts import records_in
from speed.runs.tables import Table

COLUMNS = ("in", "records", "passages", "paragraphs", "without a positive", "out", "without negatives")


def convert(files: list[Path], to: Path) -> Table:
    """Write the records of some files into one, whole or not at all; the counts by file."""
    table, whole = Table("file", *COLUMNS), Counter[str]()
    to.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(to) as aside, aside.open("w", encoding="utf-8") as out:
        for file in files:
            counts = Counter[str]()
            for record in records_in(file, counts):
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
            table.add(str(file), *(f"{counts[column]:,}" for column in COLUMNS))
            whole.update(counts)
        if not whole["out"]:
            raise UserError(f"no record came out of {', '.join(map(str, files))}: {to} is not written")
    table.add("all", *(f"{whole[column]:,}" for column in COLUMNS))
    return table


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m speed.labelled", description=__doc__.splitlines()[0])
    made.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON lines of one data set")
    made.add_argument("--to", required=True, type=Path, metavar="FILE", help="file to write, such as labelled/nq.jsonl")
    return made


def main() -> None:
    """Console entry."""
    given = parser().parse_args()
    try:
        print(convert([file.expanduser() for file in given.files], given.to.expanduser()).text())
    except UserError as error:
        sys.exit(str(error))
    except OSError as error:
        known = explained(error, f"writing {given.to}")
        if known is None:
            raise
        sys.exit(str(known))


if __name__ == "__main__":
    main()
