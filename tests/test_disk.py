"""Disks that fill up or may only be read: one clear message, nothing half-written taken for complete."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SMOKE, speed, speed_here
from conftest import HANG


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def remount(disk: Path, option: str) -> None:
    """Mount it with another option, once processes that outlive a run by a moment have closed their files."""
    give_up = time.monotonic() + HANG
    while (done := subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], capture_output=True)).returncode:
        assert time.monotonic() < give_up, f"{done.stderr!r}; open there: {held_open(disk)}"
        time.sleep(0.2)


def held_open(disk: Path) -> list[str]:
    """The open files of a disk, each with its process."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if (file := link.readlink()).is_relative_to(disk):
                found.append(f"{link.parts[2]} {(link.parents[1] / 'cmdline').read_text()!r} {file}")
        except OSError:  # the process has ended, or is not ours
            continue
    return found


def test_a_disk_that_fills_up_and_one_that_may_only_be_read(small_disk: Path) -> None:
    home = small_disk / "home"
    done = speed(home, SMOKE, "generator.sft.epochs=1", cwd=small_disk.parent)  # to the first weights that are saved
    assert done.code == 1
    assert "the disk is full while" in done.err
    assert "run the same command again" in done.err
    assert "Traceback" not in done.out + done.err
    remount(small_disk, "size=200m")
    again = speed_here(home, SMOKE, "plan=true")
    states = [line.split()[1] for line in again.out.splitlines() if line.startswith("topics ")]
    assert states == ["hit"]
    remount(small_disk, "ro")
    refused = speed_here(home, SMOKE)
    assert refused.code == 1
    assert "no permission to write" in refused.err
    assert "Traceback" not in refused.out + refused.err
