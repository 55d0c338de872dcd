"""Try settings of deduplication on a file of records, and compare what they keep with the paper's Table 6.

    python -m speed.dedup calibrate RECORDS.jsonl
    python -m speed.dedup calibrate RECORDS.jsonl --thresholds 0.6 0.7 0.8 --shingles 3 5 --compared query all

RECORDS is a corpus (`stages/dedup/examples.jsonl` of a run with dedup=none), a shard of a pool of examples (rejected
rows are skipped), or labelled data: JSON lines (plain, .gz or .zst) with `query`, `positive` and, if known, `negative`
and `kind`. For each choice of texts and each size of shingles the file is read twice, which tells what every threshold
keeps. Memory is that of one deduplication, whatever the number of settings.

The paper's retentions are those of 1.15M examples that models of 8B wrote. Which setting comes nearest can be told from
such a corpus alone: a smaller one, or one of other models, repeats itself less or more. Nothing is changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from speed.core.errors import UserError
from speed.data.labelled_lines import labelled_texts, record_of
from speed.data.quality.minhash import MinHashConfig
from speed.data.quality.retention import (
    TABLE_6,
    Compared,
    Record,
    away_from_table_6,
    published_shares,
    retentions,
    settings_for,
)
from speed.data.records import Kind
from speed.data.text_files import text_lines
from speed.runs.entry import one_message
from speed.runs.tables import Table

COMPARED: tuple[Compared, ...] = ("mixed", "query", "positive", "all")
_SECONDS = 10.0
"""Seconds between two messages on progress."""


def records_in(file: Path) -> Iterator[Record]:
    """The records of a file; rejected rows are skipped.

    Raises:
        UserError: for a line that is no record.
    """
    for number, _, text in text_lines(file):
        where = f"{file}, line {number}"
        record = record_of(text, where) if text.strip() else None
        if record is not None:
            texts = labelled_texts(record, where)
            kind = record.get("kind")
            yield Record(
                kind if kind in list(Kind) else "", texts.query, texts.positives[0], next(iter(texts.negatives), "")
            )


def calibrate(file: Path, thresholds: Sequence[float], shingles: Sequence[int], compared: Sequence[Compared]) -> Table:
    """The share that each setting keeps, by kind.

    Raises:
        UserError: for a file without records.
    """
    table = Table("compared", "words", "threshold", *(str(kind) for kind in TABLE_6), "no kind", "all", "from Table 6")
    _add(table, ("the paper", "", ""), published_shares())
    usual = MinHashConfig()
    for by in compared:
        for words in shingles:
            _say(f"comparing {by} texts by {words} words")
            found = retentions(lambda: records_in(file), by, settings_for(thresholds, words), thresholds, _progress())
            if not found.seen:
                raise UserError(
                    f"{file}: there is no record in it: give JSON lines such as stages/dedup/examples.jsonl"
                )
            for threshold in thresholds:
                default = (by, words, threshold) == ("mixed", usual.word_shingle, usual.threshold)
                name = f"{by} (default)" if default else by
                _add(table, (name, str(words), f"{threshold:g}"), found.shares(threshold))
    return table


def _add(table: Table, name: tuple[str, str, str], shares: dict[str, float]) -> None:
    away = away_from_table_6(shares)
    kinds = (f"{shares[kind]:.1%}" if kind in shares else "-" for kind in (*TABLE_6, "", "whole"))
    table.add(*name, *kinds, "-" if away is None else f"{away:.1%}")


def _progress() -> Callable[[int], None]:
    begun = last = time.monotonic()

    def say(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SECONDS:
            last = time.monotonic()
            _say(f"{done:,} records, {done / (last - begun):,.0f} a second")

    return say


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def run(given: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        UserError: for options or records that cannot be used.
    """
    if not all(0.3 <= threshold <= 1 for threshold in given.thresholds):
        raise UserError("--thresholds: give similarities of 0.3 to 1\n  below, unlike texts are compared one by one")
    if not all(1 <= words <= 50 for words in given.shingles):
        raise UserError("--shingles: give 1 to 50 words\n  the stage has 5")
    table = calibrate(given.records, sorted(set(given.thresholds)), given.shingles, given.compared)
    print(table.text())
    print(
        "\nkept of each kind; the last column is the mean distance from Table 6 over the kinds. That table is of 1.15M "
        "examples\nby models of 8B: which setting comes nearest can be told from such a corpus alone"
    )


def parser() -> argparse.ArgumentParser:
    """Command line options."""
    out = argparse.ArgumentParser(
        prog="python -m speed.dedup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command = out.add_subparsers(required=True).add_parser("calibrate", help="what settings keep, beside Table 6")
    command.add_argument("records", type=Path, metavar="RECORDS", help="JSON lines")
    command.add_argument("--thresholds", type=float, nargs="+", default=[0.6, 0.7, 0.8, 0.9], help="similarities")
    command.add_argument("--shingles", type=int, nargs="+", default=[3, 5, 8], help="words of a shingle")
    command.add_argument("--compared", nargs="+", choices=COMPARED, default=COMPARED, help="texts of a record")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    given = parser().parse_args(arguments)
    with one_message("comparing records"):
        run(given)


if __name__ == "__main__":
    main()
