"""The call journal: what was appended is found again, whatever happened to the files in between."""

from __future__ import annotations

import errno
import os
import queue
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speed.core.errors import UserError
from speed.teaching.entry import Entry, entry_of, json_of, key
from speed.teaching.journal import GROUP, SECONDS, Journal
from speed.teaching.lines import entry_in, line_of, lines_from
from speed.teaching.session import session_at

PARAMS = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 100}


def entry(row: int, **fields: object) -> Entry:
    messages = ({"role": "user", "content": f"prompt {row}"},)
    given = {"key": key("m", messages, PARAMS, 0), "model": "m", "messages": messages, "params": PARAMS}
    return Entry.model_validate({**given, "text": f"answer {row}", "dollars": 0.25, **fields})


def written(folder: Path, rows: int) -> Path:
    """A closed journal of so many answers; its one file."""
    journal = Journal(folder)
    for row in range(rows):
        journal.append(entry(row))
    journal.close()
    return next(folder.glob("*.jsonl"))


def without_index(folder: Path) -> None:
    for path in folder.glob("index*"):
        path.unlink()


def test_what_is_appended_is_found_at_once_later_and_by_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    other = Journal(tmp_path)
    for row in range(200):
        journal.append(entry(row))
        assert journal.get(entry(row).key) == entry(row)
    assert journal.get(entry(200).key) is None
    journal.flush()
    other.refresh()
    assert [other.get(entry(row).key) for row in range(200)] == [entry(row) for row in range(200)]
    assert list(other) == [entry(row) for row in range(200)]
    assert len(other) == 200


def test_another_process_sees_an_answer_after_a_moment(tmp_path: Path) -> None:
    """Sweeps side by side ask for the same keys; what the one has paid for must not wait for the end of its `ask`."""
    journal = Journal(tmp_path)
    other = Journal(tmp_path)
    for rows in (range(1), range(1, 2), range(2, 102)):
        for row in rows:
            journal.append(entry(row))
        keys = {entry(row).key for row in rows}
        latest = time.monotonic() + 120
        while any(other.get(key) is None for key in keys):
            assert time.monotonic() < latest
            time.sleep(0.01)


def test_a_journal_written_by_many_threads_is_opened_without_being_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    shares = [range(start, start + 500) for start in range(0, 4000, 500)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda share: [journal.append(entry(row)) for row in share], shares))
    journal.close()
    file = next(tmp_path.glob("*.jsonl"))
    index = sqlite3.connect(next(tmp_path.glob("index*.sqlite")))
    assert index.execute("SELECT name, filled FROM file").fetchall() == [(file.name, file.stat().st_size)]
    again = Journal(tmp_path)
    assert len(again) == 4000
    assert all(again.get(entry(row).key) == entry(row) for row in range(0, 4000, 100))


def test_a_key_is_what_was_asked_and_nothing_else() -> None:
    messages = [{"role": "user", "content": "x"}]
    same = key("m", messages, PARAMS, 0)
    assert same == key("m", ({"content": "x", "role": "user"},), dict(reversed(PARAMS.items())), 0)
    others = [
        key("n", messages, PARAMS, 0),
        key("m", [{"role": "user", "content": "y"}], PARAMS, 0),
        key("m", [{"role": "system", "content": "x"}], PARAMS, 0),
        key("m", messages, {**PARAMS, "temperature": 0.9}, 0),
        key("m", messages, {**PARAMS, "max_tokens": 200}, 0),
        key("m", messages, {**PARAMS, "retry": 1}, 0),
        key("m", messages, PARAMS, 1),
    ]
    assert len({same, *others}) == len(others) + 1


def test_a_failed_request_is_recorded_but_answers_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entry(0, text="", cause="timeout", answered=False, dollars=0.0))
    assert journal.get(entry(0).key) is None
    journal.append(entry(0))
    assert journal.get(entry(0).key) == entry(0)
    assert len(journal) == 2


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None)))  # lone surrogates and NUL included
def test_any_text_survives_a_line(text: str) -> None:
    line = line_of(json_of(entry(0, text=text, messages=({"role": "user", "content": text},))))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    body = entry_in(line[:-1])
    assert body is not None
    assert entry_of(body) == entry(0, text=text, messages=({"role": "user", "content": text},))


def test_any_flipped_bit_is_noticed() -> None:
    line = line_of(b'{"key":"ab","text":"x\\n"}')[:-1]
    for place in range(len(line)):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[place] ^= 1 << bit
            assert entry_in(bytes(damaged)) is None


def test_a_flipped_bit_costs_one_answer_and_is_said(tmp_path: Path) -> None:
    file = written(tmp_path, 5)
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"answer 2") + 3] ^= 1
    file.write_bytes(whole)
    for fresh_index in (False, True):
        if fresh_index:
            without_index(tmp_path)
        said: list[str] = []
        journal = Journal(tmp_path, said.append)
        found = [journal.get(entry(row).key) for row in range(5)]
        assert [answer is not None for answer in found] == [True, True, False, True, True]
        assert journal.damaged == 1
        assert any(file.name in message and "damaged" in message for message in said)


