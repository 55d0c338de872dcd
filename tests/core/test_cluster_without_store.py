"""Machines of a Ray cluster that do not see the store: what they read is carried there, and their rows back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import HANG
from separate_machines import SeparateMachine, separate_machines, way_to_hide
from toys import Number, Numbers, Payload, SharedNumbers

from speed.backends.encoding.carried_model import ModelErrand
from speed.backends.encoding.workers import Encode, EncodingWorkers, Ids, Load, Vectors
from speed.cluster.ray_cluster import Cluster
from speed.core.build_all import build_all
from speed.core.depot import depot_root
from speed.core.elsewhere import Need
from speed.core.errand import Carrier
from speed.core.graph import goals
from speed.core.stage import Pool, Stage
from speed.core.store import Span, Store
from speed.runtime import Context, Runtime

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra [ray]"),
    pytest.mark.skipif(way_to_hide() is None, reason="needs a mount namespace for each machine"),
]
ROWS, BLOCK = 40, 4


@dataclass(frozen=True)
class FarRows(SharedNumbers):
    """Rows that come of a folder and of other rows. Its log says where each block was begun, and in which store; files
    beside it say which machine waits, and when."""

    payload: Stage[int] | None = None
    numbers: Pool[Number] | None = None

    name: ClassVar[str] = "far rows"

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Number]:
        assert self.payload is not None
        assert self.numbers is not None
        raylet, log = os.environ.get("RAY_RAYLET_PID", "here"), Path(self.log)
        with log.open("a") as file:
            file.write(f"{start} {raylet} {ctx.store.home}\n")
        while len({line.split()[1] for line in log.read_text().splitlines()}) < self.together:
            time.sleep(0.05)
        stuck, doomed = log.with_name("stuck"), log.with_name("doomed")
        mine = [line for line in log.read_text().splitlines() if line.split()[1] == raylet]
        if doomed.exists() and len(mine) > 1:  # its second block, or a later one
            if raylet == doomed.read_text():
                stuck.touch()
                time.sleep(HANG)
            while not stuck.exists():
                time.sleep(0.05)
        factor = int((ctx.folder(self.payload) / "small.txt").read_text())
        for row in ctx.rows(self.numbers.take(stop), start):
            yield Number(row=row.row, value=factor * row.value)


def far_pool(folder: Path, together: int = 3) -> FarRows:
    """Whose payload refers to another."""
    payload = Payload(7, under=Payload(5))
    return FarRows(3, size=BLOCK, log=str(folder / "log"), together=together, payload=payload, numbers=Numbers(2))


def build_far(
    pool: FarRows, store: Store, address: str, logs: Path, listen: Callable[[str, dict[str, Any]], None]
) -> None:
    """Build its rows on this machine and those of a cluster; on this one alone without an address."""
    runtime = Runtime(devices="cpu", side_by_side=1, cluster="ray" if address else "none", address=address or "auto")
    join = partial(Cluster, address)
    build_all(
        goals([pool.take(ROWS)]), store, runtime, listen, logs, join=(lambda: join().watch()) if address else None
    )


def listener(said: list[str]) -> Callable[[str, dict[str, Any]], None]:
    return lambda label, event: said.append(event.get("message") or event["event"])


def begun(folder: Path) -> list[tuple[int, str, str]]:
    """(first row, machine, store) of each block that was begun."""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return [(int(start), raylet, home) for start, raylet, home in lines]


def contents(store: Store) -> dict[str, bytes]:
    """Files of a store; manifests, which have times, without content."""
    files = [path for path in (store.home / "store").rglob("*") if path.is_file()]
    return {
        path.relative_to(store.home).as_posix(): b"" if path.suffix == ".json" else path.read_bytes() for path in files
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, list[SeparateMachine]]]:
    with separate_machines(tmp_path_factory.mktemp("cluster"), 2) as made:
        yield made


def test_a_killed_run_goes_on_and_repeats_nothing_that_is_whole(
    cluster: tuple[str, Path, list[SeparateMachine]], tmp_path: Path
) -> None:
    address, hidden, machines = cluster
    store = Store(hidden / "killed").open()
    (tmp_path / "doomed").write_text("nobody")  # all wait at their second block
    script = [sys.executable, str(Path(__file__).with_name("killed_run.py")), address, str(store.home), str(tmp_path)]
    run, pool, said = subprocess.Popen(script), far_pool(tmp_path), list[str]()
    while len(store.shards(pool)) < 3:
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert store.shards(pool) == [Span(0, 4), Span(4, 8), Span(8, 12)]
    assert [len(machine.depots) for machine in machines] == [1, 1], "what was carried stays for the next run"
    for file in ("doomed", "log"):  # all take part again
        (tmp_path / file).unlink()
    build_far(pool, store, address, tmp_path / "logs", listener(said))
    assert [row.value for row in store.rows(pool.take(ROWS))] == [14 * row for row in range(ROWS)]
    assert sorted(start for start, _, _ in begun(tmp_path)) == list(range(12, ROWS, BLOCK))
    assert sum("what it reads is there" in line for line in said) == 2, said
    assert [machine.depots for machine in machines] == [[], []]


def test_a_machine_that_cannot_take_it_is_left_out(
    cluster: tuple[str, Path, list[SeparateMachine]], tmp_path: Path
) -> None:
    address, hidden, (lacking, _) = cluster
    store, pool, said = Store(hidden / "lacking").open(), far_pool(tmp_path, together=2), list[str]()
    carrier = Carrier(store)
    carrier.close()
    in_the_way = depot_root(carrier.depot, lacking.temporary)
    in_the_way.touch()
    (tmp_path / "doomed").write_text("nobody")  # all wait at their second block

    def listen(label: str, event: dict[str, Any]) -> None:
        listener(said)(label, event)
        if "its machine is not used any more in this run" in said[-1]:
            (tmp_path / "stuck").touch()

    build_far(pool, store, address, tmp_path / "logs", listen)
    in_the_way.unlink()
    assert [row.value for row in store.rows(pool.take(ROWS))] == [14 * row for row in range(ROWS)]
    told = [line for line in said if "cannot take" in line]
    assert len(told) == 2
    assert f"a worker died ({in_the_way} cannot take what a run carries to this machine: File exists" in told[0]
    assert str(lacking.raylet) not in {raylet for _, raylet, _ in begun(tmp_path)}


def test_the_rows_are_those_of_one_machine_and_a_lost_machine_costs_a_block(
    cluster: tuple[str, Path, list[SeparateMachine]], tmp_path: Path
) -> None:
    address, hidden, (lasting, doomed) = cluster
    (tmp_path / "doomed").write_text(str(doomed.raylet))
    store, pool, said = Store(hidden / "lost").open(), far_pool(tmp_path), list[str]()

    def lose() -> None:
        while not (tmp_path / "stuck").exists():
            time.sleep(0.05)
        os.kill(int((tmp_path / "doomed").read_text()), signal.SIGKILL)

    threading.Thread(target=lose, daemon=True).start()
    build_far(pool, store, address, tmp_path / "logs", listener(said))
    assert [row.value for row in store.rows(pool.take(ROWS))] == [14 * row for row in range(ROWS)]
    places = {raylet: home for _, raylet, home in begun(tmp_path)}
    assert places.pop("here") == str(store.home)
    assert sorted(places) == sorted([str(lasting.raylet), (tmp_path / "doomed").read_text()])
    assert not any(Path(home).is_relative_to(hidden) for home in places.values()), "those have stores of their own"
    again = sorted(start for start, _, _ in begun(tmp_path))
    stuck = [start for start, raylet, _ in begun(tmp_path) if raylet == (tmp_path / "doomed").read_text()][1]
    assert again == sorted([*range(0, ROWS, BLOCK), stuck]), "nothing that was carried back is computed again"
    assert sum("its block is done again" in line for line in said) == 1, said
    assert sum(f"does not see runtime.home={store.home}" in line for line in said) == 2, "once for each machine"
    assert sum("under 0.1 GB are carried there (payload, numbers)" in line for line in said) == 2
    alone = Store(hidden / "alone").open()
    (tmp_path / "doomed").unlink()
    build_far(pool, alone, "", tmp_path / "logs", lambda label, event: None)
    assert contents(store) == contents(alone), "the same files as of one machine"
    assert list((store.home / "cache").iterdir()) == []
    assert lasting.depots == [], "the run has left"
    (left,) = doomed.depots
    for folder in left.glob("store/payload/*"):
        assert folder.suffix == ".partial" or (folder / "manifest.json").is_file()


def far_model(folder: Path, log: Path) -> Load:
    """A model that reads one number of its folder."""
    return partial(_loaded, folder, log)


def _loaded(folder: Path, log: Path, device: str) -> Encode:
    factor, raylet = int((folder / "small.txt").read_text()), os.environ.get("RAY_RAYLET_PID", "here")

    def encode(rows: list[Ids]) -> tuple[Vectors, int]:
        with log.open("a") as file:
            file.write(f"{rows[0][0]} {raylet} {folder}\n")
        while len({line.split()[1] for line in log.read_text().splitlines()}) < 2:
            time.sleep(0.05)
        return factor * np.array([[len(row), row.sum()] for row in rows], np.float32), 7

    return encode


def test_a_model_is_carried_to_those_that_encode_with_it(
    cluster: tuple[str, Path, list[SeparateMachine]], tmp_path: Path
) -> None:
    address, hidden, (lasting, _) = cluster
    model, said = hidden / "encoding" / "store" / "embedder", list[str]()
    (model / "deep").mkdir(parents=True)
    (model / "small.txt").write_text("7")
    (model / "deep" / "large").write_bytes(bytes(1000))
    chunks = [[np.arange(first, first + 3, dtype=np.int32)] for first in range(0, 90, 10)]
    carrier, others = Carrier(Store(hidden / "encoding"), "encoding"), Cluster(address, looked_at=False).watch()
    errand = ModelErrand(carrier, model, partial(far_model, log=tmp_path / "log"), "cpu")
    load = far_model(model, tmp_path / "log")
    workers = EncodingWorkers(load, ["cpu"], said.append, others, Need(1, 0, 0.0), errand)
    try:
        found = {number: vectors.tolist() for number, vectors, _ in workers.encoded(chunks)}
    finally:
        workers.close()
        carrier.close()
    assert found == {number: [[21.0, 7 * (30.0 * number + 3)]] for number in range(9)}
    places = {raylet: folder for _, raylet, folder in begun(tmp_path)}
    assert places.pop("here") == str(model)
    assert list(places) == [str(lasting.raylet)]
    assert f"does not see runtime.home={hidden / 'encoding'}" in said[0]
    assert "under 0.1 GB are carried there (the embedder)" in said[0]
    assert lasting.depots == []
