"""What goes to a machine that does not see the store, and what comes back: whole or not at all, once, and unchanged."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import HANG
from toys import Number, Numbers, Payload, SharedNumbers

from speed.core import carrying as carrying_module
from speed.core.build import build
from speed.core.carrying import bundles_of, carry, fetch_shard
from speed.core.depot import Bundle, Depot, clear, depot_root
from speed.core.depot import _Incoming as Incoming
from speed.core.elsewhere import NotCarried
from speed.core.errand import Carrier, PoolErrand
from speed.core.errors import CorruptArtifact, UserError
from speed.core.graph import Goal, goals, read_by
from speed.core.manifest import maker, outputs_of
from speed.core.stage import Context, Pool, Stage, silence
from speed.core.store import Span, Store
from speed.core.worker import run_worker
from speed.runtime import Runtime


@dataclass(frozen=True)
class Written(SharedNumbers):
    """Rows that come of payload and of other rows."""

    payload: Stage[int] | None = None
    numbers: Pool[Number] | None = None

    name: ClassVar[str] = "written"

    def rows_needed(self, upstream: str, rows: int) -> int:
        return 2 * rows

    def build(self, start: int, stop: int, ctx: Context[Any]) -> Iterator[Number]:
        assert self.payload is not None
        assert self.numbers is not None
        factor = int((ctx.folder(self.payload) / "small.txt").read_text())
        with open(self.log, "a") as file:
            file.write(f"{start}\n")
        print(f"rows from {start} on")
        for row in ctx.rows(self.numbers.take(2 * stop), 2 * start):
            if row.row % 2 == 0:
                yield Number(row=row.row // 2, value=factor * row.value)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


@pytest.fixture
def written(store: Store, tmp_path: Path) -> Goal:
    """A goal whose 8 rows are to be written; what it reads is built."""
    pool = Written(3, log=str(tmp_path / "log"), payload=Payload(7, under=Payload(5)), numbers=Numbers(2))
    *before, goal = goals([pool.take(8)])
    for each in before:
        build(each, store, Runtime(), silence)
    return goal


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    made = Depot("run", tmp_path / "far")
    made.open()
    yield made
    made.close()


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_what_a_goal_reads_is_its_stages_its_rows_and_what_they_refer_to(written: Goal) -> None:
    assert [(node.label, rows) for node, rows in read_by(written)] == [("payload", 0), ("payload", 0), ("numbers", 16)]


@pytest.mark.parametrize("piece", [100, 32 * 1024**2])
def test_a_folder_is_carried_as_it_is_once(
    piece: int, store: Store, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying_module, "PIECE", piece)
    stage = Payload(3)
    build(Goal(stage, 0, ()), store, Runtime(), silence)
    (bundle,) = bundles_of(store, stage, 0)
    sizes = list[int]()
    add = depot.add
    monkeypatch.setattr(
        depot, "add", lambda message: sizes.append(sum(len(each) for _, each in message)) or add(message)
    )
    for _ in range(2):
        carry(bundle, store.folder(stage), depot)
    assert sum(sizes) == bundle.bytes, "the second time it is there"
    assert max(sizes) <= piece, "memory is flat"
    there = Store(depot.root)
    assert files_below(there.payload(stage)) == files_below(store.payload(stage))
    assert not list(depot.root.rglob("*.partial"))


def carry_slowly(home: Path, within: Path, stage: Stage[int], pieces: int) -> None:
    """Be killed when so many pieces have come."""
    carrying_module.PIECE = 100
    depot, store = Depot("run", within), Store(home)
    depot.open()
    came = list[int]()
    add = depot.add

    def killed(message: Any) -> list[str]:
        came.append(1)
        if len(came) > pieces:
            os.kill(os.getpid(), signal.SIGKILL)
        return add(message)

    depot.add = killed  # type: ignore[method-assign]
    carry(bundles_of(store, stage, 0)[0], store.folder(stage), depot)


@pytest.mark.parametrize(("pieces", "left"), [(0, 4), (4, 3), (8, 1)])
def test_a_death_in_the_middle_leaves_nothing_that_looks_whole_and_what_came_is_kept(
    pieces: int, left: int, store: Store, tmp_path: Path
) -> None:
    stage, within = Payload(3), tmp_path / "far"
    within.mkdir()
    build(Goal(stage, 0, ()), store, Runtime(), silence)
    context = multiprocessing.get_context("spawn")
    dies = context.Process(target=carry_slowly, args=(store.home, within, stage, pieces))
    dies.start()
    dies.join(HANG)
    assert dies.exitcode == -signal.SIGKILL
    depot, (bundle,) = Depot("run", within), bundles_of(store, stage, 0)
    depot.open()
    there = Store(depot.root)
    assert there.manifest(stage) is None
    assert not there.folder(stage).exists()
    assert depot.lacks(bundle)
    assert len(depot.begin(bundle)) == left, "whole files are not sent again"
    depot.close()
    depot.open()
    carry(bundle, store.folder(stage), depot)
    assert files_below(there.payload(stage)) == files_below(store.payload(stage))
    assert not list(depot.root.rglob("*.partial"))
    depot.close()


def test_what_is_damaged_here_or_on_the_way_is_not_taken(store: Store, depot: Depot) -> None:
    stage = Payload(3)
    build(Goal(stage, 0, ()), store, Runtime(), silence)
    (bundle,), folder = bundles_of(store, stage, 0), store.folder(stage)
    with pytest.MonkeyPatch.context() as patch:
        add = depot.add
        patch.setattr(depot, "add", lambda message: add([(path, piece[::-1]) for path, piece in message]))
        with pytest.raises(OSError, match="large.bin.* was damaged on the way"):
            carry(bundle, folder, depot)
    depot.close()
    assert depot.lacks(bundle)
    large = folder / "model" / "large.bin"
    whole = large.read_bytes()
    for damaged in (whole[:-1], b"x" + whole[1:]):
        large.write_bytes(damaged)
        with pytest.raises(CorruptArtifact, match="large.bin: it"):
            carry(bundle, folder, depot)
        depot.close()
    large.unlink()
    with pytest.raises(CorruptArtifact, match="the file is missing"):
        carry(bundle, folder, depot)
    assert Store(depot.root).manifest(stage) is None


def test_calls_may_come_from_several_threads_and_of_two_processes_one_waits(store: Store, depot: Depot) -> None:
    pool = Numbers(3)
    build(Goal(pool, 12, ()), store, Runtime(), silence)
    bundles = bundles_of(store, pool, 12)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as another:
        for bundle in bundles[:2]:  # of one folder
            assert len(one.submit(depot.begin, bundle).result()) == 2
            another.submit(depot.end).result()
        assert len(depot.begin(bundles[2])) == 2
        second = Depot("run", depot.root.parent)
        second.open()
        waits = one.submit(second.begin, bundles[2])
        with pytest.raises(TimeoutError):
            waits.result(0.2)
        depot.close()
        assert len(waits.result()) == 2
        second.close()


def test_a_file_that_was_removed_there_is_brought_again(store: Store, depot: Depot) -> None:
    stage = Payload(3)
    build(Goal(stage, 0, ()), store, Runtime(), silence)
    (bundle,) = bundles_of(store, stage, 0)
    carry(bundle, store.folder(stage), depot)
    (depot.root / bundle.folder / "model" / "large.bin").unlink()
    (depot.root / bundle.folder / "more").touch()
    assert depot.lacks(bundle)
    carry(bundle, store.folder(stage), depot)
    assert files_below(Store(depot.root).payload(stage)) == files_below(store.payload(stage))


def test_rows_are_carried_by_shard_and_blocks_of_other_cuts_go(store: Store, depot: Depot, tmp_path: Path) -> None:
    pool = Numbers(3)
    build(Goal(pool, 10, ()), store, Runtime(), silence)
    there = Store(depot.root)
    for size, rows in ((8, 8), (4, 4)):  # what a killed run has left there: another cut, and other rows of one
        build(
            Goal(Numbers(5 if rows == 4 else 3, size=size), rows, ()),
            Store(tmp_path / "other").open(),
            Runtime(),
            silence,
        )
    (other,) = (tmp_path / "other/store/numbers").glob("*/rows-000000000-000000008.json")
    there.folder(pool).mkdir(parents=True)
    for file in other.parent.glob("rows-*"):
        file.replace(there.folder(pool) / file.name)
    found = bundles_of(store, pool, 6)
    assert [bundle.files[-1].path for bundle in found] == [
        "rows-000000000-000000004.json",
        "rows-000000004-000000008.json",
    ]
    names = [file.path for bundle in found for file in bundle.files]
    depot.keep_shards(f"store/numbers/{pool.key[:20]}", names, 6)
    for bundle in found:
        carry(bundle, store.folder(pool), depot)
    assert there.shards(pool) == [Span(0, 4), Span(4, 8)]
    assert list(there.rows(pool.take(6))) == list(store.rows(pool.take(6)))


def test_a_second_worker_of_a_machine_leaves_alone_what_the_first_is_being_brought(
    written: Goal, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying_module, "PIECE", 100)
    carrier, log = Carrier(store), tmp_path / "written.log"
    one, two = (Depot(carrier.depot, tmp_path) for _ in range(2))
    errand, other = (PoolErrand(carrier, written, log, (store, log)) for _ in range(2))
    add, keep, kept = one.add, two.keep_shards, threading.Event()
    seconds, waited = list[Any](), list[bool]()
    numbers = next(node for node, _ in read_by(written) if isinstance(node, Numbers))
    below = store.folder(numbers).relative_to(store.home)

    def slowly(pieces: Any) -> list[str]:
        damaged = add(pieces)
        if not seconds and any(one.root.glob(f"{below}/rows-*.partial")):
            keep(str(below), [], 16)
            two.drop(f"{below}/rows-000000000-000000004.json")
            seconds.append(threads.submit(other.prepare, two, "far", lambda message: None))
            waited.append(not kept.wait(0.2))
        return damaged

    def keep_shards(*args: Any) -> None:
        kept.set()
        keep(*args)

    monkeypatch.setattr(one, "add", slowly)
    monkeypatch.setattr(two, "keep_shards", keep_shards)
    with ThreadPoolExecutor(1) as threads:
        try:
            errand.prepare(one, "far", lambda message: None)
        finally:
            one.close()  # or the other would wait for ever
        (second,) = seconds
        second.result(HANG)
    assert waited == [True], "the other has the machine after the first"
    assert kept.is_set()
    assert list(Store(one.root).rows(numbers.take(16))) == list(store.rows(numbers.take(16)))
    two.close()
    carrier.close()


def test_a_shard_comes_back_as_its_builder_would_have_put_it_and_the_first_counts(store: Store, depot: Depot) -> None:
    pool = Numbers(3)
    there = Store(depot.root)
    build(Goal(pool, 4, ()), there, Runtime(), silence)
    fetch_shard(depot, store, pool, Span(0, 4))
    assert files_below(store.folder(pool)) == files_below(there.folder(pool))
    before, manifest = files_below(store.folder(pool)), there.shard_manifest(pool, Span(0, 4))
    assert manifest is not None
    packed = there.shard_files(pool, Span(0, 4))[1].read_bytes()
    depot.drop(str(there.shard_files(pool, Span(0, 4))[0]))
    assert there.shards(pool) == []
    there.put_shard(pool, Span(0, 4), packed, manifest.model_copy(update={"seconds": 9.0}))
    assert files_below(there.folder(pool)) != before
    fetch_shard(depot, store, pool, Span(0, 4))
    assert files_below(store.folder(pool)) == before


def test_a_shard_that_comes_damaged_is_not_put_anywhere(store: Store, depot: Depot) -> None:
    pool = Numbers(3)
    there = Store(depot.root)
    build(Goal(pool, 4, ()), there, Runtime(), silence)
    there.shard_files(pool, Span(0, 4))[1].write_bytes(b"x")
    with pytest.raises(OSError, match="rows 0 to 3 came damaged: its rows are not those of its manifest"):
        fetch_shard(depot, store, pool, Span(0, 4))
    assert store.shards(pool) == []
    assert there.shards(pool) == [], "it is built again"


class Pipe:
    """The end of a worker in this process: it asks for blocks, and what it says goes through its errand."""

    def __init__(self, errand: PoolErrand, depot: Depot, blocks: list[Span]) -> None:
        self.errand, self.depot, self.blocks = errand, depot, blocks
        self.heard = list[dict[str, Any]]()
        self.stored = list[list[Span]]()

    def send_bytes(self, message: bytes) -> None:
        self.heard.append(json.loads(self.errand.pass_on(self.depot, message)))
        if self.heard[-1]["event"] == "next":
            assert isinstance(self.errand.goal.node, Pool)
            self.stored.append(self.errand.carrier.store.shards(self.errand.goal.node))

    def recv_bytes(self) -> bytes:
        return json.dumps(self.blocks.pop(0) if self.blocks else None).encode()

    def close(self) -> None:
        """The end."""


def work_far(written: Goal, store: Store, tmp_path: Path, said: list[str]) -> Pipe:
    """A worker's body in a process of its own, whose store is a depot; the pipe as this process saw it."""
    carrier = Carrier(store)
    log = tmp_path / "logs" / "written.log"
    log.parent.mkdir(exist_ok=True)
    args = (written, store, Runtime(devices="cpu"), log, maker(), True, None, None, None)
    errand, depot = PoolErrand(carrier, written, log, args), Depot(carrier.depot, tmp_path)
    try:
        far = errand.prepare(depot, "far", lambda message: said.append(json.loads(message)["message"]))
    finally:
        depot.close()  # as when the worker has ended
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run_worker, args=(*far, there), daemon=True)
    process.start()
    there.close()
    pipe = Pipe(errand, depot, [Span(0, 4), Span(4, 8)])
    while True:
        try:
            pipe.send_bytes(here.recv_bytes())
        except EOFError:
            break
        if pipe.heard[-1]["event"] == "next":
            here.send_bytes(pipe.recv_bytes())
    process.join()
    errand.finish(depot)
    carrier.close()
    return pipe