def test_a_flipped_bit_in_what_was_written_lately_is_said_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entry(0))
    journal.flush()
    file = tmp_path / journal.own_file
    line = bytearray(file.read_bytes())
    line[40] ^= 1
    file.write_bytes(line)
    assert [journal.get(entry(0).key) for _ in range(2)] == [None, None]
    assert journal.damaged == 1
    journal.append(entry(0))
    assert journal.get(entry(0).key) == entry(0)


def test_a_damaged_newline_costs_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, 3)
    file.write_bytes(file.read_bytes().replace(b"\n", b"\x0b", 1))
    without_index(tmp_path)
    journal = Journal(tmp_path)
    assert [journal.get(entry(row).key) is not None for row in range(3)] == [True, True, True]


def test_a_line_torn_at_any_byte_is_the_only_one_lost(tmp_path: Path) -> None:
    file = written(tmp_path, 3)
    whole = file.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for end in range(last, len(whole)):
        file.write_bytes(whole[:end])
        found = list(lines_from(file, 0))
        assert [piece.entry is not None for piece in found] == [True, True]
    without_index(tmp_path)
    journal = Journal(tmp_path)
    assert journal.get(entry(2).key) is None
    journal.append(entry(2))
    journal.close()
    assert Journal(tmp_path).get(entry(2).key) == entry(2)


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "half", "holes"])
def test_the_index_can_be_lost_at_any_time(tmp_path: Path, damage: str) -> None:
    written(tmp_path, 500)
    index = next(tmp_path.glob("index*.sqlite"))
    whole = index.read_bytes()
    for path in tmp_path.glob("index*"):
        path.unlink()
    if damage != "gone":
        holes = whole[:4096] + os.urandom(len(whole) - 4096)
        index.write_bytes({"empty": b"", "garbage": os.urandom(5000), "half": whole[:5000], "holes": holes}[damage])
    journal = Journal(tmp_path)
    assert all(journal.get(entry(row).key) == entry(row) for row in range(500))
    assert len(journal) == 500


def test_an_index_damaged_under_a_running_process_is_made_anew(tmp_path: Path) -> None:
    file = written(tmp_path, 300)
    journal = Journal(tmp_path)
    journal.append(entry(300))
    index = next(tmp_path.glob("index*.sqlite"))
    with index.open("r+b") as handle:
        handle.seek(100)
        handle.write(os.urandom(index.stat().st_size - 100))
    assert [row for row in range(301) if journal.get(entry(row).key) is None] == []
    journal.append(entry(301))
    journal.close()
    assert Journal(tmp_path).get(entry(301).key) == entry(301)
    assert file.exists()


@pytest.mark.parametrize("look", ["get", "len", "select"])
def test_an_index_that_a_writing_found_damaged_answers_as_before(look: str, tmp_path: Path) -> None:
    """What is paid for must be found by the very next look, or it is bought again."""
    written(tmp_path, 300)
    journal = Journal(tmp_path)
    index = next(tmp_path.glob("index*.sqlite"))
    with index.open("r+b") as handle:
        handle.seek(100)
        handle.write(os.urandom(index.stat().st_size - 100))
    journal.append(entry(300))
    journal.flush()
    keys = [entry(row).key for row in range(301)]
    looks = {
        "get": lambda: [key for key in keys if journal.get(key) is None] == [],
        "len": lambda: len(journal) == 301,
        "select": lambda: journal.select("SELECT sum(dollars) FROM entry") == [(301 * 0.25,)],
    }
    assert looks[look]()


def test_a_shortened_file_is_indexed_anew(tmp_path: Path) -> None:
    file = written(tmp_path, 10)
    whole = file.read_bytes()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    journal = Journal(tmp_path)
    assert [journal.get(entry(row).key) is not None for row in range(10)] == [True] * 4 + [False] * 6


