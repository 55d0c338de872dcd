"""`python -m speed.export RUN --stage dataset`: the corpus with a card, and nothing of this machine in it."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import pytest
import yaml

from speed.core.ledger import Line
from speed.core.manifest import Maker, Manifest, outputs_of, read_manifest
from speed.export import main
from speed.runs.cards import fenced, size_category
from speed.runs.stage_lines import StageLine

HOSTILE = "```\n# own\x1b[31m <script>alert(1)</script> ````` \u202e"
MAKER = Maker(commit="abc123", python="3.11.7", packages={"datasketch": "2.0.0"}, argv=("/home/me/speed/run.py",))
ASKED = Line(
    purpose="seed", kind="sts", model="some/model", cause="ok", calls=4, tokens_in=100, tokens_out=50, dollars=1.25
)


def record(kind: str, query: str) -> dict[str, str]:
    return {"kind": kind, "task": "t", "query": query, "positive": "p", "negative": "n"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of one paying stage, its dedup, and an embedder that has no part in the corpus."""
    folder = tmp_path / "runs" / "one"
    pool, dedup = folder / "stages" / "seed-data", folder / "stages" / "dedup"
    pool.mkdir(parents=True)
    dedup.mkdir()
    mix = {
        "sts": 7,
        "retrieval": 7,
        "of": "these kinds, in this order",
        "and": "this is long enough to be said once alone",
    }
    recipe = {
        "topics": {"stage": "topics", "key": "t" * 64}, "file": {"sha256": "f" * 64}, "base": {"hub": "org/name"},
        "prompts": {"language": "English"}, "mix": mix, "again": dict(mix),
    }  # fmt: skip
    for start, maker in ((0, MAKER), (4, MAKER.model_copy(update={"commit": "unread"}))):
        manifest = Manifest(key="a" * 64, stage="seed data", label="seed data", version=1, recipe=recipe, maker=maker)
        manifest.model_copy(update={"start": start, "stop": start + 4}).write(
            pool / f"rows-{start:09}-{start + 4:09}.json"
        )
    rows = [record("sts", HOSTILE), record("sts", "second"), record("retrieval", "third"), record("sts", "fourth")]
    (dedup / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"samples": {"pool": "seed data", "key": "a" * 64, "rows": 4}, "config": {"threshold": 0.7}}
    Manifest(
        key="b" * 64, stage="dedup", label="dedup", version=1, recipe=recipe, outputs=outputs_of(dedup), maker=MAKER,
    ).write(dedup / "manifest.json")  # fmt: skip
    nothing = {"state": "built", "seconds": 1.0, "gpu_seconds": 0.0, "cost": {}, "dollars": 0.0, "metrics": {}}
    stages = [
        StageLine(
            label="seed data", key="a" * 64, rows_in=4, rows_out=4, rejected={HOSTILE: 2}, ledger=(ASKED,),
            **nothing | {"cost": {"calls": 4, "tokens_in": 150}, "dollars": 1.25},
        ),
        StageLine(label="dedup", key="b" * 64, rows_in=4, rows_out=4, rejected={}, **nothing),
        StageLine(label="embedder", key="c" * 64, rows_in=4, rows_out=None, rejected={}, **nothing),
    ]  # fmt: skip
    about = {"preset": "miniature", "seeds": "data 0, sample 1, train 2", "command": "/home/me/run.py"}
    summary = {"name": "one", "about": about, "stages": [stage.model_dump(mode="json") for stage in stages]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def exported(run: Path, to: Path, *more: str) -> str:
    main([str(run), "--stage", "dataset", "--to", str(to), *more])
    return (to / "README.md").read_text(encoding="utf-8")


def test_the_card_says_how_the_records_were_made(run: Path, tmp_path: Path) -> None:
    card = exported(run, tmp_path / "out", "--licence", "cc-by-4.0")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "examples.jsonl"]
    assert (tmp_path / "out" / "examples.jsonl").read_bytes() == (run / "stages/dedup/examples.jsonl").read_bytes()
    _, header, text = card.split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["license"] == "cc-by-4.0"
    assert about["language"] == ["en"]
    assert about["size_categories"] == ["n<1K"]
    assert about["configs"][0]["data_files"] == [{"split": "train", "path": "examples.jsonl"}]
    for part in (
        "| sts | 3 |", "| retrieval | 1 |", "teacher: some/model", "seed data, base: org/name", "sha256 " + "f" * 64,
        "data 0, sample 1, train 2", "abc123, Python 3.11.7, datasketch 2.0.0", "| dedup | built | 4 | 4 |", "$1.25",
        "a" * 64, "b" * 64, "2410.18634", "@inproceedings",
    ):  # fmt: skip
        assert part in text, part
    assert "embedder" not in text.replace("embedders", "")
    assert "/home/me" not in card
    assert str(run) not in card
    assert "unread" not in card, "a shard behind what the run reads"
    settings = text.split("```yaml\n")[1].split("```")[0]
    assert settings.count("long enough to be said once") == 1
    assert yaml.safe_load(settings)["seed data"]["again"]["sts"] == 7
    assert yaml.safe_load(settings)["dedup"] == {
        "samples": {"pool": "seed data", "rows": 4},
        "config": {"threshold": 0.7},
    }


