"""Workers on the machines of a Ray cluster: the rows are those of one machine, also when a machine is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from conftest import HANG, ROOT
from toys import Number, SharedNumbers

from speed.backends.encoding.workers import Encode, EncodingWorkers, Ids, Vectors
from speed.cluster import ray_cluster as cluster_module
from speed.cluster.ray_cluster import Cluster, passed_on
from speed.cluster.remote_process import RemoteProcess, Stand, Work, code_here
from speed.core import scheduler as scheduler_module
from speed.core.allocation import Grant
from speed.core.build_all import build_all
from speed.core.elsewhere import LOOK, Elsewhere, Machine, Need
from speed.core.errors import UserError
from speed.core.fork_servers import ForkServers
from speed.core.graph import goals
from speed.core.scheduler import Scheduler
from speed.core.store import Span, Store
from speed.core.worker import Blocks, Worker, divided
from speed.runtime import Context, Runtime

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra [ray]")
FACTOR = 3


@dataclass(frozen=True)
class FarNumbers(SharedNumbers):
    """Its log says where each block was begun. On the machine that `doomed` names, the second block never ends."""

    name: ClassVar[str] = "far numbers"
    doomed: str = ""
    """A file with the process id of its raylet."""

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Number]:
        raylet = os.environ.get("RAY_RAYLET_PID", "here")
        lines = Path(self.log).read_text().splitlines() if Path(self.log).exists() else []
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {start} {raylet}\n")
        while len({line.split()[0] for line in Path(self.log).read_text().splitlines()}) < self.together:
            time.sleep(0.01)
        stuck = Path(self.doomed).with_name("stuck")
        if any(line.startswith(f"{os.getpid()} ") for line in lines):  # its second block, or a later one
            if raylet == Path(self.doomed).read_text():
                stuck.touch()
                time.sleep(HANG)
            while not stuck.exists():
                time.sleep(0.01)
        yield from SharedNumbers(self.factor, self.size, log=os.devnull).build(start, stop, ctx)


def joining(runtime: Runtime) -> Callable[[], Elsewhere]:
    """How a run connects to the cluster that its config names."""
    return lambda: Cluster(runtime.address).watch()


@pytest.fixture(scope="module")
def three_machines() -> Iterator[tuple[Any, list[Any]]]:
    """A cluster of the run's machine, which has no core for others, and two more with a core each."""
    from ray.cluster_utils import Cluster as LocalCluster

    folders = f"{ROOT}:{Path(__file__).parent}:{ROOT / 'tests'}"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folders}:{before}" if before else folders
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    lost_soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
    small = {"object_store_memory": 80 * 1024**2, "include_dashboard": False}
    cluster = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": lost_soon, **small})
    try:
        yield cluster, [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
        if before is None:
            os.environ.pop("PYTHONPATH")
        else:
            os.environ["PYTHONPATH"] = before


@needs_ray
def test_the_rows_of_three_machines_are_those_of_one_and_a_lost_machine_costs_a_block(
    three_machines: tuple[Any, list[Any]], tmp_path: Path
) -> None:
    cluster, (lasting, doomed) = three_machines
    (tmp_path / "doomed").write_text(str(doomed.all_processes["raylet"][0].process.pid))
    pool = FarNumbers(FACTOR, log=str(tmp_path / "log"), together=3, doomed=str(tmp_path / "doomed"))
    runtime = Runtime(devices="cpu", side_by_side=1, cluster="ray", address=cluster.address)
    store, said = Store(tmp_path / "home").open(), []

    def lose() -> None:
        while not (tmp_path / "stuck").exists():
            time.sleep(0.05)
        cluster.remove_node(doomed, allow_graceful=False)

    def listen(label: str, event: dict[str, Any]) -> None:
        said.append(event.get("message") or event["event"])

    Cluster(runtime.address).check()
    threading.Thread(target=lose, daemon=True).start()
    build_all(goals([pool.take(32)]), store, runtime, listen, tmp_path / "logs", join=joining(runtime))
    assert [row.value for row in store.rows(pool.take(32))] == [FACTOR * row for row in range(32)]
    assert store.shards(pool) == [Span(start, start + 4) for start in range(0, 32, 4)]
    assert said.count("done") == 1
    begun = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len({raylet for _, _, raylet in begun}) == 3, "this machine and both others wrote blocks"
    again = sorted(int(start) for _, start, _ in begun)
    stuck = [int(start) for _, start, raylet in begun if raylet == (tmp_path / "doomed").read_text()][1]
    assert again == sorted([*range(0, 32, 4), stuck]), "nothing that was kept is computed again"
    assert sum("its block is done again" in line for line in said) == 1, said
    assert lasting.all_processes


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"no Ray cluster answers at runtime.address=127.0.0.1:1 \(.*refused.*\n  start one"),
        ("here", "runtime.address=here is not the address of a Ray cluster\n  take HOST:PORT"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_refused(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "find_spec", lambda name: "found")
    with pytest.raises(UserError, match=message):
        Cluster(address)


def test_ray_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="runtime.cluster=ray needs Ray, which is not installed\n  pip install"):
        Cluster("auto")


