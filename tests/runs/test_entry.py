"""How commands end: one message for a mistake or a failing disk, none for a reader that has seen enough."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import HANG, ROOT

from speed.core.errors import StoreError, UserError
from speed.run import main
from speed.runs.entry import one_message


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "rows.jsonl")


def mistaken() -> None:
    raise UserError("\x1b[31mred: take another")


def lost() -> None:
    raise StoreError("the store is a file")


@pytest.mark.parametrize(
    ("fails", "parts"),
    [
        (full, ["the disk is full while exporting: rows.jsonl", "SPEED_HOME"]),
        (mistaken, ["\\x1b[31mred: take another"]),
        (lost, ["the store is a file", "SPEED_HOME"]),
    ],
)
def test_a_mistake_or_a_failing_disk_is_one_message(
    fails: Callable[[], None], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, one_message("exporting"):
        fails()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert all(part in said for part in parts)


def test_an_error_that_nobody_knows_rises_as_it_is() -> None:
    with pytest.raises(IsADirectoryError), one_message("exporting"):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", "x")


@pytest.mark.parametrize("command", [["speed.report"], ["speed.journal", "list"]])
def test_a_reader_that_has_seen_enough_is_no_error(command: list[str], tmp_path: str) -> None:
    read, written = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPEED_HOME": str(tmp_path)}
    arguments = [sys.executable, "-m", *command]
    done = subprocess.run(
        arguments, stdout=written, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path, timeout=HANG
    )
    os.close(written)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_windows_is_refused_plainly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "argv", ["speed.run"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("this system (win32) has no file locks (flock) and no fork servers, which a run needs\n")
    assert "WSL 2" in said
    assert "Traceback" not in said