def test_the_records_are_those_that_the_embedder_learns_from(run: Path, tmp_path: Path) -> None:
    """A filter behind deduplication leaves one of its four."""
    kept = (run / "stages/dedup/examples.jsonl").read_text().splitlines(keepends=True)[2]
    filtered = run / "stages" / "filter"
    filtered.mkdir()
    (filtered / "examples.jsonl").write_text(kept)
    made = Manifest(key="d" * 64, stage="filter", label="filter", version=1, recipe={}, outputs=outputs_of(filtered))
    made.write(filtered / "manifest.json")
    summary = json.loads((run / "summary.json").read_text())
    line = {**summary["stages"][1], "label": "filter", "key": "d" * 64, "rows_out": 1}
    summary["stages"].insert(2, line)
    (run / "summary.json").write_text(json.dumps(summary))
    card = exported(run, tmp_path / "out", "--licence", "other")
    assert (tmp_path / "out" / "examples.jsonl").read_text() == kept
    assert "| all | 1 |" in card
    assert "| filter |" in card


def test_memory_does_not_grow_with_the_records(run: Path, tmp_path: Path) -> None:
    corpus = run / "stages" / "dedup"
    manifest = read_manifest(corpus / "manifest.json")
    assert manifest is not None

    def peak(times: int) -> int:
        (corpus / "examples.jsonl").write_text((json.dumps(record("sts", "word " * 40)) + "\n") * times)
        outputs = tuple(output for output in outputs_of(corpus) if output.path == "examples.jsonl")
        manifest.model_copy(update={"outputs": outputs}).write(corpus / "manifest.json")
        tracemalloc.start()
        exported(run, tmp_path / str(times), "--licence", "other")
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    peak(10)  # what is read and compiled once
    small, large = peak(100), peak(20_000)
    assert (tmp_path / "20000" / "examples.jsonl").stat().st_size > 5_000_000
    assert large < small + 1_500_000


def test_hostile_text_stays_text(run: Path, tmp_path: Path) -> None:
    card = exported(run, tmp_path / "out", "--licence", "other")
    lines = card.splitlines()
    start = lines.index("``````json")
    stop = lines.index("``````", start)
    assert json.loads("\n".join(lines[start + 1 : stop]))["query"] == HOSTILE
    assert not any(line.startswith("# own") for line in lines)
    outside = "\n".join(lines[:start] + lines[stop:])
    assert "<script" not in outside
    assert "\x1b" not in card
    assert "\u202e" not in card
    queries = [line for line in lines if '"query"' in line]
    assert ["second" in query or "third" in query for query in queries] == [False, True, True], "one of each kind first"


def test_a_licence_is_asked_for(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in (([], "needs --licence"), (["--licence", "do as you like"], "is no licence")):
        with pytest.raises(SystemExit):
            exported(run, tmp_path / "out", *more)
        assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exported(tmp_path, tmp_path / "out", "--licence", "other")
    assert re.search("is no finished run", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        exported(run, run, "--licence", "other")
    assert re.search("is there already", capsys.readouterr().err)
    with (run / "stages" / "dedup" / "examples.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(SystemExit):
        exported(run, tmp_path / "out", "--licence", "other")
    assert re.search(r"its sha256 is not the one .*\n.*verify=true", capsys.readouterr().err)
    (run / "stages" / "dedup" / "manifest.json").unlink()
    with pytest.raises(SystemExit):
        exported(run, tmp_path / "out", "--licence", "other")
    assert re.search("is gone from the store", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_fence_is_longer_than_what_it_holds() -> None:
    assert fenced("a", "json") == "```json\na\n```"
    assert fenced("a ```` b", "") == "`````\na ```` b\n`````"


def test_sizes_are_the_hubs() -> None:
    sizes = {999: "n<1K", 1_000: "1K<n<10K", 460_000: "100K<n<1M", 1_150_000: "1M<n<10M", 2 * 10**9: "n>1B"}
    assert {records: size_category(records) for records in sizes} == sizes
