"""The call journal: every answer that was ever paid for, so that none is paid for again.

    <home>/journal/<host>-<pid>-<start>.jsonl    appended by one process, one write per answer: the truth
    <home>/journal/index-3.sqlite                where each answer lies (`speed.teaching.index`)

An entry's key is (model, messages, sampling parameters, sample index) and nothing else: provider, endpoint and
template version are recorded, never keyed. Answers are on the disk within half a second or 64 answers, whichever
comes first; a kill loses nothing that was appended, a power cut at most that. Other processes find them in the index
from then on.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from speed.core.errors import explained
from speed.core.spec import Json
from speed.teaching.entry import Entry, Spending, entry_of, json_of
from speed.teaching.index import Index, Place
from speed.teaching.lines import entry_in, files_in, line_of, lines_from, tidy, unpack_archives

GROUP = 64
"""Answers that may wait for one fsync."""
SECONDS = 0.5
"""How long an answer may wait for it."""
READERS = 64
"""Files that are kept open for reading."""

Wait = Callable[[threading.Condition, Callable[[], bool], float | None], bool]


class Journal:
    """The journal of one folder, as this process sees it. Safe with many threads and many processes."""

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None] | None = None,
        wait: Wait = threading.Condition.wait_for,
    ) -> None:
        """Open the journal below a folder.

        Args:
            say: takes what the reader should know.
            wait: how the thread that saves waits; for tests.
        """
        self.folder = folder
        self.paid = Spending()
        """What the answers in this process's own file cost."""
        self.name = _new_name()
        """Of this process's own file, which is opened at its first line."""
        self._say = say or (lambda message: None)
        self._wait = wait
        self._lock = threading.Lock()
        """Held for an append alone, so that answers and look-ups go on during an fsync."""
        self._saving = threading.RLock()
        self._descriptor: int | None = None
        self._size = 0
        self._recent: dict[str, Place] = {}
        """Answers of this process that are not in the index yet."""
        self._waiting = 0
        """Entries that may not be on the disk yet."""
        self._news = threading.Condition()
        self._saver: threading.Thread | None = None
        self._closed = False
        self._failure: Exception | None = None
        self._misread = 0
        self._reading = threading.Lock()
        self._readers: dict[str, int] = {}
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        unpack_archives(folder, self._warn)
        tidy(folder)
        self.index = Index(folder, self._warn)
        self.index.own = self.name
        self.refresh()

    @property
    def damaged(self) -> int:
        """Lines met so far whose checksum does not match; they count as missing."""
        return self._misread + self.index.damaged

    def get(self, key: str) -> Entry | None:
        """The oldest sound answer to a key, or None."""
        with self._lock:
            recent = self._recent.get(key)
        for place in [recent] if recent is not None else self.index.places(key):
            entry = self._read(place)
            if entry is not None and entry.key == key:
                return entry
            self._warn(f"a damaged line counts as missing: {place.file}, byte {place.offset}")
            self._misread += 1
            self.index.remove(place)
            with self._lock:
                if self._recent.get(key) == place:
                    del self._recent[key]
        return None

    def append(self, entry: Entry) -> None:
        """Write an entry down, with one write; it is on the disk after at most 64 entries or half a second.

        Raises:
            UserError: when the disk is full or may not be written. What was appended before stays.
        """
        line = line_of(json_of(entry))
        with self._lock:
            offset = self._written(line)
            self._waiting += 1
            waiting = self._waiting
            if entry.answered:
                self._recent[entry.key] = Place(self.name, offset, len(line) - 1)
                cost = Spending(entry.dollars or 0.0, entry.tokens_in + entry.tokens_out, 1)
                self.paid = self.paid.plus(cost)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
        if waiting >= GROUP:
            self.flush()
        elif waiting == 1 or waiting == GROUP // 2:
            self._wake_saver()

    def flush(self) -> None:
        """Bring everything appended onto the disk and into the index.

        Raises:
            UserError: when the disk is full.
        """
        with self._saving:
            with self._lock:
                waiting, self._waiting = self._waiting, 0
            if not waiting or self._descriptor is None:
                return
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                with self._lock:
                    self._waiting += waiting
                raise self._explained(error, "saving the teacher's answers") from error
            covered = self.index.catch_up(only_own=True)
            with self._lock:
                self._recent = {key: place for key, place in self._recent.items() if place.offset >= covered}

    def refresh(self) -> None:
        """See what other processes wrote, and fill the index where it lags behind the files."""
        self.flush()
        self.index.catch_up()

    def rebuild(self) -> None:
        """Fill the index anew from the files."""
        self.flush()
        self.index.empty()
        self.index.catch_up()

    def files(self) -> dict[str, int]:
        """Name of every file of the folder, this process's own included, and its bytes."""
        return files_in(self.folder)

    @property
    def own_file(self) -> str:
        """Name of the file that this process writes; creates and locks it, which says that the process is alive."""
        with self._lock:
            try:
                self._opened()
            except OSError as error:
                raise self._explained(error, "opening the journal") from error
            return self.name

    def __iter__(self) -> Iterator[Entry]:
        """Every sound entry, failures included, file by file; constant memory."""
        self.flush()
        for name in files_in(self.folder):
            for found in lines_from(self.folder / name):
                if found.entry is not None and (entry := entry_of(found.entry)) is not None:
                    yield entry

    def __len__(self) -> int:
        """Sound entries, failures included."""
        return int(self.select("SELECT count(*) FROM entry")[0][0])

    def select(self, query: str) -> list[tuple[Json, ...]]:
        """Rows of an SQL query over the index's table `entry`; for ledgers over millions of entries."""
        self.flush()
        return self.index.select(query)

    def close(self) -> None:
        """Flush, and give files and threads back. A file that is closed is done: what comes later goes into another."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._saver is not None:
            self._saver.join()
        self.flush()
        with self._saving, self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor, self._size, self.paid = None, 0, Spending()
            self.name = self.index.own = _new_name()
        with self._reading:
            for descriptor in self._readers.values():
                os.close(descriptor)
            self._readers.clear()
        tidy(self.folder)
        self.index.close()
        self._saver, self._closed = None, False

    # -- this process's own file ---------------------------------------------------------------------------------------

    def _written(self, line: bytes) -> int:
        """Write a line and return its offset. A write that fails halfway is taken back."""
        offset = self._size
        try:
            descriptor = self._opened()
            written = os.write(descriptor, line)
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError as error:
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, offset)
            raise self._explained(error, "writing down a teacher's answer") from error
        self._size = offset + len(line)
        return offset

    def _opened(self) -> int:
        """The file's descriptor; creates the file, and locks it, where that has not been done."""
        while self._descriptor is None:
            path = self.folder / self.name
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            with suppress(OSError):  # waits only for somebody who is removing the empty file
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        return self._descriptor

    def _explained(self, error: OSError, doing: str) -> Exception:
        """The reader's version of an error, with the file that os.write and os.fsync do not name."""
        named = OSError(error.errno, error.strerror, error.filename or str(self.folder / self.name))
        return explained(named, doing) or error

    def _wake_saver(self) -> None:
        with self._news:
            if self._saver is None:
                self._saver = threading.Thread(target=self._save_in_groups, name="journal", daemon=True)
                self._saver.start()
            self._news.notify_all()

    def _save_in_groups(self) -> None:
        """fsync beside the answers, so that they do not wait for the disk."""
        while not self._closed:
            with self._news:
                self._wait(self._news, lambda: self._closed or self._waiting > 0, None)
                self._wait(self._news, lambda: self._closed or self._waiting >= GROUP // 2, SECONDS)
            try:
                self.flush()
            except Exception as error:
                self._failure = error
                with self._news:  # the next answer raises it; until then the disk is left alone for a while
                    self._wait(self._news, lambda: self._closed, SECONDS)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _read(self, place: Place) -> Entry | None:
        with self._reading:
            for again in (False, True):  # another host's file may have grown since it was opened here
                try:
                    line = os.pread(self._reader(place.file, again), place.length, place.offset)
                except OSError:
                    return None
                if (body := entry_in(line)) is not None:
                    return entry_of(body)
        return None

    def _reader(self, name: str, again: bool) -> int:
        if again:
            os.close(self._readers.pop(name))
        if name not in self._readers:
            if len(self._readers) >= READERS:
                os.close(self._readers.pop(next(iter(self._readers))))
            self._readers[name] = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        return self._readers[name]

    def _warn(self, message: str) -> None:
        self._say(f"journal {self.folder}: {message}")


def holds_answers(folder: Path, model: str) -> bool:
    """Whether the journal of a folder holds answers of a model."""
    if not folder.is_dir():
        return False
    with closing(Journal(folder)) as journal:
        return any(name == model for (name,) in journal.select("SELECT DISTINCT model FROM entry WHERE answered"))


def answered_keys(folder: Path, keys: Iterable[str]) -> set[str]:
    """Those of some keys that the journal of a folder has answers to; where there is none, none is begun."""
    if not any(folder.glob("*.jsonl*")):
        return set()
    with closing(Journal(folder)) as journal:
        return {key for key in keys if journal.index.places(key)}


def _new_name() -> str:
    host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname()) or "host"
    return f"{host}-{os.getpid()}-{time.time_ns()}.jsonl"
