"""The one SQLite file beside the journal: where answers lie, what was spent, who asks. It may be deleted at any time.

    <home>/journal/index-3.sqlite

What stands in it can be made again from the journal's files, or is only about now. It knows up to which byte of which
file it was filled; whatever is wrong with it ends in filling it again.

Several hosts on one share. Every process appends to a file of its own, so no answer is lost or mixed up, whatever the
file system does. Where the share's locks work between hosts (NFSv4, SMB 3, Lustre mounted with flock), all hosts use
this one SQLite file as processes of one host do: they find one another's answers within about a second, divide
`runtime.concurrency` among themselves, and keep one cap together. Where SQLite cannot work (no locks, a folder that
cannot be written, a file that stays locked for half a minute), the process says so once and keeps the same table in its
own memory: it finds what others have paid for each time a stage begins to ask, by reading their files; until then two
processes may buy the same answer; each takes all of `runtime.concurrency`; and each keeps the caps by itself, without
what others have spent since.

The rollback journal is used, and not WAL, which several hosts cannot share. Nothing is synced: a transaction costs a
fifth of a millisecond instead of twenty. A kill harms nothing; a power cut might, so a file that this machine has not
written since it was started is deleted and filled again (a million answers: half a minute).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from speed.core.locks import is_owned
from speed.core.spec import Json
from speed.teaching.envelope import believable
from speed.teaching.lines import Found, files_in, lines_from

SCHEMA = 3
"""Raised when a table changes; a file of another schema is left alone."""
BUSY_SECONDS = 30.0
"""How long a process waits for another one's lock before it goes on alone."""
BATCH = 5_000
"""Lines that are added in one transaction at most."""


_CONNECTION: dict[str, Json] = {"check_same_thread": False, "isolation_level": None}

T = TypeVar("T")

_TABLES = """
CREATE TABLE IF NOT EXISTS file (
  id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, filled INTEGER NOT NULL,
  dollars REAL NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
  file INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, key BLOB NOT NULL, answered INTEGER NOT NULL,
  model TEXT, purpose TEXT, kind TEXT, cause TEXT, retry INTEGER, resent INTEGER,
  tokens_in INTEGER, tokens_out INTEGER, tokens_cached INTEGER, estimated INTEGER, dollars REAL,
  PRIMARY KEY (file, offset)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_key ON entry (key);
CREATE TABLE IF NOT EXISTS process (
  file TEXT PRIMARY KEY, dollars REAL, tokens INTEGER, calls INTEGER,
  held_dollars REAL, held_tokens INTEGER, held_calls INTEGER);
CREATE TABLE IF NOT EXISTS boot (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS learnt (whom TEXT, what TEXT, PRIMARY KEY (whom, what));
CREATE TABLE IF NOT EXISTS asking (whom TEXT, file TEXT, seen REAL, PRIMARY KEY (whom, file));
"""
_ENTRY = "INSERT OR REPLACE INTO entry VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_FILE = "INSERT OR IGNORE INTO file (name, filled, dollars, tokens, calls) VALUES (?,0,0,0,0)"
_PLACES = "SELECT name, offset, length FROM entry JOIN file ON id = file WHERE key = ? AND answered ORDER BY id, offset"


class Place(NamedTuple):
    """Where the line of an entry lies."""

    file: str
    offset: int
    length: int


