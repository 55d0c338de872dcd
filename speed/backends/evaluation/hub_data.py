"""Data sets of mteb: from a mirror folder, from the hub, or from the caches of the hub's clients on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from speed.backends.evaluation.loaded_gold import refuse_loaded
from speed.backends.evaluation.mirror import mirrored
from speed.core.content import sha256_of
from speed.core.errors import UserError

LOCAL = "local-"
"""Beginning of the revision of a mirror's copy."""


def take_from_mirror(task: Any, mirror: Path) -> None:
    """Let a task of mteb read its data from `mirror/<task>` or `mirror/<organisation>/<data set>`.

    The results name the copy by its content (`local-...`): nothing proves which revision it is a copy of.

    Raises:
        UserError: when the mirror lacks it.
    """
    name, path, revision = task.metadata.name, task.metadata.dataset["path"], task.metadata.dataset["revision"]
    folder = mirrored(mirror, name, path, revision)
    _read_from(task, folder, f"{LOCAL}{sha256_of(folder)[:12]}")


def load_data(task: Any) -> list[str]:
    """Load a task's data: from our cache or the hub, else from the caches of `datasets` or `huggingface_hub`.

    Returns:
        What a reader of the score should know of the data.

    Raises:
        UserError: when none of them has the data, or no score can come of them.
    """
    ways: list[Callable[[], None]] = [task.load_data, lambda: _from_usual_cache(task), lambda: _from_snapshot(task)]
    if str(task.metadata.dataset["revision"]).startswith(LOCAL):
        ways = [lambda: _from_mirror(task)]
    first: Exception | None = None
    for way in ways:
        try:
            way()
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # ConnectionError is an OSError
            first = first or error
        else:
            return refuse_loaded(task)
    raise UserError(
        f"the data of {task.metadata.name} ({task.metadata.dataset['path']}) cannot be loaded: {first}\n"
        "  check the connection to the hub, bring a filled cache (HF_HOME) or a mirror (eval.mirror=DIR), or "
        "evaluate a folder of tasks with eval=local; finished tasks are kept"
    ) from first


def _from_mirror(task: Any) -> None:
    """From a mirror. `datasets` would take what it once prepared from a folder, whatever the files hold by now, so each
    content is prepared in a place of its own."""
    with _prepared_in(Path(datasets.config.HF_DATASETS_CACHE) / task.metadata.dataset["revision"]):
        task.load_data()


def _from_usual_cache(task: Any) -> None:
    """From the cache that `datasets` uses outside of this project."""
    usual = Path(os.environ.get("HF_DATASETS_CACHE", Path(datasets.config.HF_CACHE_HOME) / "datasets"))
    with _prepared_in(usual):
        task.load_data()


def _from_snapshot(task: Any) -> None:
    """From a download of the very revision that mteb asks for, whose name the results keep."""
    from huggingface_hub import snapshot_download

    path, revision = task.metadata.dataset["path"], task.metadata.dataset["revision"]
    folder = snapshot_download(path, repo_type="dataset", revision=revision, local_files_only=True)
    _read_from(task, Path(folder), revision)
    task.load_data()


@contextmanager
def _prepared_in(folder: Path) -> Iterator[None]:
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


def _read_from(task: Any, folder: Path, revision: str) -> None:
    dataset = {**task.metadata.dataset, "path": str(folder.resolve()), "revision": revision}
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