def test_a_worker_without_the_store_writes_what_one_with_it_does(written: Goal, store: Store, tmp_path: Path) -> None:
    pool, said = written.node, list[str]()
    assert isinstance(pool, Pool)
    pipe = work_far(written, store, tmp_path, said)
    assert [event["event"] for event in pipe.heard if event["event"] != "progress"] == [
        *("next", "shard", "next", "shard", "next", "done")
    ]
    assert pipe.stored == [[], [Span(0, 4)], [Span(0, 4), Span(4, 8)]], "a shard is here before its end is heard"
    assert [row.value for row in store.rows(pool.take(8))] == [7 * 2 * 2 * row for row in range(8)]
    assert len(said) == 1
    assert f"far does not see runtime.home={store.home}: it works in {tmp_path}/speed-" in said[0]
    assert "under 0.1 GB are carried there (payload, numbers)" in said[0]
    assert not list((store.home / "cache").glob("seen*"))
    assert (tmp_path / "logs" / "written.log").read_text() == "rows from 0 on\nrows from 4 on\n"
    assert (tmp_path / "log").read_text().split() == ["0", "4"]


def test_what_is_whole_there_is_not_done_again(written: Goal, store: Store, tmp_path: Path) -> None:
    """A run that was killed before it heard of a block finds it there."""
    pool, said = written.node, list[str]()
    assert isinstance(pool, Pool)
    work_far(written, store, tmp_path, said)
    for file in store.folder(pool).glob("rows-000000004*"):
        file.unlink()
    pipe = work_far(written, store, tmp_path, said)
    assert store.shards(pool) == [Span(0, 4), Span(4, 8)]
    assert [event["start"] for event in pipe.heard if event["event"] == "shard"] == [0, 4]
    assert (tmp_path / "log").read_text().split() == ["0", "4"], "each was written once"
    assert "what it reads is there" in said[1]


