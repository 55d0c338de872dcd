"""Labelled sources: what others call the columns, what a line lacks, and that it is told before anything is built."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from contrastive_examples import examples, small
from tiny_generator import context, make_base

from speed.backends.embedder.records import check_sources, labelled, read_sources
from speed.backends.embedder.settings import Masks, Source
from speed.core.content import Content
from speed.core.errors import UserError
from speed.data.records import Kind
from speed.runtime import Runtime

PAIR = {"query": "a", "positive": "b"}


def source(file: Path, *lines: Any, kind: Kind | None = Kind.STS) -> Source:
    """A source with these lines: values that are written as JSON, or bytes as they stand."""
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    file.write_bytes(b"".join(line + b"\n" for line in raw))
    return Source(path=file, kind=kind)


def read(tmp_path: Path, *lines: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    """Texts of the records of a source with these lines."""
    ours = source(tmp_path / "source.jsonl", *lines)
    records = labelled(examples(tmp_path / "corpus.jsonl", 4), [ours])
    return [(record.query, record.positive, record.negatives) for record in records if record.source == 0]


@pytest.mark.parametrize(
    ("line", "negatives"),
    [
        ({"anchor": "a", "positive": "b"}, ()),
        ({"anchor": "a", "positive": "b", "negative": "c"}, ("c",)),
        ({"negatives": ["d", ""], "query": "a", "positive": "b", "negative": "c"}, ("c", "d")),
        ({"query": "a", "pos": ["b"], "neg": ["c", "d"]}, ("c", "d")),
        ({"query": "a", "pos": "b", "neg": "c"}, ("c",)),
        ({"query": "a", "positive": ["b"], "negative": ["c", "d"]}, ("c", "d")),
        ({"query": "a", "positive": "b", "negative_10": "e", "negative_2": "d", "negative_1": "c"}, ("c", "d", "e")),
        ({"query": "a", "positive": "b", "negatives": None, "negative": None, "task": None, "kind": None}, ()),
        (b'\xef\xbb\xbf{"query": "a", "positive": "b"}\r', ()),
    ],
)
def test_columns_under_the_names_of_other_tools(tmp_path: Path, line: Any, negatives: tuple[str, ...]) -> None:
    assert read(tmp_path, line) == [("a", "b", negatives)]


def test_several_positives_are_several_records(tmp_path: Path) -> None:
    assert read(tmp_path, {"query": "a", "pos": ["b", "c"], "neg": ["d"]}) == [("a", "b", ("d",)), ("a", "c", ("d",))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"query": "a"}, "has no positive; known columns are query (or anchor), positive (or pos)"),
        ({"query": "a", "positive": "\n"}, "positive is empty"),
        ({"query": "a", "pos": []}, "has no positive"),
        ({"query": "a", "anchor": "a", "positive": "b"}, "query and anchor mean the same column"),
        (PAIR | {"hard_negative": "c"}, "unknown column 'hard_negative'; known are kind, task, query (or anchor)"),
        (PAIR | {"negatives": "c"}, 'negatives must be a list of texts, and it is "c"'),
        (PAIR | {"negative": [3]}, "negative must be a text or a list of texts, and it is [3]"),
        ({"query": ["a"], "positive": "b"}, 'query must be a text, and it is ["a"]'),
        ({"query": 3, "positive": "b"}, "query must be a text, and it is 3"),
        (PAIR | {"kind": "question"}, "kind 'question' is unknown; it is one of retrieval, classification"),
        (PAIR | {"kind": ["sts"]}, "kind ['sts'] is unknown"),
        (PAIR | {"task": 3}, "task must be a text"),
        (b'{"query": "a\\ud83d", "positive": "b"}', "half a character (\\ud83d)"),
        (b'{"query": "Gr\xf6\xdfe", "positive": "b"}', "is not UTF-8 (byte 0xf6 at 14)"),
        (b"query,positive", "is not JSON"),
        (b"[", "begins a JSON list"),
        (b'"text"', "must be a JSON object"),
    ],
)
def test_a_source_names_its_line(tmp_path: Path, line: Any, message: str) -> None:
    ours = source(tmp_path / "source.jsonl", PAIR, line)
    with pytest.raises(UserError, match=re.escape(message)) as told:
        check_sources([ours])
    assert f"{ours.path.path}, line 2" in str(told.value)
    assert "\n  File" not in str(told.value)


def test_a_source_of_one_content_is_read_once_and_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("speed.backends.embedder.records.SECONDS", 0.0)
    ours = source(tmp_path / "a.jsonl", *({"query": "a", "positive": f"{row} " + "b" * 5_000} for row in range(2_000)))
    tracemalloc.start()
    read_sources([ours], tmp_path / "read", said.append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000 < (tmp_path / "a.jsonl").stat().st_size
    assert said[-1].endswith("2,000 records so far")
    said.clear()
    (tmp_path / "b.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    read_sources(
        [ours, ours.model_copy(update={"path": Content(path=tmp_path / "b.jsonl")})], tmp_path / "read", said.append
    )
    assert said == []
    with pytest.raises(UserError, match="line 1: kind is missing"):
        read_sources([ours.model_copy(update={"kind": None})], tmp_path / "read", said.append)


def test_a_kind_is_stated_by_the_line_or_the_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: kind is missing"):
        check_sources([source(tmp_path / "source.jsonl", PAIR, kind=None)])
    check_sources([source(tmp_path / "source.jsonl", PAIR | {"kind": "sts"}, kind=None)])


def test_a_source_that_is_not_there_is_named_before_the_training(tmp_path: Path) -> None:
    trainer = small(make_base(tmp_path / "base"))
    for wrong, message in (("nothing.jsonl", "does not exist"), ("empty.jsonl", "holds no records")):
        (tmp_path / "empty.jsonl").write_text("\n")
        bad = trainer.model_copy(update={"sources": (Source(path=tmp_path / wrong),)})
        with pytest.raises(UserError, match=f"{wrong} {message}"):
            bad.check(Runtime(home=tmp_path))
        with pytest.raises(UserError, match=f"{wrong} {message}"):
            bad.train(examples(tmp_path / "a.jsonl", 8), tmp_path / "out", 0, context(tmp_path / "home"))


def test_a_guide_that_is_no_embedder_is_told_before_the_training(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (tmp_path / "folder").mkdir()
    small(base, masks=Masks(guide=str(base))).check(Runtime(home=tmp_path))
    for guide, message in ((str(tmp_path / "folder"), "holds no embedder: config.json"), ("org/guide", "download it")):
        with pytest.raises(UserError, match=message):
            small(base, masks=Masks(guide=guide)).check(Runtime(home=tmp_path))
