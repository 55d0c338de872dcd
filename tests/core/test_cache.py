"""What is kept is whole or not there, whoever makes it, kills it or damages it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speed.core.cache import STALE, SUMS, aside_name, is_whole, make_once, remove_left, write_aside
from speed.core.content import save_memory, sha256_of


def make_two(folder: Path) -> None:
    (folder / "one.bin").write_bytes(b"one")
    (folder / "below").mkdir()
    (folder / "below" / "two.bin").write_bytes(b"two")


def must_not_make(folder: Path) -> None:
    raise AssertionError(f"{folder} is made again")


def test_a_file_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    for text in ("first", "second"):
        with write_aside(path) as aside:
            aside.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.json"
    path.write_text("before")

    def write_half() -> None:
        with write_aside(path) as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_its_name_and_never_the_place_of_a_full_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with write_aside(path) as aside:
        aside.mkdir()
        (aside / "file").write_text("x")
    assert (path / "file").read_text() == "x"
    with pytest.raises(OSError, match="not empty"), write_aside(path) as aside:
        aside.mkdir()
    assert (path / "file").read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = f"""
from pathlib import Path
from speed.core.cache import write_aside
with write_aside(Path({str(path)!r})) as aside:
    aside.write_text("other")
"""
    with write_aside(path) as aside:
        aside.write_text("mine")
        subprocess.run([sys.executable, "-c", script], check=True)
        assert path.read_text() == "other"
    assert path.read_text() == "mine"
    with write_aside(path) as first, write_aside(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "its block ended last"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    folder, here = tmp_path / "folder", aside_name(tmp_path / "left").name.split(".")[1].split("-")[0]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {
        "left": f"file.{here}-{gone.pid}-00000000.partial",
        "mine": f"file.{here}-{os.getpid()}-00000000.partial",
        "elsewhere": f"file.00000000-{gone.pid}-00000000.partial",
        "elsewhere, long ago": f"file.00000000-{gone.pid}-11111111.partial",
        "a stage's": "0123456789.partial",
    }
    for name in names.values():
        (folder / name).mkdir(parents=True)
        (folder / name / "half").write_text("half")
    old = time.time() - STALE - 60
    for path in (folder / names["elsewhere, long ago"] / "half", folder / names["elsewhere, long ago"]):
        os.utime(path, (old, old))
    with write_aside(folder / "file") as aside:
        aside.write_text("whole")
    assert {path.name for path in folder.iterdir()} == {
        "file", names["mine"], names["elsewhere"], names["a stage's"]
    }  # fmt: skip
    remove_left(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"file", names["a stage's"]}


def test_what_is_kept_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "key"
    assert not is_whole(folder)
    assert make_once(folder, make_two) == folder
    assert is_whole(folder)
    assert make_once(folder, must_not_make) == folder
    assert (folder / "below" / "two.bin").read_bytes() == b"two"


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "no sums", "sums are no JSON", "sums are a list"])
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    folder = make_once(tmp_path / "key", make_two)
    two = folder / "below" / "two.bin"
    if damage == "changed":
        two.write_bytes(b"TWO")
    elif damage == "cut":
        os.truncate(two, 1)
    elif damage == "missing":
        two.unlink()
    elif damage == "no sums":
        (folder / SUMS).unlink()
    else:
        (folder / SUMS).write_text("{" if damage == "sums are no JSON" else "[1]")
    (folder / "left over").touch()
    assert not is_whole(folder)
    make_once(folder, make_two)
    assert is_whole(folder)
    assert two.read_bytes() == b"two"
    assert not (folder / "left over").exists()


WAITING = """
import sys
from pathlib import Path
from speed.core.cache import make_once

def make(folder):
    with Path({log!r}).open("a") as log:
        log.write("made\\n")
    (folder / "file").write_text("x" * 100_000)
    print("inside", flush=True)
    sys.stdin.read(1)  # until the test closes it

make_once(Path({folder!r}), make)
assert (Path({folder!r}) / "file").read_text() == "x" * 100_000
"""


def start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    script = WAITING.format(folder=str(folder), log=str(log))
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path: Path) -> None:
    folder, log = tmp_path / "key", tmp_path / "log"
    first = start(folder, log)
    assert first.stdout is not None
    assert first.stdout.readline() == b"inside\n"
    second = start(folder, log)
    first.communicate(b"")
    second.communicate(b"")
    assert (first.returncode, second.returncode) == (0, 0)
    assert log.read_text() == "made\n"


def test_a_kill_half_way_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    folder, log = tmp_path / "key", tmp_path / "log"
    process = start(folder, log)
    assert process.stdout is not None
    assert process.stdout.readline() == b"inside\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = tmp_path.glob("key.*.partial")
    assert left.is_dir()
    assert not folder.exists()
    make_once(folder, make_two)
    assert is_whole(folder)
    assert not left.exists()


@pytest.mark.parametrize("before", ['{"/other": [1, 2, "sum"], "/bad": [1]}', "{", "[]"])
def test_saved_hashes_join_those_of_other_processes(tmp_path: Path, before: str) -> None:
    hashes, input_file = tmp_path / "hashes.json", tmp_path / "input"
    hashes.write_text(before)
    input_file.write_text("content")
    recorded = sha256_of(input_file)
    save_memory(hashes)
    saved = json.loads(hashes.read_text())
    assert saved[str(input_file)][2] == recorded
    assert ("/other" in saved) == before.startswith('{"')
    assert "/bad" not in saved
