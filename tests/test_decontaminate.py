"""`python -m speed.decontaminate`: counts by data set, clean records, and mistakes said in one line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from speed.decontaminate import main

QUERY = "which of the many rivers of the northern plain reaches the sea without passing a single town"
DOCUMENT = " ".join(f"word{number}" for number in range(60))
CLEAN = {"kind": "sts", "task": "t", "query": "a wholly other question", "positive": "and its answer", "negative": None}


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A search and a classification; labels, ids and the train split are no texts that a model is judged on."""
    folder = tmp_path / "tasks"
    lines(folder / "Search" / "corpus.jsonl", {"_id": "d1", "title": "Rivers", "text": DOCUMENT})
    lines(folder / "Search" / "queries.jsonl", {"_id": "q1", "text": QUERY})
    lines(folder / "Search" / "qrels" / "test.jsonl", {"query-id": "q1", "corpus-id": "d1", "score": 1})
    lines(folder / "Labels" / "test.jsonl", {"text": "the wind has turned", "label": "and its answer"})
    lines(folder / "Labels" / "train.jsonl", {"text": "a wholly other question", "label": "weather"})
    return folder


def table(told: str) -> dict[str, list[str]]:
    """The cells of each line after its name."""
    return {line.split()[0]: line.split()[1:] for line in told.splitlines()[2:] if line.split()}


def test_counts_and_clean_records(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = lines(
        tmp_path / "examples.jsonl",
        CLEAN,
        CLEAN | {"query": f"Tell me, {QUERY.upper()}?"},
        CLEAN | {"query": "The wind has turned!"},
        CLEAN | {"positive": f"some say that {' '.join(DOCUMENT.split()[20:40])} and so on"},
        CLEAN | {"negative": QUERY, "positive": "the wind has turned."},
        {"query": "labelled data", "positive": "p", "negatives": ["n", DOCUMENT]},
        CLEAN | {"task": QUERY},
    )
    before = records.read_bytes()
    main([str(records), "--tasks", str(tasks), "--to", str(tmp_path / "clean.jsonl")])
    told = capsys.readouterr().out
    found = table(told)
    assert found["Search"] == ["2", "4", "3", "4", "2"]
    assert found["Labels"] == ["1", "2", "2", "2", "3"]
    assert found["any"] == ["3", "5", "4", "5", "2"]
    assert "5 of 7 records are contaminated (71.43%)" in told
    kept = before.splitlines(keepends=True)
    assert (tmp_path / "clean.jsonl").read_bytes() == kept[0] + kept[6]
    assert records.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_a_shard_of_a_pool(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = lines(
        tmp_path / "rows.jsonl",
        {"row": 0, "prompt": {"text": QUERY}, "example": CLEAN},
        {"row": 1, "rejected": "truncated", "prompt": {"text": "p"}, "text": QUERY},
        {"row": 2, "prompt": {"text": "p"}, "example": CLEAN | {"query": QUERY}},
    )
    main([str(shard), "--tasks", str(tasks), "--to", str(tmp_path / "clean.jsonl")])
    assert "1 of 2 records are contaminated (50.00%); 1 rejected rows were skipped" in capsys.readouterr().out
    assert (tmp_path / "clean.jsonl").read_bytes() == shard.read_bytes().splitlines(keepends=True)[0]


def test_two_folders_with_a_task_of_one_name(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines(tmp_path / "more" / "Labels" / "test.jsonl", {"text": "the sun is out", "label": "fair"})
    records = lines(tmp_path / "r.jsonl", CLEAN | {"query": "The sun is out"})
    main([str(records), "--tasks", str(tasks), str(tmp_path / "more")])
    found = table(capsys.readouterr().out)
    assert found[str(tmp_path / "more" / "Labels")][3] == "1"
    assert found[str(tasks / "Labels")][3] == found["Search"][3] == "0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"query": "a"', "records.jsonl, line 2 is not JSON"),
        ("[1]", "records.jsonl, line 2 is no record"),
        ('{"query": "a"}', "records.jsonl, line 2 is no record"),
        ('{"query": "a", "positive": 3}', "records.jsonl, line 2: positive must be a text"),
        ('{"row": 0, "texts": ["a"]}', "records.jsonl, line 2 is no record"),
        ('{"query": "a", "positive": "b", "negatives": "c"}', "line 2: negatives must be a list of texts"),
        ('{"query": "a", "positive": "b", "negative": [1]}', "line 2: negative must be a text"),
        ("\ud8ff", "records.jsonl, line 2 is not UTF-8"),
    ],
)
def test_a_line_that_is_no_record(
    text: str, said: str, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = tmp_path / "records.jsonl"
    records.write_bytes(json.dumps(CLEAN).encode() + b"\n" + text.encode("utf-8", "surrogatepass") + b"\n")
    with pytest.raises(SystemExit):
        main([str(records), "--tasks", str(tasks), "--to", str(tmp_path / "clean.jsonl")])
    assert said in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["records.jsonl", "tasks"]


def test_mistakes_in_options_and_tasks(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = lines(tmp_path / "r.jsonl", CLEAN)
    bad = tmp_path / "bad"
    (bad / "Broken").mkdir(parents=True)
    (bad / "Broken" / "test.jsonl").write_bytes(b'{"text": "a", "label": "b"}\n{"text": "\xff"}\n')
    for arguments, said in (
        ([records, "--tasks", tmp_path / "none"], "none does not exist"),
        ([records, "--tasks", bad], "test.jsonl, line 2 is not JSON"),
        ([records, "--tasks", tasks, "--words", "1"], "--words 1"),
        ([records, "--tasks", tasks, "--similarity", "0.3"], "--similarity 0.3"),
        ([records, "--tasks", tasks, "--to", records], "already exists"),
        ([tmp_path, "--tasks", tasks], "is no file"),
    ):
        with pytest.raises(SystemExit):
            main([str(argument) for argument in arguments])
        assert re.search(said, capsys.readouterr().err)
    assert records.read_text() == json.dumps(CLEAN) + "\n"