def test_a_block_that_the_store_cannot_take_stays_there_for_the_next_run(
    written: Goal, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, put, errands = written.node, Store.put_shard, list[PoolErrand]()
    assert isinstance(pool, Pool)
    pass_on = PoolErrand.pass_on

    def full(self: Store, *args: Any) -> None:
        if self.home == store.home:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, *args)

    def kept(self: PoolErrand, depot: Depot, message: bytes) -> bytes:
        errands.append(self)
        assert not self.keeps
        return pass_on(self, depot, message)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_shard", full)
        patch.setattr(PoolErrand, "pass_on", kept)
        with pytest.raises(NotCarried) as failed:
            work_far(written, store, tmp_path, [])
    event = json.loads(failed.value.message)
    assert (event["event"], event["store"], event["here"]) == ("user_error", True, True)
    assert "the disk is full while carrying back written" in event["message"]
    assert errands[-1].keeps
    (tmp_path / "log").write_text("")
    work_far(written, store, tmp_path, [])
    assert store.shards(pool) == [Span(0, 4), Span(4, 8)]
    assert (tmp_path / "log").read_text().split() == ["4"], "the first is only carried"


def test_damage_there_is_mended_by_the_next_worker_and_damage_here_is_told(
    written: Goal, store: Store, tmp_path: Path
) -> None:
    work_far(written, store, tmp_path, [])
    assert isinstance(written.node, Written)
    for file in store.folder(written.node).glob("rows-*"):
        file.unlink()
    (depot,) = tmp_path.glob("speed-*")
    for file in Store(depot).folder(written.node).glob("rows-*"):
        file.unlink()
    (shard,) = depot.glob("store/numbers/*/rows-000000000-000000004.jsonl.zst")
    shard.write_bytes(shard.read_bytes()[::-1])
    crash = work_far(written, store, tmp_path, []).heard[-1]
    assert (crash["event"], "what it had been carried is damaged" in crash["message"]) == ("crash", True)
    assert work_far(written, store, tmp_path, []).heard[-1]["event"] == "done"
    assert written.node.payload is not None
    large = store.folder(written.node.payload) / "model" / "large.bin"
    large.write_bytes(b"x" + large.read_bytes()[1:])
    clear(depot.name.split("-", 2)[2], tmp_path)
    with pytest.raises(NotCarried) as failed:
        work_far(written, store, tmp_path, [])
    event = json.loads(failed.value.message)
    assert (event["event"], event["path"]) == ("corrupt", str(large))


