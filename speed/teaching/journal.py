"""The call journal: every answer that was ever paid for, so that none is paid for again (DESIGN D5).

    <home>/journal/<host>-<pid>-<start>.jsonl        appended by one process, one write per answer: the truth
    <home>/journal/<host>-<pid>-<start>.jsonl.zst    the same, once its process is done with it
    <home>/journal/index-1.sqlite                    where each entry lies; can be deleted at any time

An entry's key is (model, messages, sampling parameters, sample index) and nothing else: provider, endpoint and
template version are recorded, never keyed. Answers are on the disk within half a second or 64 answers, whichever
comes first; a kill loses nothing that was appended, a power cut at most that. Other processes find them in the index,
about a second later.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_core import PydanticSerializationError

from speed.core.errors import explained
from speed.core.spec import Json, Spec, digest
from speed.teaching.journal_file import Appender, entry_in, line_of
from speed.teaching.journal_index import Index, Line, Place
from speed.teaching.journal_pack import Packed, Plain, files_in, lines_of_file, opened

T = TypeVar("T")

GROUP = 64
"""Answers that may wait for one fsync."""
SECONDS = 0.5
"""How long an answer may wait for it."""
INDEXED = 1024
"""Answers that are indexed together at most: SQLite writes every page that it touches once a transaction. What is lost
of them is in the files."""
SEEN = 1.0
"""Seconds between two indexings at most: other processes pay again for what they do not see there."""
LATELY = 4096
"""Answers of this process that are remembered for a while after they were indexed."""


class Entry(Spec):
    """One answer, or one request that failed for good."""

    key: str
    model: str
    messages: tuple[dict[str, str], ...]
    params: dict[str, Json] = {}
    index: int = 0
    purpose: str = ""
    kind: str = ""
    text: str = ""
    """Exactly what came back, before anything parsed it."""
    finish_reason: str = ""
    cause: str = "ok"
    """What the transport saw: ok, truncated, refusal, content_filter, empty; or why there is no answer."""
    detail: str = ""
    answered: bool = True
    """False for a failed request: recorded for the ledger, asked again by the next run."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    """Input tokens that the provider had in its own cache."""
    dollars: float | None = None
    """List price; None when it is unknown."""
    provider: str = ""
    endpoint: str = ""
    served_by: str = ""
    """The model's name as the provider gave it."""
    resent: int = Field(default=0, ge=0)
    """Times the request was sent again after a transport failure."""
    seconds: float = 0.0
    time: float = 0.0
    """Seconds since the epoch."""


def key(model: str, messages: Sequence[dict[str, str]], params: dict[str, Json], index: int) -> str:
    """What an answer is an answer to: sha256 of the canonical JSON of these four."""
    return digest([model, messages, params, index])


