"""Data sets that mteb's benchmarks read, so that a plan can ask for them without importing mteb (ten seconds)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

DATA = (".parquet", ".jsonl", ".json", ".gz", ".zst", ".csv", ".tsv", ".arrow")
"""Endings of files that hold rows: `datasets` leaves the page of a data set in the hub's cache, whatever came of it."""


class EvaluationDataset(NamedTuple):
    """What one task of mteb reads."""

    task: str
    part_of: str
    """Task whose score is made of several tasks, this among them; empty where there is none."""
    path: str
    """Name on the hub."""
    revision: str
    characters: int
    """Of the texts of its evaluated splits, as mteb has counted them; 0 where it has not."""


@lru_cache(maxsize=1)
def _benchmarks() -> dict[str, tuple[EvaluationDataset, ...]]:
    text = files("speed.data").joinpath("evaluation_datasets.json").read_text(encoding="utf-8")
    return {name: tuple(EvaluationDataset(*row) for row in rows) for name, rows in json.loads(text).items()}


def evaluation_datasets(benchmark: str, only: Sequence[str] = ()) -> tuple[EvaluationDataset, ...]:
    """The data sets of a benchmark (`mteb_v1`, `rteb` ...); of `any`, those of named tasks that one of them has.

    Args:
        only: names of tasks; empty for all.
    """
    known = _benchmarks()
    among = known.get(benchmark)
    if among is None:  # of a task that several benchmarks have, in one language and in many, the first
        every = [row for rows in known.values() for row in rows]
        among = tuple({row.task: row for row in reversed(every)}.values())[::-1]
    return tuple(row for row in among if not only or row.task in only or row.part_of in only)


def is_cached(path: str, revision: str, home: Path) -> bool:
    """Whether the store's cache, the cache of `datasets` or that of the hub holds this revision of a data set.

    Args:
        home: root of the store.
    """
    from huggingface_hub import constants

    usual = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
    for cache in (home / "cache" / "datasets", usual):
        for folder in cache.iterdir() if cache.is_dir() else ():
            if _plain(folder.name) == _plain(path) and any(folder.glob(f"*/*/{revision}")):
                return True
    kept = Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}" / "snapshots" / revision
    return bool(revision) and any(file.suffix in DATA and file.is_file() for file in kept.rglob("*"))


def _plain(name: str) -> str:
    """A data set's name as the hub or as the folders of `datasets` write it, made alike."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
