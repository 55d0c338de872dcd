"""Disks that fill up or may only be read: one clear message, nothing half-written taken for complete."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SMOKE, speed, speed_here


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_and_one_that_may_only_be_read(small_disk: Path) -> None:
    home = small_disk / "home"
    done = speed(home, SMOKE, cwd=small_disk.parent)
    assert done.code == 1
    assert "the disk is full while" in done.err
    assert "run the same command again" in done.err
    assert "Traceback" not in done.out + done.err
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = speed_here(home, SMOKE, "plan=true")
    states = [line.split()[1] for line in again.out.splitlines() if line.startswith("topics ")]
    assert states == ["hit"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = speed_here(home, SMOKE)
    assert refused.code == 1
    assert "no permission to write" in refused.err
    assert "Traceback" not in refused.out + refused.err
