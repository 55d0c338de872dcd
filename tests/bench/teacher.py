"""How much of the provider's speed the teacher reaches, and what it costs itself.

    python tests/bench/teacher.py [--quick] [--rows N] [--rival-python PATH]

A provider of 200 ms latency runs in a process of its own; 64 requests in flight could bring 320 answers a second.
`cpu_ms_per_answer` is our own bookkeeping over a sender that answers at once, what is left when transport is taken
away: render, key, journal, pace, order, parse, tally, ledger; of retrieval prompts, the longest, and answers of 2,100
characters. `cpu_ms_per_answer_least` is the same of the fastest tenth. `cpu_ms_per_row` is the whole stage of seed
data: the same, and the answer parsed and verified once more as a row, and the row written. `calibration_ns` is the CPU
time of one turn of a fixed loop in plain Python in the same minutes: a machine whose neighbours are busy is slower in
CPU time, too, so figures of two days compare as `turns_per_answer`. `journal_*` are figures of a journal of a million
entries. `ram_kb_per_row` is the memory that so many rows (`--rows`) of the bookkeeping take at most, in a process of
its own, beyond what it held before the first; `ram_kb_per_row_N` the same of fewer: where nothing grows with the rows
it falls as they rise. Given the Python of an environment that has distilabel 1.5.3, `vs_distilabel` is its CPU per row
over ours, for the same answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "teaching"))
sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from provider import Provider
from scripted_writer import GivenTasks, GivenTopics
from synthetic import in_fresh_process, measured

from speed.core.build import build
from speed.core.graph import goals
from speed.core.stage import silence
from speed.core.store import Store
from speed.data.answers.accept_or_reject import KEEP
from speed.data.answers.parse import parse_example
from speed.data.assignment import Assignment, BrainstormPlan
from speed.data.draws import generator
from speed.data.mix import Mix
from speed.data.prompts.rendering import PromptsConfig, data_prompt
from speed.data.records import Kind, Rejected
from speed.ports import Ask, Check
from speed.runtime import Context, Runtime
from speed.stages.seed import SeedData
from speed.teaching.entry import Entry, key
from speed.teaching.errors import Reply
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.teaching.requests import Call
from speed.teaching.teacher import JournaledTeacher

LATENCY, CONCURRENCY = 0.2, 64
PROMPTS = PromptsConfig()
TASK = "Given a question about the care of old buildings, retrieve documents that answer it."
TOPIC = "Arts/Architecture/Preservation/Organizations"
TEXT = json.dumps(
    {"user_query": "a query", "positive_document": "word " * 200, "hard_negative_document": "word " * 200}
)


class InstantTeacher(JournaledTeacher):
    """Answers at once and without transport."""

    async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
        await asyncio.sleep(0)
        return Reply(text=TEXT, finish_reason="stop", tokens_in=400, tokens_out=500)


def parsed(text: str) -> str | None:
    found = parse_example(Kind.RETRIEVAL, TASK, text, "stop")
    return found.cause if isinstance(found, Rejected) else None


def prompt(row: int) -> str:
    return data_prompt(Kind.RETRIEVAL, TASK, TOPIC, PROMPTS, generator(0, "prompt", "seed", "retrieval", row)).text


def requests(rows: int, first: int = 0) -> Iterator[tuple[Ask, Check]]:
    for row in range(first, first + rows):
        ask = Ask(prompt=prompt(row), temperature=1.0, max_tokens=1000, purpose="seed", kind=Kind.RETRIEVAL, index=row)
        yield ask, parsed


def asked(teacher: JournaledTeacher, rows: int, home: Path, first: int = 0, **runtime: Any) -> tuple[float, float]:
    """Answers a second and CPU seconds of so many answers.

    The speed is taken where all places in flight are filled: without the first two rounds, which all begin at once, and
    the last, in which nothing follows.
    """
    ctx = Context(Store(home).open(), Runtime(home=home, concurrency=CONCURRENCY, **runtime))
    cpu, answered, begin, end = time.process_time(), 0, 2 * CONCURRENCY, rows - CONCURRENCY
    times = {}
    for answer in teacher.ask(requests(rows, first), ctx):
        assert answer.cause == "ok"
        answered += 1
        if answered in (begin, end):
            times[answered] = time.perf_counter()
    assert answered == rows
    speed = (end - begin) / (times[end] - times[begin]) if begin < end else math.nan
    return speed, time.process_time() - cpu


def calibration() -> float:
    """CPU nanoseconds of one turn of a loop."""

    def turn(turns: int) -> int:
        total = 0
        for number in range(turns):
            total += number * number % 7
        return total

    begun = time.thread_time()
    turn(200_000)
    return 1e9 * (time.thread_time() - begun) / 200_000


def bookkeeping(rows: int, home: Path) -> dict[str, float]:
    """CPU milliseconds of an answer by a sender that answers at once, in ten blocks, and memory that stays."""
    teacher = InstantTeacher(model="miniature/bench")
    asked(teacher, 200, home / "warm")
    blocks, turns = [], []
    for block in range(10):
        turns.append(calibration())
        blocks.append(1e4 * asked(teacher, rows // 10, home / "instant", first=block * rows // 10)[1] / rows)
    _, cached = asked(teacher, rows, home / "instant")
    mean, turn = sum(blocks) / 10, sum(turns) / 10
    figures = {"cpu_ms_per_answer": mean, "cpu_ms_per_answer_least": min(blocks), "calibration_ns": turn}
    figures |= {"turns_per_answer": 1e6 * mean / turn, "cpu_ms_per_cached_answer": 1e3 * cached / rows}
    figures["cpu_ms_per_row"] = seed_rows(rows // 5, home / "stage")
    print(f"bookkeeping: {mean:.3f} ms CPU an answer, {min(blocks):.3f} in the fastest tenth")
    print(f"calibration: {turn:.0f} ns a turn, {1e6 * mean / turn:.0f} turns an answer")
    print(f"from the journal: {1e3 * cached / rows:.3f} ms; a row of the stage: {figures['cpu_ms_per_row']:.3f} ms")
    return figures


def memory(rows: int, home: Path) -> float:
    """KB a row that the bookkeeping of so many rows takes at most, in this process."""
    teacher = InstantTeacher(model="miniature/bench")
    asked(teacher, 1, home)
    begun = Path("/proc/self/status").read_text()
    _, peak = measured(lambda: asked(teacher, rows, home, first=1))
    return (1024 * peak - int(begun.partition("VmRSS:")[2].split()[0])) / rows


def memories(rows: int, home: Path) -> dict[str, float]:
    """The same for some sizes, each in a process of its own."""
    found = {}
    for size in (rows // 4, rows // 2, rows):
        with tempfile.TemporaryDirectory(dir=home) as folder:
            found[f"ram_kb_per_row_{size}"] = in_fresh_process(__file__, size, folder)["ram_kb_per_row"]
        print(f"memory of {size} rows: {found[f'ram_kb_per_row_{size}']:.3f} KB a row")
    return {**found, "ram_kb_per_row": found[f"ram_kb_per_row_{rows}"]}


def seed_rows(rows: int, home: Path) -> float:
    """CPU milliseconds a row of the stage of seed data."""
    mix = Mix(retrieval=1, classification=0, sts=0, short_short=0, long_long=0)
    assignment = Assignment(role="seed", seed=0, mix=mix, prompts=PROMPTS.of("synthesis"))
    tasks = GivenTasks(BrainstormPlan(role="seed", seed=0, mix=mix))
    longest = dict.fromkeys(Kind, 1000)
    pool = SeedData(
        assignment=assignment, topics=GivenTopics(), tasks=tasks, teacher=InstantTeacher(model="miniature/bench"),
        temperature=1.0, max_tokens=longest, attempts=1, guidelines=KEEP,
    )  # fmt: skip
    store = Store(home).open()
    order = goals([pool.take(rows)])
    for goal in order[:-1]:
        build(goal, store, Runtime(home=home), silence)
    cpu = time.process_time()
    build(order[-1], store, Runtime(home=home, concurrency=CONCURRENCY), silence)
    return 1e3 * (time.process_time() - cpu) / rows


def provider(pipe: Any) -> None:
    with Provider(latency=LATENCY) as serving:
        numbers = count()
        serving.answer = lambda prompt: TEXT.replace("a query", f"query {next(numbers)}")
        pipe.send(serving.url)
        pipe.recv()


def shares(rows: int, home: Path) -> dict[str, float]:
    """Answers a second against the provider, as a share of what 64 in flight can reach at most."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=provider, args=(theirs,))
    process.start()
    url = ours.recv()
    os.environ["OPENAI_API_KEY"] = "none"
    found = {}
    for name, teacher in (
        ("share_of_ideal_64", OpenAICompatibleTeacher(model="miniature/bench")),
        ("share_of_ideal_64_litellm", LitellmTeacher(model="openai/miniature/bench")),
    ):
        asked(teacher, CONCURRENCY, home / name / "warm", api_base=url)
        speed, cpu = asked(teacher, rows, home / name, api_base=url)
        ideal = CONCURRENCY / LATENCY
        found[name] = speed / ideal
        found[f"cpu_ms_per_answer_{type(teacher).__name__}"] = 1e3 * cpu / rows
        print(f"{type(teacher).__name__}: {speed:.0f} answers/s of {ideal:.0f}, {1e3 * cpu / rows:.2f} ms CPU each")
    ours.send("done")
    process.join()
    return found


