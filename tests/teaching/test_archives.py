"""Journal files that earlier versions compressed: the same answers, whenever the process dies while it unpacks them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from old_archive import archived
from test_journal import entry, without_index, written

from speed.core.errors import UserError
from speed.teaching import lines
from speed.teaching.journal import Journal


def found(folder: Path, rows: int) -> list[int]:
    """Rows that a journal answers, in the order in which it iterates over them."""
    journal = Journal(folder)
    known = {entry(row).key: row for row in range(rows)}
    assert all(journal.get(each.key) == each for each in journal)
    return [known[each.key] for each in journal]


def test_an_archive_is_unpacked_once_and_nothing_else_of_old_stays(tmp_path: Path) -> None:
    plain = written(tmp_path, 300)
    text = plain.read_bytes()
    without_index(tmp_path)
    archived(plain)
    for name in ("index-1.sqlite", "index-1.sqlite-wal", "account.json"):
        (tmp_path / name).write_bytes(b"of an earlier version")
    (tmp_path / "asking").mkdir()
    (tmp_path / "asking" / "somebody").touch()
    assert found(tmp_path, 300) == list(range(300))
    kept = {path.name for path in tmp_path.iterdir()} - {"index-3.sqlite-journal"}
    assert kept == {plain.name, "index-3.sqlite"}
    assert plain.read_bytes() == text


def test_where_both_files_are_there_the_plain_one_counts(tmp_path: Path) -> None:
    plain = written(tmp_path, 20)
    text = plain.read_bytes()
    archive = archived(plain)
    plain.write_bytes(text)
    assert found(tmp_path, 20) == list(range(20))
    assert not archive.exists()


def test_two_processes_unpack_at_once(tmp_path: Path) -> None:
    for name in range(8):
        archived(written(tmp_path / str(name), 200)).rename(tmp_path / f"{name}.jsonl.zst")
    with ThreadPoolExecutor(4) as threads:
        sizes = list(threads.map(lambda _: len(Journal(tmp_path)), range(4)))
    assert sizes == [1600] * 4


STEPS = ["os.fsync", "sync_folder", "Path.replace", "Path.unlink"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_step_loses_and_doubles_nothing(tmp_path: Path, step: str, after: bool) -> None:
    plain = written(tmp_path, 200)
    without_index(tmp_path)
    archived(plain)
    program = f"""
import os, sys
from pathlib import Path
from speed.teaching import lines
owner = {{"os": os, "Path": Path, "": lines}}[{step!r}.rpartition(".")[0]]
name = {step!r}.rpartition(".")[2]
real = getattr(owner, name)
def dying(*given, **named):
    if {after}: real(*given, **named)
    os.kill(os.getpid(), 9)
setattr(owner, name, dying)
lines.unpack_archives(Path(sys.argv[1]), print)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert found(tmp_path, 200) == list(range(200))
    assert [path.suffix for path in tmp_path.glob("*json*")] == [".jsonl"]


def test_what_cannot_be_unpacked_is_one_message_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers would be paid for again otherwise."""
    archive = archived(written(tmp_path, 200))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"disk is full while unpacking .*\n.*run the same command again"):
            Journal(tmp_path)
    assert archive.exists()
    assert found(tmp_path, 200) == list(range(200))


def test_a_flipped_bit_costs_one_frame_is_said_and_the_archive_is_kept(tmp_path: Path) -> None:
    plain = written(tmp_path, 200)
    a_frame = 2000 * 200 // plain.stat().st_size + 1
    without_index(tmp_path)
    archive = archived(plain)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(bytes(content))
    said: list[str] = []
    journal = Journal(tmp_path, said.append)
    lost = [row for row in range(200) if journal.get(entry(row).key) is None]
    assert 1 <= len(lost) <= a_frame
    assert lost == list(range(lost[0], lost[-1] + 1))
    kept = archive.with_name(archive.name + ".damaged")
    assert kept.read_bytes() == bytes(content)
    assert any("damaged" in message and kept.name in message for message in said)


@pytest.mark.parametrize("cut", [1, 9, 30])
def test_a_damaged_table_costs_nothing(tmp_path: Path, cut: int) -> None:
    plain = written(tmp_path, 200)
    text = plain.read_bytes()
    archive = archived(plain)
    os.truncate(archive, archive.stat().st_size - cut)
    lines.unpack_archives(tmp_path, print)
    assert plain.read_bytes() == text