def test_a_full_disk_is_one_message_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append(entry(0))
    write, room = os.write, [20]

    def full(descriptor: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= (done := write(descriptor, data[: room[0]]))
        return done

    monkeypatch.setattr("speed.teaching.journal.os.write", full)
    with pytest.raises(UserError, match=r"disk is full.*\n.*run the same command again"):
        journal.append(entry(1))
    monkeypatch.undo()
    journal.append(entry(2))
    journal.close()
    again = Journal(tmp_path)
    assert [again.get(entry(row).key) is not None for row in range(3)] == [True, False, True]
    assert again.damaged == 0


def test_a_disk_that_cannot_save_is_left_alone_between_tries_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is the test's own: a wait with a limit ends when the test lets it."""
    happened: queue.Queue[str] = queue.Queue()
    goes_on = threading.Semaphore(0)

    def wait(news: threading.Condition, done: Callable[[], bool], seconds: float | None) -> bool:
        if seconds is None or done():
            return news.wait_for(done)
        happened.put(f"waits {seconds:g} s")
        news.release()
        try:
            goes_on.acquire()
        finally:
            news.acquire()
        return done()

    def failing(descriptor: int) -> None:
        happened.put("tries")
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path, wait=wait)
    with monkeypatch.context() as broken:
        broken.setattr("speed.teaching.journal.os.fsync", failing)
        for row in range(GROUP // 2):  # so many are saved at once
            journal.append(entry(row))
        while (begun := happened.get(timeout=120)) != "tries":
            goes_on.release()
        seen = [begun]
        for _ in range(2):
            seen.append(happened.get(timeout=120))
            assert happened.empty(), "nothing is tried before the wait is over"
            goes_on.release()
            seen.append(happened.get(timeout=120))
        assert seen == ["tries", f"waits {SECONDS:g} s", "tries", f"waits {SECONDS:g} s", "tries"]
        with pytest.raises(UserError, match="disk is full"):
            journal.append(entry(GROUP // 2))
    for _ in range(9):
        goes_on.release()
    journal.close()
    again = Journal(tmp_path)
    assert all(again.get(entry(row).key) == entry(row) for row in range(GROUP // 2 + 1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_journal_answers(tmp_path: Path) -> None:
    written(tmp_path, 3)
    without_index(tmp_path)
    tmp_path.chmod(0o500)
    try:
        journal = Journal(tmp_path)
        assert journal.get(entry(1).key) == entry(1)
        with pytest.raises(UserError, match="permission"):
            journal.append(entry(5))
    finally:
        tmp_path.chmod(0o700)


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_journal import entry
from speed.teaching.journal import Journal
journal = Journal(Path(sys.argv[1]))
for row in range(int(sys.argv[2]), int(sys.argv[2]) + 100_000):
    journal.append(entry(row))
    sys.stdout.write(f"{row}\\n")
    sys.stdout.flush()
"""


def test_a_kill_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    """Three processes write at once and are killed, each after its own number of answers."""
    draw = random.Random(0)
    starts = [0, 1_000_000, 2_000_000]
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(start), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True)
        for start in starts
    ]
    acknowledged: list[int] = []
    for process in running:
        assert process.stdout is not None
        wanted = draw.randrange(50, 3000)
        acknowledged += [int(line) for line, _ in zip(process.stdout, range(wanted), strict=False)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
        process.wait()
        process.stdout.close()
    journal = Journal(tmp_path)
    assert len(acknowledged) > 150
    assert [row for row in acknowledged if journal.get(entry(row).key) != entry(row)] == []
    assert len(list(tmp_path.glob("*.jsonl"))) == 3


def test_a_process_has_one_session_under_a_root(tmp_path: Path) -> None:
    assert session_at(tmp_path / "a") is session_at(tmp_path / "a")
    assert session_at(tmp_path / "a") is not session_at(tmp_path / "b")


def test_the_index_is_made_anew_under_others_that_use_it(tmp_path: Path) -> None:
    writer, other = Journal(tmp_path), Journal(tmp_path)
    for row in range(100):
        writer.append(entry(row))
        other.append(entry(1000 + row))
        if row % 10 == 0:
            other.rebuild()
    writer.flush()
    other.rebuild()
    rows = [*range(100), *range(1000, 1100)]
    assert [row for row in rows if other.get(entry(row).key) != entry(row)] == []
    assert len(other) == 200


def test_what_follows_a_closing_goes_into_another_file(tmp_path: Path) -> None:
    writer, reader = Journal(tmp_path), Journal(tmp_path)
    writer.append(entry(0))
    writer.close()
    writer.append(entry(1))
    writer.close()
    reader.refresh()
    assert [row for row in range(2) if reader.get(entry(row).key) != entry(row)] == []
    assert len(reader.files()) == 2


def test_an_empty_file_of_a_dead_process_goes_and_one_of_a_live_process_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    own = journal.own_file
    assert list(Journal(tmp_path).files()) == [own]
    journal.close()
    assert journal.files() == {}


def test_what_another_host_is_still_writing_is_read_once_it_is_whole(tmp_path: Path) -> None:
    """Over a network a file may grow before its last bytes are there: they are no damage while its process lives."""
    writer = Journal(tmp_path)
    for row in range(3):
        writer.append(entry(row))
    file = tmp_path / writer.own_file
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\0" * (len(lines[1]) - 1) + b"\n" + lines[2])
    reader = Journal(tmp_path)
    assert [reader.get(entry(row).key) is not None for row in range(3)] == [True, False, False]
    assert reader.damaged == 0
    file.write_bytes(whole)
    reader.refresh()
    assert [reader.get(entry(row).key) is not None for row in range(3)] == [True, True, True]


def test_an_index_from_before_the_machine_was_started_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not synced: a power cut may have left it with places that are not there and without places that are."""
    file = written(tmp_path, 5)
    path = next(tmp_path.glob("index*.sqlite"))
    with sqlite3.connect(path) as index:
        index.execute("DELETE FROM entry WHERE offset > 0")
    assert Journal(tmp_path).get(entry(3).key) is None, "within one start of the machine it is believed"
    monkeypatch.setattr("speed.teaching.index._boot", lambda: "the next one")
    for _ in range(2):
        journal = Journal(tmp_path)
        assert [row for row in range(5) if journal.get(entry(row).key) != entry(row)] == []
        journal.close()
    first = path.stat().st_ino
    assert len(Journal(tmp_path)) == 5
    assert path.stat().st_ino == first, "once is enough"
    assert file.exists()
