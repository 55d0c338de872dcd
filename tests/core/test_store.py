"""Complete means renamed; damage is noticed when it is read, said, and built again."""

from __future__ import annotations

import json
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG
from toys import Card, Doubled, Failing, Number, Numbers, OnCard, Report, SharedNumbers, Sum, WholeNumbers
from zstandard import ZstdDecompressor

from speed.core.build import Clock, _manifest, attempt_build, build
from speed.core.build_all import StageFailed, build_all
from speed.core.errors import CorruptArtifact, UserError
from speed.core.graph import Goal, goals, stage_statuses
from speed.core.manifest import maker, outputs_of, read_manifest
from speed.core.stage import silence
from speed.core.store import FORMAT, PACKED, PLAIN, Span, Store
from speed.core.work import Tally
from speed.runtime import Context, Runtime


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


def build_here(store: Store, *targets: object) -> list[str]:
    """Build in this process; the labels that were missing."""
    built = []
    for goal in goals(targets):  # type: ignore[arg-type]
        if stage_statuses([goal], store)[0].state != "hit":
            built.append(goal.label)
        build(goal, store, Runtime(), silence)
    return built


def test_a_stage_is_built_once_and_its_manifest_says_how(store: Store) -> None:
    stage = Sum(Numbers(3).take(5))
    assert build_here(store, stage) == ["numbers", "sum"]
    assert build_here(store, stage) == []
    assert (store.payload(stage) / "sum.txt").read_text() == str(3 * (0 + 2 + 4))
    manifest = store.manifest(stage)
    assert manifest is not None
    assert manifest.key == stage.key
    assert [output.path for output in manifest.outputs] == ["curves.jsonl", "sum.txt"]
    shard = store.shard_manifest(Numbers(3), Span(0, 4))
    assert shard is not None
    assert (shard.counts, shard.rejected, shard.cost) == ({"in": 4, "out": 2}, {"odd": 2}, {"calls": 4})


ROUNDS = 40


def write_against(home: Path, factor: int, barrier: Any) -> None:
    """Write the shards of a pool at the same moments as another process, with other rows."""
    numbers, store = Numbers(1, size=1), Store(home)
    ctx = Context(store, Runtime())
    try:
        for row in range(ROUNDS):
            made = _manifest(numbers, ctx, Tally(), Clock.now(), maker(), Span(row, row + 1))
            barrier.wait(HANG)
            store.write_shard(numbers, Span(row, row + 1), [Number(row=row, value=factor)], made)
    finally:
        barrier.abort()  # after an error the other one ends too


