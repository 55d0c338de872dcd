"""Processes that ask the same divide the places in flight, and forget those that are gone."""

from __future__ import annotations

import os
from pathlib import Path

from speed.teaching.neighbours import FOLDER, LATELY, Neighbours


def test_those_who_ask_divide_the_places(tmp_path: Path) -> None:
    one, two, other = (
        Neighbours(tmp_path, "http://a/v1", model, name) for model, name in (("m", "1"), ("m", "2"), ("n", "3"))
    )
    for each in (one, other):
        each.join()
    assert (one.share(8), other.share(8)) == (8, 8)
    two.join()
    assert two.share(8) == 4
    one.join()  # a second stage of the same process looks again
    assert one.share(8) == 4
    one.leave()
    two.leave()
    one.join()
    assert one.share(8) == 8
    assert (one.share(1), other.share(8)) == (1, 8)


def test_who_was_killed_is_forgotten(tmp_path: Path) -> None:
    killed, alive = (Neighbours(tmp_path, "http://a/v1", "m", name) for name in "12")
    killed.join()
    killed.share(8)
    (file,) = (tmp_path / FOLDER).iterdir()
    alive.join()
    assert alive.share(8) == 4
    os.utime(file, (0, file.stat().st_mtime - LATELY - 1))
    alive.join()
    assert alive.share(8) == 8
    assert not file.exists()


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file in the way")
    alone = Neighbours(tmp_path, "http://a/v1", "m")
    alone.join()
    assert alone.share(8) == 8
    alone.leave()
