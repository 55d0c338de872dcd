"""Folders with copies of mteb's data sets, for machines that do not reach the hub."""

from __future__ import annotations

from pathlib import Path

from speed.core.errors import UserError


def mirrored(mirror: Path, task: str, path: str, revision: str) -> Path:
    """The folder of a mirror that has a task's data: `<task>` or `<organisation>/<data set>`.

    Raises:
        UserError: when the mirror lacks it.
    """
    folder = next((mirror / place for place in (task, path) if (mirror / place).is_dir()), None)
    if folder is None:
        raise UserError(
            f"the mirror {mirror} lacks {task}: it should hold the folder {path} (a copy of that data set, at "
            f"revision {revision}) or {task}"
        )
    return folder