def test_depots_with_what_could_not_be_carried_back_are_not_cleared() -> None:
    cluster, asked = object.__new__(Cluster), list[tuple[str, str]]()
    cluster._machines = (time.monotonic(), [Machine(name, name, 1.0, 0.0, 1.0) for name in ("far", "farther")])
    has: Any = SimpleNamespace(has_depot=True)
    errands: list[Any] = [
        SimpleNamespace(depot=depot, keeps=keeps) for depot, keeps in (("kept", True), ("run", False))
    ]
    cluster._sent = [(machine, has, errand) for machine in ("far", "lost") for errand in errands]
    cluster.ray = SimpleNamespace(wait=lambda *args, **named: None)
    cluster._on = lambda machine, function, name: asked.append((machine, name))  # type: ignore[method-assign]
    cluster._clear()
    assert asked == [("far", "run")]


class ScriptedRay:
    """Two machines whose workers never begin; its head is silent from `last` looks on."""

    def __init__(self, last: int) -> None:
        self.last, self.looks, self.silent = last, 0, threading.Event()

    def is_initialized(self) -> bool:
        return True

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def nodes(self) -> list[dict[str, Any]]:
        self.looks += 1
        if self.looks > self.last:
            self.silent.wait()
        sizes = {"here": 1.0, "far": 1.0, "small": 0.5}
        return [
            {"Alive": True, "NodeID": name, "NodeManagerHostname": name, "Resources": {"CPU": cores}}
            for name, cores in sizes.items()
        ]

    def remote(self, actor: type) -> Any:
        made = SimpleNamespace(sees=SimpleNamespace(remote=lambda mark: "never"))
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda *args: made))

    def get(self, reference: str) -> int:
        self.silent.wait()
        return 0

    def kill(self, actor: Any) -> None:
        self.silent.set()

    def shutdown(self) -> None:
        self.silent.set()


