"""`python -m speed.dedup calibrate`: what settings keep of any file of records, beside Table 6."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from speed.dedup import main

TEXT = "which of the many rivers of the northern plain reaches the sea without passing a single town"


def lines(path: Path, *rows: Any) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def example(kind: str | None, query: str, positive: str) -> dict[str, Any]:
    return {"kind": kind, "task": "t", "query": query, "positive": positive, "negative": "n"}


ROWS = (
    example("retrieval", TEXT, "one document"),
    example("retrieval", TEXT.upper() + "!", "another"),
    example("sts", TEXT, "one sentence"),
    example("sts", TEXT, "and quite a different sentence, so that both together are no repeat of what was"),
)


def table(told: str) -> list[list[str]]:
    """The cells of each line below the head."""
    return [line.replace(" (default)", "").split() for line in told.partition("\n\n")[0].splitlines()[2:]]


def test_what_settings_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lines(tmp_path / "examples.jsonl", *ROWS)
    main(["calibrate", str(file), "--thresholds", "0.7", "--shingles", "5", "--compared", "mixed", "query", "positive"])
    told = capsys.readouterr().out
    assert "mixed (default)" in told
    assert "from such a corpus alone" in told
    paper, mixed, query, positive = table(told)
    assert paper[2:8] == ["86.7%", "70.3%", "84.1%", "79.9%", "73.4%", "-"]
    assert mixed == ["mixed", "5", "0.7", "50.0%", "-", "100.0%", "-", "-", "-", "75.0%", "26.3%"]
    assert query[3:6] == ["50.0%", "-", "50.0%"]
    assert positive[9] == "100.0%"


def test_pools_and_labelled_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = lines(
        tmp_path / "rows.jsonl",
        {"row": 0, "prompt": {"text": TEXT}, "example": ROWS[0]},
        {"row": 1, "rejected": "truncated", "prompt": {"text": "p"}, "text": TEXT},
        {"row": 2, "prompt": {"text": "p"}, "example": ROWS[1]},
    )
    main(["calibrate", str(shard), "--thresholds", "0.7", "--shingles", "5", "--compared", "mixed"])
    assert table(capsys.readouterr().out)[1][9] == "50.0%", "the rejected row is none"
    labelled = lines(tmp_path / "labelled.jsonl.gz", *({"anchor": TEXT, "pos": ["a", "b"]} for _ in range(4)))
    main(["calibrate", str(labelled), "--thresholds", "0.7", "0.9", "--shingles", "3", "5", "--compared", "query"])
    rows = table(capsys.readouterr().out)
    assert len(rows) == 5
    assert all(row[8:11] == ["25.0%", "25.0%", "-"] for row in rows[1:])


@pytest.mark.parametrize(
    ("options", "text", "said"),
    [
        ([], "", "there is no record in it"),
        ([], "{", "line 1 is not JSON"),
        ([], '{"query": "a"}', "it has no positive"),
        (["--thresholds", "0.1"], "", "--thresholds: give similarities of 0.3 to 1"),
        (["--shingles", "0"], "", "--shingles: give 1 to 50 words"),
    ],
)
def test_mistakes_are_one_message(
    options: list[str], text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(SystemExit):
        main(["calibrate", str(tmp_path / "r.jsonl"), *options])
    assert re.search(said, capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main(["calibrate", str(tmp_path / "no.jsonl")])
    assert "does not exist" in capsys.readouterr().err