def test_a_depot_is_cleared_when_nobody_works_in_it(tmp_path: Path) -> None:
    assert clear("run", tmp_path), "there is none"
    depot = Depot("run", tmp_path)
    depot.open()
    (depot.root / "store" / "x").touch()
    assert not clear("run", tmp_path, seconds=0.2)
    depot.close()
    assert clear("run", tmp_path)
    assert list(tmp_path.iterdir()) == []
    depot.open()
    assert (depot.root / "store").is_dir()
    depot.close()


def test_what_a_killed_removal_has_left_goes_with_the_next(tmp_path: Path) -> None:
    left = depot_root("run", tmp_path).with_name(f"{depot_root('run', tmp_path).name}.gone-12345678")
    (left / "store").mkdir(parents=True)
    assert clear("run", tmp_path)
    assert not left.exists()


def test_a_depot_that_is_cleared_while_it_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_symlink, cleared = Path.is_symlink, list[bool]()

    def clearing(self: Path) -> bool:
        found = is_symlink(self)
        if not cleared and self.name.endswith("-run"):
            self.rmdir()
            cleared.append(True)
        return found

    monkeypatch.setattr(Path, "is_symlink", clearing)
    depot = Depot("run", tmp_path)
    assert Path(depot.open()).is_dir()
    assert cleared
    depot.close()


