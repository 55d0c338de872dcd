"""Texts are tokenised once for all trainings that read them alike, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG
from contrastive_examples import examples, small
from tiny_generator import context, make_base

from speed.backends.embedder import token_table
from speed.backends.embedder.loop import table_of
from speed.backends.embedder.settings import Source
from speed.backends.encoding.token_rows import token_rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of texts that were tokenised, one entry a call."""
    counts: list[int] = []

    def counted(tokenizer: Any, texts: list[str], *rest: Any) -> Any:
        counts.append(len(texts))
        return token_rows(tokenizer, texts, *rest)

    monkeypatch.setattr(token_table, "token_rows", counted)
    return counts


def test_points_of_a_sweep_share_one_table(base: Path, tmp_path: Path, tokenised: list[int]) -> None:
    data, ctx = examples(tmp_path / "examples.jsonl", 40), context(tmp_path / "home")
    first = table_of(small(base), data, ctx).table
    assert len(tokenised) == 1
    alike = [{"learning_rate": 1.0}, {"temperature": 0.5}, {"batch_size": 4}, {"hard_negatives": 0}, {"epochs": 3}]
    for changes in alike:
        assert table_of(small(base, **changes), data, ctx).table.key == first.key
    moved = data.rename(tmp_path / "moved.jsonl")
    assert table_of(small(base), moved, ctx).table.key == first.key
    assert len(tokenised) == 1, "a second training does not tokenise"
    unlike = [{"max_length": 32}, {"instruction": "{task}: {query}"}, {"bos": "never"}, {"pooling": "mean"}]
    keys = {table_of(small(base, **changes), moved, ctx).table.key for changes in unlike}
    moved.write_text(moved.read_text().replace("water", "wine"))
    keys.add(table_of(small(base), moved, ctx).table.key)
    assert len({first.key, *keys}) == len(tokenised) == 6


def test_the_table_holds_what_the_file_says(base: Path, tmp_path: Path) -> None:
    lines = [
        {"kind": "sts", "task": "find", "query": "one", "positive": "two", "negative": "", "negatives": ["a", "b b"]},
        {"kind": "classification", "query": "water " * 99, "positive": "Yes", "negative": "no"},
    ]
    file = tmp_path / "examples.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    rows = table_of(small(base), file, context(tmp_path / "home"))
    table = rows.table
    assert [list(table.rows_of(record)) for record in range(2)] == [[0, 1, 2, 3], [4, 5, 6]]
    texts = rows.tokenizer.batch_decode([table.row(row) for row in range(7)])
    assert texts[:4] == ["<s>Instruct: find\nQuery: one</s>", "<s>two</s>", "<s>a</s>", "<s>b b</s>"]
    assert texts[5:] == ["<s>Yes</s>", "<s>no</s>"]
    assert table.lengths().tolist() == [len(table.row(row)) for row in range(7)]
    assert table.lengths()[4] == 64
    assert table.row(4)[-1] == 1
    assert (table.labels != 0).tolist() == [False] * 5 + [True] * 2
    assert table.groups("kind").tolist() == [2, 1]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {tests!r}
from contrastive_examples import small
from tiny_generator import context
from speed.backends.embedder.loop import table_of
from speed.backends.embedder import token_table

token_table.WINDOW = 8
seen = []
def progress(*event):
    seen.append(event)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
ctx = context(Path({home!r}))
ctx.progress = progress
table_of(small({base!r}), Path({data!r}), ctx)
"""


def test_a_kill_half_way_leaves_nothing_that_is_taken_for_a_table(
    base: Path, tmp_path: Path, tokenised: list[int]
) -> None:
    data, home = examples(tmp_path / "examples.jsonl", 40), tmp_path / "home"
    names = {
        "tests": [str(path) for path in Path(__file__).parents[:2]],
        "home": str(home),
        "base": str(base),
        "data": str(data),
    }
    done = subprocess.run([sys.executable, "-c", KILLED.format(**names)], capture_output=True, timeout=HANG)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    [left] = [path for path in (home / "cache" / "tokens").iterdir() if path.is_dir()]
    assert left.suffix == ".partial"
    assert (left / "ids.bin").is_file()
    table = table_of(small(base), data, context(home)).table
    assert len(table) == 40
    assert not left.exists()
    with (home / "cache" / "tokens" / table.key / "ids.bin").open("r+b") as file:
        os.truncate(file.fileno(), 100)  # a damaged table is made again
    before = len(tokenised)
    again = table_of(small(base), data, context(home)).table
    assert len(tokenised) > before
    assert int(again.starts[-1]) == len(again.ids)


def test_sources_bring_instructions_and_kinds(base: Path, tmp_path: Path) -> None:
    corpus, pairs = examples(tmp_path / "examples.jsonl", 4), tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"query": f"q{i}", "positive": f"p{i}"}) + "\n" for i in range(3)))
    source = Source(path=pairs, tasks=("First.", "Second."), kind="retrieval")
    rows = table_of(small(base, sources=(source,)), corpus, context(tmp_path / "home"))
    table = rows.table
    assert table.groups("source").tolist() == [-1] * 4 + [0] * 3
    asked = [rows.tokenizer.decode(table.row(table.rows_of(record)[0])) for record in (4, 5, 6)]
    assert asked == [f"<s>Instruct: {task}\nQuery: q{i}</s>" for i, task in enumerate(("First.", "Second.", "First."))]


MEASURED = """
import resource, sys
from pathlib import Path
sys.path[:0] = {tests!r}
from contrastive_examples import small
from tiny_generator import context
from speed.backends.embedder.loop import table_of
from speed.backends.embedder.plan import Plan

config = small(Path({base!r}))
plan = Plan(table_of(config, Path({data!r}), context(Path({home!r}))).table, config, 0)
assert sum(len(plan.batch(step)) for step in range(0, len(plan), 100)) > 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records(base: Path, tmp_path: Path) -> None:
    """Twenty-five times the records: the same memory, less what numbers of records take."""
    peaks = []
    for count in (2_000, 50_000):
        data = tmp_path / f"{count}.jsonl"
        line = {"kind": "retrieval", "task": "find", "positive": "stone " * 60, "negative": "river " * 60}
        with data.open("w") as file:
            for place in range(count):
                file.write(json.dumps(line | {"query": f"query {place}"}) + "\n")
        tests = [str(path) for path in Path(__file__).parents[:2]]
        names = {"tests": tests, "home": str(tmp_path), "base": str(base), "data": str(data)}
        script = MEASURED.format(**names)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG)
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 20 * 1024, "KiB; the rows of 50,000 records are 33 MB on disk, and 250 as text"
