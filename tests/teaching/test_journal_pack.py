"""Compressed journal files: the same answers at the same places, whenever the process dies in between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from test_journal import entry, without_index, written

from speed.teaching import journal_pack
from speed.teaching.journal import Journal
from speed.teaching.journal_pack import SUFFIX, Packed, files_in, lines_of_file, pack, pack_closed


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_pack, "FRAME", 2000)


def found(folder: Path, rows: int) -> list[int]:
    """Rows that a journal answers, in the order in which it iterates over them."""
    journal = Journal(folder)
    known = {entry(row).key: row for row in range(rows)}
    assert all(journal.get(each.key) == each for each in journal)
    return [known[each.key] for each in journal]


def test_a_compressed_file_answers_as_before_with_the_old_index_and_a_new_one(tmp_path: Path) -> None:
    plain = written(tmp_path, 300)
    text = plain.read_bytes()
    assert pack_closed(tmp_path) == 1
    assert [path.name for path in tmp_path.glob("*.jsonl*")] == [plain.name + SUFFIX]
    assert files_in(tmp_path) == {plain.name: len(text)}
    assert found(tmp_path, 300) == list(range(300))
    without_index(tmp_path)
    assert found(tmp_path, 300) == list(range(300))
    assert len(Journal(tmp_path)) == 300


def test_any_zstd_tool_reads_it(tmp_path: Path) -> None:
    plain = written(tmp_path, 300)
    text = plain.read_bytes()
    pack_closed(tmp_path)
    with (tmp_path / (plain.name + SUFFIX)).open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        assert stream.read() == text


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entry(0))
    assert pack_closed(tmp_path) == 0
    journal.append(entry(1))
    journal.close()
    assert pack_closed(tmp_path) == 1
    journal = Journal(tmp_path)
    journal.append(entry(2))
    assert found(tmp_path, 3) == [0, 1, 2]


def test_a_reader_that_has_the_file_open_goes_on_and_what_follows_goes_into_another_file(tmp_path: Path) -> None:
    writer, reader = Journal(tmp_path), Journal(tmp_path)
    for row in range(100):
        writer.append(entry(row))
    writer.flush()
    reader.refresh()
    assert reader.get(entry(5).key) == entry(5)
    writer.close()
    assert pack_closed(tmp_path) == 1
    writer.append(entry(100))
    writer.close()
    reader.refresh()
    assert [row for row in range(101) if reader.get(entry(row).key) != entry(row)] == []
    assert len(files_in(tmp_path)) == 2


def test_a_killed_writers_torn_line_is_left_out(tmp_path: Path) -> None:
    plain = written(tmp_path, 20)
    whole = plain.read_bytes()
    plain.write_bytes(whole[:-7])
    assert pack_closed(tmp_path) == 1
    without_index(tmp_path)
    journal = Journal(tmp_path)
    assert [row for row in range(20) if journal.get(entry(row).key) is None] == [19]
    assert journal.damaged == 0


STEPS = ["_write", "_same", "_sync_folder", "Path.replace", "Path.unlink"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_step_of_compressing_loses_and_doubles_nothing(tmp_path: Path, step: str, after: bool) -> None:
    written(tmp_path, 200)
    program = f"""
import os, sys
from pathlib import Path
from speed.teaching import journal_pack
owner = Path if {step!r}.startswith("Path.") else journal_pack
name = {step!r}.rpartition(".")[2]
real = getattr(owner, name)
def dying(*given, **named):
    if {after}: real(*given, **named)
    os.kill(os.getpid(), 9)
setattr(owner, name, dying)
journal_pack.pack_closed(Path(sys.argv[1]))
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert found(tmp_path, 200) == list(range(200))
    pack_closed(tmp_path)
    assert [path.suffix for path in tmp_path.glob("*json*")] == [SUFFIX]
    assert found(tmp_path, 200) == list(range(200))


def test_a_full_disk_keeps_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = written(tmp_path, 200)

    def full(path: Path, partial: Path) -> None:
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_pack, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        pack(plain)
    assert [path.name for path in tmp_path.glob("*json*")] == [plain.name]


def test_a_flipped_bit_costs_one_frame_and_is_said(tmp_path: Path) -> None:
    plain = written(tmp_path, 200)
    a_frame = 2000 * 200 // plain.stat().st_size + 1
    pack(plain)
    packed = tmp_path / (plain.name + SUFFIX)
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 1
    packed.write_bytes(bytes(content))
    without_index(tmp_path)
    said: list[str] = []
    journal = Journal(tmp_path, said.append)
    lost = [row for row in range(200) if journal.get(entry(row).key) is None]
    assert 1 <= len(lost) <= a_frame
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert journal.damaged == 1
    assert any("damaged" in message for message in said)


@pytest.mark.parametrize("cut", [1, 9, 30])
def test_a_damaged_table_is_found_again_by_walking(tmp_path: Path, cut: int) -> None:
    plain = written(tmp_path, 200)
    size = plain.stat().st_size
    pack(plain)
    packed = tmp_path / (plain.name + SUFFIX)
    os.truncate(packed, packed.stat().st_size - cut)
    assert Packed(packed).size == size
    assert sum(piece.entry is not None for piece in lines_of_file(tmp_path, plain.name)) == 200


def test_an_empty_file_of_a_dead_process_goes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.own_file in files_in(tmp_path)
    assert pack_closed(tmp_path) == 0
    assert journal.own_file in files_in(tmp_path)
    journal.close()
    pack_closed(tmp_path)
    assert files_in(tmp_path) == {}


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


def test_a_copied_journal_is_a_journal(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    written(tmp_path / "a", 10)
    pack_closed(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert found(tmp_path / "b", 10) == list(range(10))