class Journal:
    """The journal of one folder, as this process sees it. Safe with many threads and many processes."""

    def __init__(self, folder: Path, say: Callable[[str], None] | None = None) -> None:
        self.folder = folder
        self.damaged = 0
        """Lines met so far whose checksum does not match; they count as missing."""
        self._say = say or (lambda message: None)
        # Always taken in this order. Only the first is held during an fsync, so that answers and look-ups go on.
        self._flushing = threading.RLock()
        self._indexing = threading.RLock()
        self._lock = threading.Lock()
        self._fresh: dict[str, Place] = {}
        """What this process has answered lately, oldest first: everything that is not in the index, and some more."""
        self._waiting: list[Line] = []
        """Appended, and perhaps not on the disk."""
        self._saved: list[Line] = []
        """On the disk, and not in the index."""
        self._indexed = time.monotonic()
        """When the index last had everything that was on the disk."""
        self._flusher: threading.Thread | None = None
        self._wake = threading.Condition()
        self._closed = False
        self._failure: Exception | None = None
        self._readers: dict[str, Plain | Packed] = {}
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        self._own = Appender(folder)
        self._index = Index(folder, self._warn)
        self._refilled = 0
        """Which beginning of the index holds what the files hold: see `Index.emptied`."""
        self.refresh()

    def get(self, key: str) -> Entry | None:
        """The oldest sound answer to a key, or None."""
        with self._lock:
            fresh = self._fresh.get(key)
        with self._indexing:
            for place in [fresh] if fresh is not None else self._sound(lambda: self._index.places(key)):
                entry = self._read(place)
                if entry is not None and entry.key == key:
                    return entry
                self._warn(f"a damaged line counts as missing: {place.file}, byte {place.offset}")
                self.damaged += 1
                self._index.remove(place)
                with self._lock:
                    if self._fresh.get(key) == place:
                        del self._fresh[key]
        return None

    def answered(self, keys: Sequence[str]) -> set[str]:
        """Those of some keys that have an answer: one look for all of them costs half of one for each."""
        with self._lock:
            found = {key for key in keys if key in self._fresh}
        with self._indexing:
            return found.union(self._sound(lambda: self._index.answered(keys)))

    def answered_lately(self, key: str) -> bool:
        """Whether a key is among the last thousands that this process has written an answer to; no look at a disk."""
        with self._lock:
            return key in self._fresh

    def append(self, entry: Entry) -> None:
        """Write an entry down, with one write; it is on the disk after at most 64 entries or half a second.

        Raises:
            UserError: when the disk is full or may not be written. What was appended before stays.
        """
        line = line_of(json_of(entry))
        length = len(line) - 1
        with self._lock:
            offset = self._own.append(line)
            self._waiting.append(_row(vars(entry), offset, length))
            if entry.answered:
                self._fresh[entry.key] = Place(self._own.name, offset, length)
            waiting = len(self._waiting)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
        if waiting >= GROUP:
            self._save()
        if waiting == 1 or waiting == GROUP // 2 or waiting >= GROUP:
            self._wake_flusher()

    def flush(self) -> None:
        """Bring everything appended onto the disk and into the index.

        Raises:
            UserError: when the disk is full.
        """
        with self._flushing:
            self._save()
            self._index_saved()

    def refresh(self) -> None:
        """See what other processes wrote, and fill the index where it lags behind the files."""
        self.flush()
        with self._indexing:
            self._catch_up()

    def rebuild(self) -> None:
        """Fill the index anew from the files."""
        self.flush()
        with self._indexing:
            self._index.empty()
            self._catch_up()

    def files(self) -> dict[str, int]:
        """Name of every file of the folder, this process's own included, and the bytes of its text."""
        return files_in(self.folder)

    @property
    def own_file(self) -> str:
        """Name of the file that this process writes; creates and locks it."""
        with self._lock:
            try:
                self._own.open()
            except OSError as error:
                raise explained(error, "opening the journal") or error from error
            return self._own.name

    def __iter__(self) -> Iterator[Entry]:
        """Every sound entry, failures included, file by file; constant memory."""
        self.flush()
        for name in files_in(self.folder):
            for found in lines_of_file(self.folder, name):
                if found.entry is not None and (entry := entry_of(found.entry)) is not None:
                    yield entry

    def __len__(self) -> int:
        """Sound entries, failures included."""
        self.flush()
        with self._indexing:
            return int(next(self._sound(lambda: self._index.select("SELECT count(*) FROM entry")))[0])

    def select(self, query: str) -> Iterator[tuple[Json, ...]]:
        """Rows of an SQL query over the index's table `entry`; for ledgers over millions of entries."""
        self.flush()
        with self._indexing:
            return self._sound(lambda: self._index.select(query))

    def close(self) -> None:
        """Flush, and give files and threads back."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._flusher is not None:
            self._flusher.join()
        self.flush()
        with self._indexing:
            self._own.close()
            self._index.close()
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()

    def _save(self) -> None:
        """Bring everything appended onto the disk; from time to time also into the index."""
        with self._flushing:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            if waiting:
                try:
                    self._own.sync()
                except Exception:
                    with self._lock:
                        self._waiting = waiting + self._waiting
                    raise
                self._saved += waiting
            if len(self._saved) >= INDEXED or time.monotonic() - self._indexed >= SEEN:
                self._index_saved()

    def _index_saved(self) -> None:
        """Bring everything on the disk into the index."""
        self._indexed = time.monotonic()
        if not self._saved:
            return
        lines, self._saved = self._saved, []
        with self._indexing:
            self._index.fill(self._own.name, lines, lines[0].offset, lines[-1].offset + lines[-1].length + 1)
        with self._lock:
            passed = len(self._fresh) - len(self._waiting) - LATELY
            for key in list(islice(self._fresh, max(0, passed))):
                del self._fresh[key]

    # -- the flusher: fsync and index beside the answers, so that they do not wait for the disk ------------------------

    def _wake_flusher(self) -> None:
        with self._wake:
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_now_and_then, name="journal", daemon=True)
                self._flusher.start()
            self._wake.notify_all()

    def _flush_now_and_then(self) -> None:
        while not self._closed:
            with self._wake:
                if not self._waiting and not self._closed:
                    self._wake.wait(SECONDS if self._saved else None)
                if 0 < len(self._waiting) < GROUP // 2 and not self._closed:
                    self._wake.wait(SECONDS)
            try:
                self._save()
            except Exception as error:
                self._failure = error
                with self._wake:  # the next answer raises it; until then the disk is left alone for a while
                    self._wake.wait_for(lambda: self._closed, SECONDS)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Index whatever the files hold and the index does not."""
        self._refilled = self._index.emptied
        filled = self._index.filled()
        sizes = files_in(self.folder)
        for name in [name for name, end in filled.items() if end > sizes.get(name, -1)]:
            self._index.forget(name)
            filled.pop(name)
        for name, size in sizes.items():
            if size > filled.get(name, 0):
                self._fill(name, filled.get(name, 0))

    def _fill(self, name: str, start: int) -> None:
        """Index a file from a byte position on; damaged lines are counted, said and passed over."""
        lines: list[Line] = []
        end = start
        for found in lines_of_file(self.folder, name, start):
            end = found.offset + found.length + 1
            fields = json.loads(found.entry) if found.entry is not None else None
            if isinstance(fields, dict) and "key" in fields:
                lines.append(_row(fields, found.offset, found.length))
            else:
                self.damaged += 1
                self._warn(f"a damaged line counts as missing: {name}, byte {found.offset}")
            if len(lines) >= 10_000:
                self._index.fill(name, lines, start, end)
                lines, start = [], end
        self._index.fill(name, lines, start, end)

    def _sound(self, look: Callable[[], T]) -> T:
        """What a look at the index finds; where that one had to be begun anew, by this look or by a writing before it,
        when it is filled again."""
        found = look()
        if self._index.emptied > self._refilled:
            self._catch_up()
            found = look()
        return found

    def _read(self, place: Place) -> Entry | None:
        if place.file not in self._readers:
            if len(self._readers) >= 64:
                self._readers.pop(next(iter(self._readers))).close()
            try:
                self._readers[place.file] = opened(self.folder, place.file)
            except OSError:
                return None
        body = entry_in(self._readers[place.file].read(place.offset, place.length))
        return entry_of(body) if body is not None else None

    def _warn(self, message: str) -> None:
        self._say(f"journal {self.folder}: {message}")