def million(entries: int, home: Path) -> dict[str, float]:
    """Open a big journal in a fresh process: seconds, peak memory, and one look-up."""
    messages = ({"role": "user", "content": prompt(0)[:200]},)
    journal = Journal(home)
    begun = time.process_time()
    for row in range(entries):
        name = key("m", messages, {"temperature": 1.0}, row)
        journal.append(Entry(key=name, model="m", messages=messages, index=row, text=TEXT[:300], dollars=0.0))
    journal.close()
    print(f"journal: {1e6 * (time.process_time() - begun) / entries:.0f} us CPU an entry to append")
    program = f"""
import json, sys, time
from pathlib import Path
from speed.teaching.journal import Journal
begun = time.perf_counter()
journal = Journal(Path(sys.argv[1]))
opened = time.perf_counter() - begun
assert journal.get({name!r}) is not None
looked = time.perf_counter() - begun - opened
status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with the parent's
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({{"journal_open_s": opened, "journal_get_s": looked, "journal_peak_mb": peak}}))
"""
    shown = subprocess.run([sys.executable, "-c", program, str(home)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(shown.stdout)
    begun_wall = time.perf_counter()
    for path in home.glob("index*"):
        path.unlink()
    Journal(home).close()
    found["journal_rebuild_s"] = time.perf_counter() - begun_wall
    print(f"journal of {entries}: {found}")
    return found


def rival(python: str, rows: int, folder: Path) -> float:
    """CPU milliseconds a row of distilabel, in batches of 500, all its processes together; the start of an empty
    pipeline is taken off."""
    script = str(Path(__file__).with_name("rival_distilabel.py"))

    def spent(rows: int) -> float:
        command = [python, script, str(rows), "500", str(folder / str(rows))]
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800, env=quiet).stdout
        found = json.loads(shown.strip().splitlines()[-1])
        assert found["rows"] == rows
        return float(found["cpu_s"])

    return 1e3 * (spent(rows) - spent(1)) / (rows - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, a hundredth of the journal")
    parser.add_argument("--rows", type=int, help="rows whose memory is measured (200,000; a twentieth with --quick)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rival-python", help="Python of an environment with distilabel, to measure beside it")
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"ram_kb_per_row": memory(int(options.child[0]), Path(options.child[1]))}))
        return
    quick = options.quick
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        figures = bookkeeping(3_000 if quick else 30_000, home)
        figures |= memories(options.rows or (10_000 if quick else 200_000), home)
        figures |= shares(1_280 if quick else 6_400, home)
        figures |= million(10_000 if quick else 1_000_000, home / "million")
        if options.rival_python is None or not Path(options.rival_python).exists():
            print(f"SKIPPED vs_distilabel: no environment with distilabel ({options.rival_python}); see --rival-python")
        else:
            theirs = rival(options.rival_python, 2_000 if quick else 10_000, home / "rival")
            figures |= {
                "distilabel_cpu_ms_per_row": theirs,
                "vs_distilabel": theirs / figures["cpu_ms_per_answer"],
            }
            print(f"distilabel: {theirs:.3f} ms CPU a row, {figures['vs_distilabel']:.1f} times ours")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
