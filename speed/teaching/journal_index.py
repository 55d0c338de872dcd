"""Where each entry of the journal lies: an SQLite table beside the files, which are the truth.

The index may be deleted, half written or older than the files at any time: it knows up to which byte of which file
it was filled, and whatever is wrong with it ends in filling it again. Where SQLite cannot work (a read-only or
network folder, a full disk) the same table is kept in memory for as long as the process lives.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from speed.core.spec import Json

SCHEMA = 1
"""Raised when the table changes; an index of another schema is filled again."""

T = TypeVar("T")

_MOST_KEYS = 256
"""In one query; SQLite takes at least 999."""

_TABLES = """
CREATE TABLE IF NOT EXISTS file (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, filled INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
  file INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, key BLOB NOT NULL, answered INTEGER NOT NULL,
  model TEXT, purpose TEXT, kind TEXT, cause TEXT, retry INTEGER, resent INTEGER,
  tokens_in INTEGER, tokens_out INTEGER, tokens_cached INTEGER, dollars REAL,
  PRIMARY KEY (file, offset)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_key ON entry (key);
"""


class Place(NamedTuple):
    """Where the line of an entry lies."""

    file: str
    offset: int
    length: int


class Line(NamedTuple):
    """One row of the index."""

    offset: int
    length: int
    key: str
    answered: bool
    model: str
    purpose: str
    kind: str
    cause: str
    retry: int
    resent: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    dollars: float | None


class Index:
    """The table, on disk where possible. Not thread-safe: its owner holds a lock."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._path = folder / f"index-{SCHEMA}.sqlite"
        self._say = say
        self.emptied = 0
        """Times the table was begun anew; its owner refreshes when this has risen."""
        self._table = self._opened()

    def places(self, key: str) -> list[Place]:
        """Lines that answer a key, oldest first."""
        wanted = "SELECT name, offset, length FROM entry JOIN file ON id = file WHERE key = ? AND answered ORDER BY id"
        return self._trying(lambda table: [Place(*row) for row in table.execute(wanted, (bytes.fromhex(key),))])

    def answered(self, keys: Sequence[str]) -> set[str]:
        """Those of some keys that a line answers."""

        def work(table: sqlite3.Connection) -> set[str]:
            found: set[str] = set()
            for start in range(0, len(keys), _MOST_KEYS):
                some = [bytes.fromhex(key) for key in keys[start : start + _MOST_KEYS]]
                wanted = f"SELECT key FROM entry WHERE key IN ({','.join('?' * len(some))}) AND answered"
                found.update(key.hex() for (key,) in table.execute(wanted, some))
            return found

        return self._trying(work)

    def filled(self) -> dict[str, int]:
        """Bytes of each file that the index covers."""
        return self._trying(lambda table: dict(table.execute("SELECT name, filled FROM file")))

    def fill(self, file: str, lines: Iterable[Line], start: int, filled: int) -> None:
        """Add the lines of bytes start..filled-1 of a file, in one transaction; what is covered never has a gap."""
        rows = list(lines)

        def work(table: sqlite3.Connection) -> None:
            with table:
                number = self._number(table, file)
                table.executemany(
                    "INSERT OR REPLACE INTO entry VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                    ((number, *row[:2], bytes.fromhex(row.key), *row[3:]) for row in rows),
                )
                covered = "UPDATE file SET filled = max(filled, ?) WHERE id = ? AND filled >= ?"
                table.execute(covered, (filled, number, start))

        self._trying(work)

    def forget(self, file: str) -> None:
        """Drop what is known of a file."""

        def work(table: sqlite3.Connection) -> None:
            with table:
                table.execute("DELETE FROM entry WHERE file IN (SELECT id FROM file WHERE name = ?)", (file,))
                table.execute("DELETE FROM file WHERE name = ?", (file,))

        self._trying(work)

    def empty(self) -> None:
        """Drop everything; other processes that use the table fill it again with what they write."""

        def work(table: sqlite3.Connection) -> None:
            with table:
                table.execute("DELETE FROM entry")
                table.execute("DELETE FROM file")

        self._trying(work)

    def remove(self, place: Place) -> None:
        """Drop one line that turned out to be damaged."""
        gone = "DELETE FROM entry WHERE offset = ? AND file IN (SELECT id FROM file WHERE name = ?)"

        def work(table: sqlite3.Connection) -> None:
            with table:
                table.execute(gone, (place.offset, place.file))

        self._trying(work)

    def select(self, query: str) -> Iterator[tuple[Json, ...]]:
        """Rows of a query over the table `entry` (columns as in `Line`); for ledgers."""
        return iter(self._trying(lambda table: table.execute(query).fetchall()))

    def close(self) -> None:
        """Give the database back."""
        self._table.close()

    def _number(self, table: sqlite3.Connection, file: str) -> int:
        # Never remembered: another process may empty the table, and numbers are given anew then.
        table.execute("INSERT OR IGNORE INTO file (name, filled) VALUES (?, 0)", (file,))
        return int(table.execute("SELECT id FROM file WHERE name = ?", (file,)).fetchone()[0])

    def _trying(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._table)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            self._begin_again(error)
            return work(self._table)

    def _begin_again(self, error: sqlite3.DatabaseError) -> None:
        """A damaged database is deleted, an unusable one replaced by memory; the owner fills it again."""
        self.emptied += 1
        self._say(f"the journal's index is made anew from its files ({error})")
        with suppress(sqlite3.Error):
            self._table.close()
        damaged = not isinstance(error, sqlite3.OperationalError)
        if damaged:
            self._unlink()
        self._table = self._opened() if damaged else _in_memory()

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        """The database on disk; in memory where that cannot be."""
        for _ in range(2):
            try:
                return _ready(sqlite3.connect(self._path, timeout=30.0, check_same_thread=False))
            except sqlite3.OperationalError:
                break
            except sqlite3.DatabaseError:
                self._unlink()
        return _in_memory()


def _in_memory() -> sqlite3.Connection:
    return _ready(sqlite3.connect(":memory:", check_same_thread=False))


def _ready(table: sqlite3.Connection) -> sqlite3.Connection:
    table.execute("PRAGMA journal_mode = WAL")
    # WAL with NORMAL survives a power cut undamaged and costs no fsync per commit.
    table.execute("PRAGMA synchronous = NORMAL")
    table.executescript(_TABLES)
    return table
