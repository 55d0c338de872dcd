"""Texts are the same whatever the number of workers that write them: with a real model, on cores."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import config_of

from speed.core.build_all import build_all
from speed.core.content import package_folder
from speed.core.graph import goals
from speed.core.store import Store
from speed.pipeline import pipeline
from speed.stages.synthesis import Synthesis

WRITTEN = (
    f"given.junior={package_folder('package:miniature/bases/llama')}", "preference=none", "revisor=none",
    "engine.block=6", "scale.examples=23", "limits=miniature",
)  # fmt: skip


def written(home: Path, workers: int) -> dict[str, bytes]:
    """Rows of synthesis by the name of their file."""
    config = config_of(*WRITTEN, f"runtime.side_by_side={workers}", f"runtime.home={home}")
    found = next(goal for goal in pipeline(config).goals() if isinstance(goal.node, Synthesis))
    store = Store(home).open()
    build_all(goals([found.node.take(found.rows)]), store, config.runtime, lambda *_: None, home / "logs")
    return {file.name: file.read_bytes() for file in store.folder(found.node).glob("rows-*.jsonl*")}


@pytest.mark.filterwarnings("ignore")
def test_two_workers_write_what_one_writes(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one", 1), written(tmp_path / "two", 2)
    assert len(one) == 4
    assert one == two