def test_a_folder_of_somebody_else_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    depot_root("run", tmp_path).symlink_to(tmp_path / "theirs")
    with pytest.raises(
        UserError, match="cannot take what a run carries to this machine: it is not of this user\n  start"
    ):
        Depot("run", tmp_path).open()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory"):
        Depot("run", tmp_path / "file").open()


def test_a_disk_that_is_full_there_is_told_and_nothing_stays(
    store: Store, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Payload(3)
    build(Goal(stage, 0, ()), store, Runtime(), silence)
    (bundle,) = bundles_of(store, stage, 0)

    def full(self: Incoming, piece: bytes) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Incoming, "add", full)
    with pytest.raises(UserError, match=f"{depot.root} cannot take .*: No space left on device\n  start Ray there"):
        carry(bundle, store.folder(stage), depot)
    assert not list((depot.root / "store").rglob("*.*-*.partial"))


def test_a_whole_folder_without_a_manifest_is_carried_too(depot: Depot, tmp_path: Path) -> None:
    """As the model of an encoding is."""
    model = tmp_path / "model"
    (model / "deep").mkdir(parents=True)
    for name in ("config.json", "deep/part"):
        (model / name).write_text(name)
    carry(Bundle("models/1", outputs_of(model), whole=True), model, depot)
    assert files_below(depot.root / "models" / "1") == files_below(model)