@pytest.fixture
def scripted_ray(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def made(last: int, **times: float) -> None:
        monkeypatch.setitem(sys.modules, "ray", ScriptedRay(last))
        monkeypatch.setattr(cluster_module, "check_ray", lambda address: None)
        monkeypatch.setattr(Cluster, "_strategy", lambda self, machine: None)
        monkeypatch.setattr(scheduler_module, "LOOK", times.get("LOOK", LOOK))
        for name, seconds in times.items():
            monkeypatch.setattr(cluster_module, name, seconds)

    return made


def test_a_lost_head_ends_the_run_with_one_message(scripted_ray: Callable[..., None], tmp_path: Path) -> None:
    scripted_ray(last=3, LOOK=0.05, LOST=2.0)
    pool = SharedNumbers(FACTOR, log=str(tmp_path / "log"), together=2)  # nobody comes to help this machine
    store = Store(tmp_path / "home").open()
    runtime = Runtime(devices="cpu", side_by_side=1, cluster="ray", address="10.0.0.1:6379")
    lost = r"the head .* at runtime.address=10.0.0.1:6379 has not answered for \d+ seconds\n  start the cluster again"
    with pytest.raises(UserError, match=lost):
        build_all(goals([pool.take(8)]), store, runtime, lambda *_: None, tmp_path / "logs", join=joining(runtime))
    with store.lock(pool):  # which the run has given back
        assert store.shards(pool) == []


def test_a_run_says_once_that_no_other_machine_works_for_it(scripted_ray: Callable[..., None], tmp_path: Path) -> None:
    scripted_ray(last=10**9, PATIENCE=0.0)
    pool = SharedNumbers(FACTOR, log=str(tmp_path / "log"))
    said: list[str] = []

    def listen(label: str, event: dict[str, Any]) -> None:
        said.append(event.get("message") or event["event"])

    runtime = Runtime(devices="cpu", side_by_side=1, cluster="ray")
    store = Store(tmp_path / "home").open()
    build_all(goals([pool.take(20)]), store, runtime, listen, tmp_path / "logs", join=joining(runtime))
    room = (
        "far (far) has no room now (1 of this run's workers there, begun or waiting); small (small) has less than that"
    )
    assert [line for line in said if "waits for" in line] == [f"waits for another machine with 1 core: {room}"]
    assert said[-1] == "done"


def test_it_is_said_again_after_a_while_and_no_more_when_one_works(
    scripted_ray: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_ray(last=10**9, PATIENCE=0.0, AGAIN=0.0)
    cluster, need = Cluster("auto"), Need(1, 1, 40.0)
    cluster.left_out.add("far")
    state = "far (far) is not used any more in this run; small (small) has less than that"
    for _ in range(2):
        assert cluster.why_idle("a", need, []) == f"waits for another machine with 1 core, 1 GPU, 40 GB: {state}"
    assert cluster.why_idle("a", need, [True, False]) == ""
    carrying = SimpleNamespace(relay=SimpleNamespace(is_alive=lambda: True), is_carrying=True)
    cluster._started.append(("small", Need(0, 0, 0.0), cast(RemoteProcess, carrying)))
    assert "small (small) is being brought what it reads" in cluster.why_idle("b", Need(0, 0, 0.0), [True])
    monkeypatch.setattr(cluster_module, "PATIENCE", HANG)
    assert cluster.why_idle("a", need, [True]) == "", "it may begin soon"


def test_a_machine_has_room_for_what_its_workers_leave() -> None:
    machine = Machine("id", "name", cores=8.0, gpus=2.0, gigabytes=64.0)
    assert machine.has_room([Need(2, 1, 16.0), Need(2, 1, 16.0)])
    assert not machine.has_room([Need(2, 1, 16.0)] * 3)
    assert not machine.has_room([Need(9, 0, 0.0)])
    assert not machine.has_room([Need(1, 0, 65.0)])


def test_a_machine_without_a_core_is_none_of_the_workers() -> None:
    cluster = object.__new__(Cluster)
    cores = {"here": 4.0, "head": 0.0, "far": 2.0, "gone": 2.0}
    nodes = [
        {"Alive": name != "gone", "NodeID": name, "NodeManagerHostname": name, "Resources": {"CPU": n} if n else {}}
        for name, n in cores.items()
    ]
    cluster.ray, cluster.here = SimpleNamespace(nodes=lambda: nodes), "here"
    cluster._look()
    assert [machine.id for machine in cluster.machines()] == ["far"]


def test_settings_are_passed_on_and_no_key_is() -> None:
    given = {"HF_HOME": "/hub", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "2"}
    kept = {"HF_TOKEN": "x", "HF_TOKEN_PATH": "x", "VLLM_API_KEY": "x", "OPENAI_API_KEY": "x", "HOME": "/me"}
    assert passed_on(given | kept) == given


def test_a_machine_that_comes_later_with_other_code_starts_nothing() -> None:
    with pytest.raises(RuntimeError, match="it runs other code: commit "):
        Stand(".", {}, ["commit 0", *code_here()[1:]])


def test_a_process_is_ended_without_joining_a_cluster_that_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    ray = SimpleNamespace(is_initialized=lambda: bool(killed), kill=killed.append, get=lambda ref: 0)
    monkeypatch.setitem(sys.modules, "ray", ray)
    method = SimpleNamespace(remote=lambda *args: None)
    actor = SimpleNamespace(begin=method, receive=method)
    process = RemoteProcess(actor, Pipe(duplex=False)[1], "far", Work(print, ()))
    process.join(HANG)
    process.terminate()
    assert (process.exitcode, killed) == (0, [])


def test_what_another_machine_lacks_leaves_that_machine_out(tmp_path: Path) -> None:
    pool, store, cluster = SharedNumbers(FACTOR), Store(tmp_path / "home").open(), SimpleNamespace(left_out=set())
    order = goals([pool.take(8)])
    scheduler = Scheduler(order, store, Runtime(), tmp_path / "logs", ForkServers([], ()), cast(Elsewhere, cluster))
    blocks = scheduler.blocks[order[0].key] = cast(Blocks, divided(pool, 8, store))
    for _ in range(2):
        far = Worker(order[0], None, None, tmp_path / "log", Grant(), blocks.left.popleft(), machine="far")
        event: dict[str, Any] = {"event": "user_error", "message": "the model cannot be loaded", "store": False}
        assert scheduler._event_of_pool(far, blocks, event, died=False) is None
        assert list(blocks.left) == [Span(0, 4), Span(4, 8)]
    assert cluster.left_out == {"far"}
    said = [event["message"] for _, event in scheduler.soon]
    assert "the model cannot be loaded" in said[0]
    assert "its machine is not used any more in this run" in said[1]
    here = Worker(order[0], None, None, tmp_path / "log", Grant(), blocks.left.popleft())
    assert scheduler._event_of_pool(here, blocks, event, died=False) == event, "here it ends the run"
    blocks.lock.release()


def far_encoder(folder: Path, device: str) -> Encode:
    """Says of each chunk where it is encoded. On the machine that `doomed` names, the second chunk never ends."""
    raylet, mine = os.environ.get("RAY_RAYLET_PID", "here"), list[int]()

    def encode(rows: list[Ids]) -> tuple[Vectors, int]:
        mine.append(int(rows[0][0]))
        with open(folder / "log", "a") as file:
            file.write(f"{rows[0][0]} {raylet}\n")
        while len({line.split()[1] for line in (folder / "log").read_text().splitlines()}) < 3:
            time.sleep(0.01)
        if len(mine) > 1:
            if raylet == (folder / "doomed").read_text():
                (folder / "stuck").touch()
                time.sleep(HANG)
            while not (folder / "stuck").exists():
                time.sleep(0.01)
        return np.array([[len(row), row.sum()] for row in rows], np.float32), 7

    return encode


@needs_ray
def test_texts_are_encoded_by_three_machines_and_a_lost_one_costs_a_chunk(
    three_machines: tuple[Any, list[Any]], tmp_path: Path
) -> None:
    cluster, _ = three_machines
    doomed = cluster.add_node(num_cpus=1, object_store_memory=80 * 1024**2, include_dashboard=False)
    (tmp_path / "doomed").write_text(str(doomed.all_processes["raylet"][0].process.pid))
    runtime = Runtime(devices="cpu", cluster="ray", address=cluster.address)
    chunks, said = [[np.arange(first, first + 3, dtype=np.int32)] for first in range(0, 90, 10)], list[str]()

    def lose() -> None:
        while not (tmp_path / "stuck").exists():
            time.sleep(0.05)
        cluster.remove_node(doomed, allow_graceful=False)

    threading.Thread(target=lose, daemon=True).start()
    others = Cluster(runtime.address, looked_at=False).watch()
    workers = EncodingWorkers(partial(far_encoder, tmp_path), ["cpu"], said.append, others, Need(1, 0, 0.0))
    try:
        found = {number: vectors for number, vectors, _ in workers.encoded(chunks)}
    finally:
        workers.close()
    assert {number: vectors.tolist() for number, vectors in found.items()} == {
        number: [[3.0, 3.0 * 10 * number + 3]] for number in range(9)
    }
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len({raylet for _, raylet in lines}) >= 3, "this machine and others encoded"
    stuck = [int(first) for first, raylet in lines if raylet == (tmp_path / "doomed").read_text()][1]
    assert sorted(int(first) for first, _ in lines) == sorted([*range(0, 90, 10), stuck])
    assert any("has no worker any more" in line for line in said), said


@needs_ray
def test_a_head_that_is_killed_ends_the_run_with_one_message(tmp_path: Path) -> None:
    folders = (ROOT, ROOT / "tests", Path(__file__).parent)
    before = os.environ.get("PYTHONPATH", "")
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, folders), before]), "RAY_USAGE_STATS_ENABLED": "0"}
    script = Path(__file__).with_name("lost_head.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], env=known, capture_output=True, text=True,
                          timeout=HANG * 10, check=False)  # fmt: skip
    assert re.search(r"has not answered for \d+ seconds\n  start the cluster again", done.stdout), done.stderr[-2000:]
    assert "0 blocks" in done.stdout