_open: dict[tuple[int, Path], Journal] = {}
_opening = threading.Lock()


def journal_at(folder: Path, say: Callable[[str], None] | None = None) -> Journal:
    """The journal of a folder, opened once per process (a forked child opens its own)."""
    place = (os.getpid(), folder.resolve())
    with _opening:
        if place not in _open:
            _open[place] = Journal(folder, say)
        return _open[place]


def json_of(entry: Entry) -> bytes:
    """The JSON of an entry: UTF-8, or pure ASCII where a text is none (lone surrogates)."""
    try:
        return Entry.__pydantic_serializer__.to_json(entry, exclude_defaults=True)
    except PydanticSerializationError:
        fields = entry.model_dump(exclude_defaults=True)
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii")


def entry_of(body: bytes) -> Entry | None:
    """The entry of a line's JSON, or None when it is none of ours."""
    try:
        return Entry.model_validate(json.loads(body))
    except (ValueError, ValidationError):
        return None


def _row(fields: Mapping[str, Json], offset: int, length: int) -> Line:
    return Line(
        offset=offset,
        length=length,
        key=fields["key"],
        answered=fields.get("answered", True),
        model=fields["model"],
        purpose=fields.get("purpose", ""),
        kind=fields.get("kind", ""),
        cause=fields.get("cause", "ok"),
        retry=fields.get("params", {}).get("retry", 0),
        resent=fields.get("resent", 0),
        tokens_in=fields.get("tokens_in", 0),
        tokens_out=fields.get("tokens_out", 0),
        tokens_cached=fields.get("tokens_cached", 0),
        dollars=fields.get("dollars"),
    )
