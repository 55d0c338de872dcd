"""The model of encoding workers on a machine that does not see the store.

`tests/core/test_cluster_without_store.py` has such machines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speed.backends.encoding.carried_model import ModelErrand
from speed.backends.encoding.workers import REFUSED, SAID, Encode, Ids, Load, Vectors
from speed.core.depot import Depot
from speed.core.elsewhere import NotCarried
from speed.core.errand import Carrier
from speed.core.store import Store


def load_from(folder: Path) -> Load:
    return partial(_loaded, folder)


def _loaded(folder: Path, device: str) -> Encode:
    factor = json.loads((folder / "config.json").read_text())

    def encode(rows: list[Ids]) -> tuple[Vectors, int]:
        return factor * np.array([[row.sum()] for row in rows], np.float32), 7

    return encode


@pytest.fixture
def carried(tmp_path: Path) -> Iterator[tuple[ModelErrand, Depot]]:
    folder = tmp_path / "home" / "store" / "embedder" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("3")
    carrier = Carrier(Store(tmp_path / "home"), "encoding")
    depot = Depot(carrier.depot, tmp_path)
    yield ModelErrand(carrier, folder, load_from, "cpu"), depot
    depot.close()
    carrier.close()


def test_it_is_loaded_from_where_it_was_carried_to(carried: tuple[ModelErrand, Depot], tmp_path: Path) -> None:
    errand, depot = carried
    assert Path(errand.mark).is_file()
    told = list[bytes]()
    loads = [errand.prepare(depot, "far", told.append) for _ in range(2)]
    (tmp_path / "home" / "store" / "embedder" / "model" / "config.json").unlink()
    for load, device in loads:
        vectors, at_once = load(device)([np.array([1, 2], np.int32)])
        assert (vectors.tolist(), at_once) == ([[9.0]], 7)
    assert len(told) == 1
    assert told[0].startswith(SAID + b"far does not see runtime.home=")
    assert errand.pass_on(depot, b"v123") == b"v123"


def test_what_cannot_be_carried_is_a_refusal_of_the_machine(
    carried: tuple[ModelErrand, Depot], monkeypatch: pytest.MonkeyPatch
) -> None:
    errand, depot = carried

    def no_room(bundle: Any) -> list[str]:
        raise OSError("no room")

    monkeypatch.setattr(depot, "begin", no_room)
    with pytest.raises(NotCarried) as failed:
        errand.prepare(depot, "far", lambda message: None)
    assert failed.value.message == REFUSED + b"no room"