def test_of_two_that_write_the_same_shard_one_counts_whole(store: Store) -> None:
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(2)
    writers = [context.Process(target=write_against, args=(store.home, factor, barrier)) for factor in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(HANG)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert all(row.value in (1, 2) for row in store.rows(Numbers(1, size=1).take(ROUNDS)))
    assert not list(store.home.glob("store/*/*/*.partial"))


def test_what_another_machine_left_in_a_stage_is_no_part_of_it(store: Store) -> None:
    stage = Sum(Numbers(3).take(5))
    left = store.partial(stage) / "model.00000000-1-00000000.partial"
    left.mkdir()
    (left / "half.bin").touch()
    build_here(store, stage)
    manifest = store.manifest(stage)
    assert manifest is not None
    assert [output.path for output in manifest.outputs] == ["curves.jsonl", "sum.txt"]


def test_a_pool_grows_by_what_is_missing_and_its_prefix_stays(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    numbers = Numbers(2, log=str(log))
    build_here(store, numbers.take(3))
    first = list(store.rows(numbers.take(3)))
    build_here(store, numbers.take(10))
    assert log.read_text().split() == [str(row) for row in range(10)]
    assert list(store.rows(numbers.take(3))) == first
    assert [row.value for row in store.rows(numbers.take(10))] == [2 * row for row in range(10)]
    assert store.shards(numbers) == [Span(0, 3), Span(3, 4), Span(4, 8), Span(8, 10)]


def test_pools_of_engines_come_in_whole_blocks(store: Store) -> None:
    numbers = WholeNumbers(2)
    build_here(store, numbers.take(5))
    assert store.shards(numbers) == [Span(0, 4), Span(4, 8)]
    assert len(list(store.rows(numbers.take(5)))) == 5
    assert [goal.rows for goal in goals([Doubled(numbers).take(3)])] == [6, 3]


@pytest.mark.parametrize("flipped", ["sum.txt", "manifest.json"])
def test_a_flipped_bit_in_an_artifact_is_noticed(store: Store, flipped: str) -> None:
    stage = Sum(Numbers(3).take(5))
    build_here(store, stage)
    flip(store.folder(stage) / flipped)
    with pytest.raises(CorruptArtifact):
        store.payload(stage)
    note = Report(stage)
    runtime = Runtime(side_by_side=1)
    if flipped == "sum.txt":
        ended = attempt_build(goals([note])[-1], store, runtime, silence)
        assert ended["event"] == "corrupt"
        store.set_aside(Path(ended["path"]))
    assert stage_statuses(goals([note]), store)[1].state == "miss"
    assert build_here(store, note) == ["sum", "note"]
    assert (store.payload(note) / "note.txt").read_text() == "sum 18"


@pytest.mark.parametrize("suffix", [PACKED, ".json"])
def test_a_flipped_bit_in_a_shard_costs_that_shard_alone(store: Store, tmp_path: Path, suffix: str) -> None:
    log = tmp_path / "log"
    numbers = Numbers(2, log=str(log))
    build_here(store, numbers.take(12))
    log.unlink()
    flip(store.folder(numbers) / f"rows-000000004-000000008{suffix}")
    with pytest.raises(CorruptArtifact) as damage:
        list(store.rows(numbers.take(12)))
    store.set_aside(damage.value.path)
    build_here(store, numbers.take(12))
    assert log.read_text().split() == ["4", "5", "6", "7"]
    assert [row.row for row in store.rows(numbers.take(12))] == list(range(12))


def test_a_store_of_plain_rows_is_read_and_goes_on(store: Store) -> None:
    numbers = Numbers(2)
    build_here(store, numbers.take(4))
    made = list(store.rows(numbers.take(4)))
    (shard,) = store.folder(numbers).glob(f"*{PACKED}")
    plain = shard.with_name(shard.name.removesuffix(PACKED) + PLAIN)
    plain.write_bytes(ZstdDecompressor().decompress(shard.read_bytes()))
    shard.unlink()
    (manifest,) = store.folder(numbers).glob("rows-*.json")
    recorded = read_manifest(manifest)
    assert recorded is not None
    outputs = tuple(output for output in outputs_of(store.folder(numbers)) if output.path == plain.name)
    recorded.model_copy(update={"outputs": outputs}).write(manifest)
    (store.home / "format.json").write_text('{"format": 1}')
    older = Store(store.home).open()
    assert json.loads((store.home / "format.json").read_text()) == {"format": FORMAT}, (
        "older code refuses it from now on"
    )
    build_here(older, numbers.take(8))
    assert list(older.rows(numbers.take(8)))[:4] == made
    assert len(list(store.folder(numbers).glob(f"*{PACKED}"))) == 1


def test_points_of_a_training_that_was_interrupted_are_told_again(store: Store) -> None:
    stage = Sum(Numbers(3).take(4))
    partial = store.partial(stage)
    (partial / "curves.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    events: list[dict[str, Any]] = []
    for node, rows in ((Numbers(3), 4), (stage, 0)):
        build(Goal(node, rows, ()), store, Runtime(home=store.home), events.append)
    told = [event for event in events if event["event"] == "metric"]
    assert told[0] == {"event": "metric", "step": 1, "figures": {"loss": 2.0}}
    kept = [json.loads(line) for line in (store.payload(stage) / "curves.jsonl").read_text().splitlines()]
    assert [{"step": e["step"], **e["figures"]} for e in told] == kept, "the half line is gone, and spoils no other"
    assert len(kept) > 1


def test_an_interrupted_build_is_never_taken_for_complete(store: Store) -> None:
    stage = Sum(Numbers(3).take(5))
    build_here(store, Numbers(3).take(5))
    partial = store.partial(stage)
    (partial / "sum.txt").write_text("half")
    assert stage_statuses(goals([stage]), store)[1].state == "miss"
    build_here(store, stage)
    assert (store.payload(stage) / "sum.txt").read_text() == "18"
    assert not partial.exists()


def test_rows_survive_the_file_with_every_character(store: Store) -> None:
    row = Number(row=0, value=1, rejected="odd", detail="a\u2028b\x85c\n\x00😀")
    numbers = Numbers(1)
    ctx = Context(store, Runtime())

    store.write_shard(numbers, Span(0, 1), [row], _manifest(numbers, ctx, Tally(), Clock.now(), maker(), Span(0, 1)))
    assert list(store.rows(numbers.take(1))) == [row]


def test_a_newer_store_is_refused_with_the_remedy(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store(home).open()
    (home / "format.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(UserError, match="newer version.*\n.*update speed, or take another folder"):
        Store(home).open()


def test_a_root_that_cannot_be_made_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be the store.*take a folder"):
        Store(tmp_path / "file" / "home").open()


def test_the_root_may_be_moved(store: Store, tmp_path: Path) -> None:
    stage = Report(Sum(Numbers(3).take(5)))
    build_here(store, stage)
    moved = tmp_path / "moved"
    store.home.rename(moved)
    assert build_here(Store(moved).open(), stage) == []


def test_children_build_what_is_missing_side_by_side(store: Store, tmp_path: Path) -> None:
    events: list[tuple[str, str]] = []
    order = goals([Report(Sum(Numbers(3).take(5))), Report(Sum(Numbers(3).take(9), offset=1))])
    assert [goal.label for goal in order] == ["numbers", "sum", "note", "sum", "note"]
    build_all(order, store, Runtime(), lambda label, event: events.append((label, event["event"])), tmp_path / "logs")
    assert {standing.state for standing in stage_statuses(order, store)} == {"hit"}
    assert events.count(("sum", "done")) == 2
    assert ("sum", "metric") in events


@pytest.mark.usefixtures("no_gpu_here")
@pytest.mark.parametrize("devices", ["cpu", (0,), (0, 1)])
def test_stages_that_need_a_device_for_themselves_take_turns(devices: Any, store: Store, tmp_path: Path) -> None:
    events: list[tuple[str, str]] = []
    said: list[str] = []

    def listen(label: str, event: dict[str, Any]) -> None:
        events.append((label, event["event"]))
        said.append(f"{label} {event.get('message')}")

    order = goals([OnCard(Card(number=number)) for number in range(2)] + [Sum(Numbers(3).take(4))])
    build_all(order, store, Runtime(devices=devices, side_by_side=3), listen, tmp_path / "logs")
    second, first_done = events.index(("on card 1", "start")), events.index(("on card 0", "done"))
    assert (second > first_done) == (devices == (0,))
    assert events.index(("numbers", "start")) < first_done  # what needs no device does not wait for it
    assert ("on card 1 waits for 1 GPU: on card 0 has GPU 0" in said) == (devices == (0,))
    seen = [(store.payload(goal.node) / "seen.txt").read_text() for goal in order if goal.label.startswith("on card")]
    assert seen == {"cpu": ["", ""], (0,): ["0", "0"], (0, 1): ["0", "1"]}[devices]


def test_blocks_of_a_pool_are_built_side_by_side_where_there_is_room(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool = SharedNumbers(2, log=str(log), together=3)
    progress: list[tuple[int, int]] = []
    done: list[str] = []

    def listen(label: str, event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            progress.append((event["done"], event["total"]))
        elif event["event"] == "done":
            done.append(label)

    build_all(goals([pool.take(18)]), store, Runtime(side_by_side=3), listen, tmp_path / "logs")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted((int(start), int(stop)) for _, start, stop in lines) == [
        (start, start + 4) for start in range(0, 20, 4)
    ]
    assert len({process for process, _, _ in lines}) == 3
    assert [row.value for row in store.rows(pool.take(20))] == [2 * row for row in range(20)]
    assert store.shards(pool) == [Span(start, start + 4) for start in range(0, 20, 4)]
    assert done == ["shared numbers"]
    assert {total for _, total in progress} == {20}
    assert sorted(progress) == progress
    again = store.try_lock(pool)
    assert again is not None
    again.release()


def test_a_pool_that_another_run_builds_is_waited_for_by_one_process(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool = SharedNumbers(2, log=str(log))
    lock = store.try_lock(pool)
    assert lock is not None
    assert store.try_lock(pool) is None
    free = threading.Timer(1.0, lock.release)  # long after the run has seen that it is taken
    listen = lambda label, event: free.start() if event["event"] == "start" else None  # noqa: E731
    build_all(goals([pool.take(16)]), store, Runtime(), listen, tmp_path / "logs")
    assert [line.split()[1:] for line in log.read_text().splitlines()] == [["0", "16"]]
    assert stage_statuses(goals([pool.take(16)]), store)[0].state == "hit"


def test_what_a_broken_part_lacks_is_built_again(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool = SharedNumbers(2, log=str(log), breaks=str(tmp_path / "broken"))
    done: list[str] = []
    listen = lambda label, event: done.append(event["event"])  # noqa: E731
    build_all(goals([pool.take(16)]), store, Runtime(), listen, tmp_path / "logs")
    assert [row.row for row in store.rows(pool.take(16))] == list(range(16))
    assert done.count("done") == 1
    assert done.count("corrupt") == 1


def test_damage_met_by_a_child_is_said_and_mended(store: Store, tmp_path: Path) -> None:
    total = Sum(Numbers(3).take(5))
    build_here(store, total)
    flip(store.folder(total) / "sum.txt")
    events: list[tuple[str, str]] = []
    listen = lambda label, event: events.append((label, event["event"]))  # noqa: E731
    build_all(goals([Report(total)]), store, Runtime(), listen, tmp_path / "logs")
    assert ("note", "corrupt") in events
    assert (store.payload(Report(total)) / "note.txt").read_text() == "sum 18"


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("user", UserError, "key x=1: take 2"),
        ("full", UserError, "the disk is full while building failing"),
        ("bug", StageFailed, "ValueError: a bug"),
        ("die", StageFailed, "code 7"),
    ],
)
def test_how_a_child_fails_is_told(
    store: Store, tmp_path: Path, how: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_all(goals([Failing(how)]), store, Runtime(), lambda *_: None, tmp_path / "logs")
    assert store.manifest(Failing(how)) is None


def test_why_a_stage_is_missing_names_the_field(store: Store) -> None:
    build_here(store, Report(Sum(Numbers(3).take(5))))
    found = stage_statuses(goals([Report(Sum(Numbers(3).take(5), offset=2))]), store)
    assert [(standing.state, standing.why) for standing in found] == [
        ("hit", ""),
        ("miss", "offset 0 -> 2"),
        ("miss", "total changed"),
    ]
    grown = stage_statuses(goals([Sum(Numbers(3).take(7))]), store)
    assert [(standing.state, standing.why, standing.work.calls) for standing in grown] == [
        ("partial", "", 2),
        ("miss", "numbers 5 -> 7 rows", 0),
    ]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_light_stages_are_built_where_they_stand(store: Store, tmp_path: Path) -> None:
    """A mistake in the topics file is told before minutes of imports: what needs no slow package needs no process."""
    import os

    total = Sum(Numbers(3).take(3))
    build_here(store, total)

    class Here(Report):
        name = "here"
        packages = ()

        def run(self, out: Path, ctx: object) -> None:
            (out / "pid").write_text(str(os.getpid()))

    build_all(goals([Here(total)]), store, Runtime(), lambda *_: None, tmp_path / "logs")
    assert (store.payload(Here(total)) / "pid").read_text() == str(os.getpid())