class Index:
    """The file, or the same tables in memory where there can be none. Safe with many threads and many processes."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.own = ""
        """Name of the file that this process writes."""
        self.damaged = 0
        """Damaged lines met while it was filled; they count as missing."""
        self.opened = 0
        """Times that tables were opened: those of the last time may be others, without what is only about now."""
        self._folder = folder
        self._path = folder / f"index-{SCHEMA}.sqlite"
        self._say = say
        self._lock = threading.RLock()
        self._shared = True
        """Whether it is a file; once it is not, it stays in memory."""
        self._closed = False
        self._stale = False
        """Whether it was begun anew, and has to be filled before anything is looked up."""
        self._table = self._opened()

    def places(self, key: str) -> list[Place]:
        """Lines that answer a key, oldest first."""
        return self._trying(lambda table: [Place(*row) for row in table.execute(_PLACES, (bytes.fromhex(key),))])

    def select(self, query: str) -> list[tuple[Json, ...]]:
        """Rows of a query over the table `entry`; for ledgers."""
        return self._trying(lambda table: table.execute(query).fetchall())

    def remove(self, place: Place) -> None:
        """Drop one line that turned out to be damaged."""
        gone = "DELETE FROM entry WHERE offset = ? AND file IN (SELECT id FROM file WHERE name = ?)"
        self.write(lambda table: table.execute(gone, (place.offset, place.file)))

    def catch_up(self, *, only_own: bool = False) -> int:
        """Add whatever the files, or this process's own file, hold and the index does not.

        Returns:
            Bytes of this process's own file that the index covers then.
        """
        return self._trying(lambda _: self._caught_up(only_own))

    def empty(self) -> None:
        """Drop everything that was read from files; what others append meanwhile is read again as well."""
        self.write(lambda table: (table.execute("DELETE FROM entry"), table.execute("DELETE FROM file")))

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in one transaction that no other process interrupts."""

        def whole(table: sqlite3.Connection) -> T:
            with _transaction(table):
                return work(table)

        return self._trying(whole)

    def close(self) -> None:
        """Give the database back; it is opened again where it is needed again."""
        with self._lock:
            self._table.close()
            self._closed = True

    # -- filling -------------------------------------------------------------------------------------------------------

    def _caught_up(self, only_own: bool) -> int:
        filled = dict(self._table.execute("SELECT name, filled FROM file"))
        sizes = files_in(self._folder, self.own if only_own else "*.jsonl")
        for name in [] if only_own else [name for name, end in filled.items() if end > sizes.get(name, -1)]:
            self._forget(name)
            del filled[name]
        for name, size in sizes.items():
            if size > filled.get(name, 0):
                filled[name] = self._fill(name, filled.get(name, 0))
        return int(filled.get(self.own, 0))

    def _fill(self, name: str, start: int) -> int:
        """Add the lines of a file from a byte position on; the position behind them."""
        rows: list[tuple[Found, dict[str, Json]]] = []
        end = start
        for found in lines_from(self._folder / name, start):
            fields = json.loads(found.entry) if found.entry is not None else None
            if isinstance(fields, dict) and "key" in fields:
                rows.append((found, believable(fields)))
            elif name != self.own and is_owned(self._folder / name):
                break  # another host's process is writing it, and this host sees its last lines only in part as yet
            else:
                self.damaged += 1
                self._say(f"a damaged line counts as missing: {name}, byte {found.offset}")
            end = found.offset + found.length + 1
            if len(rows) >= BATCH:
                self._add(name, rows, end)
                rows = []
        self._add(name, rows, end)
        return end

    def _add(self, name: str, rows: list[tuple[Found, dict[str, Json]]], end: int) -> None:
        with _transaction(self._table) as table:
            table.execute(_FILE, (name,))
            number, filled = table.execute("SELECT id, filled FROM file WHERE name = ?", (name,)).fetchone()
            new = [(found, fields) for found, fields in rows if found.offset >= filled]  # others may have been faster
            table.executemany(_ENTRY, [_row(number, found, fields) for found, fields in new])
            answers = [fields for _, fields in new if fields.get("answered", True)]
            dollars = sum(fields.get("dollars") or 0.0 for fields in answers)
            tokens = sum(fields.get("tokens_in", 0) + fields.get("tokens_out", 0) for fields in answers)
            table.execute(
                "UPDATE file SET filled = max(filled, ?), dollars = dollars + ?, tokens = tokens + ?, calls = calls + ?"
                " WHERE id = ?",
                (end, dollars, tokens, len(answers), number),
            )

    def _forget(self, name: str) -> None:
        with _transaction(self._table) as table:
            table.execute("DELETE FROM entry WHERE file IN (SELECT id FROM file WHERE name = ?)", (name,))
            table.execute("DELETE FROM file WHERE name = ?", (name,))

    # -- opening, and beginning again ----------------------------------------------------------------------------------

    def _trying(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work; where the database fails, once more with a new one that was filled from the files."""
        with self._lock:
            if self._closed:
                self._table, self._closed = self._opened(), False
            for last in (False, True, True):
                try:
                    if self._stale:
                        self._caught_up(only_own=False)
                        self._stale = False
                    return work(self._table)
                except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                    raise
                except sqlite3.DatabaseError as error:
                    self._begin_again(error, last)
            self._caught_up(only_own=False)
            return work(self._table)

    def _begin_again(self, error: sqlite3.DatabaseError, last: bool) -> None:
        """A damaged file is deleted, one that somebody deleted is made anew, one that cannot be used becomes memory."""
        if not isinstance(error, sqlite3.OperationalError):
            self._unlink()
        elif last or "locked" in str(error):
            self._share_nothing(error)
        if self._shared:
            self._say(f"the journal's index is made anew from its files ({error})")
        with suppress(sqlite3.Error):
            self._table.close()
        self._table = self._opened()
        self._stale = True

    def _opened(self) -> sqlite3.Connection:
        self.opened += 1
        for _ in range(3 if self._shared else 0):
            try:
                table = sqlite3.connect(self._path, timeout=BUSY_SECONDS, **_CONNECTION)
                self._inode = self._path.stat().st_ino
                try:
                    if _ready(table):
                        return table
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError:
                    pass
                self._unlink()
                table.close()
            except (sqlite3.OperationalError, OSError) as error:
                self._share_nothing(error)
                break
        table = sqlite3.connect(":memory:", **_CONNECTION)
        _ready(table)
        return table

    def _share_nothing(self, error: Exception) -> None:
        if self._shared:
            self._shared = False
            self._say(
                f"{self._path} cannot be used ({error}): answers are kept and found as before, but this process knows "
                "nothing of others that ask now, and keeps runtime.concurrency and the caps by itself"
            )

    def _unlink(self) -> None:
        """Delete the file that was opened, unless somebody has done it: another process may have made a new one."""
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
                self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)


def _ready(table: sqlite3.Connection) -> bool:
    """Make the tables; False for a file that was written before this machine was started, and not since."""
    table.execute("PRAGMA journal_mode = TRUNCATE")
    table.execute("PRAGMA synchronous = OFF")
    boot = _boot()
    with _transaction(table):
        for statement in _TABLES.split(";\n")[:-1]:
            table.execute(statement)
        known = {name for (name,) in table.execute("SELECT id FROM boot")}
        table.execute("INSERT OR IGNORE INTO boot VALUES (?)", (boot,))
    return not known or boot in known


def _boot() -> str:
    """What tells one start of this machine from the next; empty where Linux does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextmanager
def _transaction(table: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    table.execute("BEGIN IMMEDIATE")
    try:
        yield table
        table.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            table.execute("ROLLBACK")
        raise


def _row(number: int, found: Found, fields: dict[str, Json]) -> tuple[Json, ...]:
    place = (number, found.offset, found.length, bytes.fromhex(fields["key"]), fields.get("answered", True))
    about = (fields["model"], fields.get("purpose", ""), fields.get("kind", ""), fields.get("cause", "ok"))
    counts = (fields.get(name, 0) for name in ("resent", "tokens_in", "tokens_out", "tokens_cached", "estimated"))
    return (*place, *about, fields.get("params", {}).get("retry", 0), *counts, fields.get("dollars"))
