"""Labelled sets in the layouts of their public copies: each small file becomes the records that it must."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG, ROOT

from speed.backends.embedder.records import check_sources
from speed.backends.embedder.settings import Source
from speed.core.content import noted_absence
from speed.core.errors import UserError
from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.data.labelled_layouts import records_in
from speed.labelled import convert
from speed.pipeline import pipeline
from speed.runs.building import Origin
from speed.runs.experiment import run
from speed.runs.labelled_sources import refuse_small_sources, source_lines

FULL = ("preset=paper", "+experiment=full_data")
LINES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "one of each": (
        {"query": "q", "positive": "p", "negative": "n", "source": "nq"},
        [{"query": "q", "positive": "p", "negatives": ["n"]}],
    ),
    "lists": (
        {"query": "q", "pos": ["p", "s"], "neg": ["n", "p"]},
        [{"query": "q", "positive": "p", "negatives": ["n"]}, {"query": "q", "positive": "s", "negatives": ["n", "p"]}],
    ),
    "lists under whole names": (
        {"query": "q", "positive": ["p"], "negative": ["n", "m"]},
        [{"query": "q", "positive": "p", "negatives": ["n", "m"]}],
    ),
    "no negatives": ({"anchor": "q", "positive": "p"}, [{"query": "q", "positive": "p"}]),
    "MS MARCO": (
        {
            "query_id": "1",
            "query": "q",
            "positive_passages": [{"docid": "7", "title": "T", "text": "p"}],
            "negative_passages": [{"docid": "8", "title": "", "text": "n"}, {"docid": "9", "text": "m"}],
        },
        [{"query": "q", "positive": "T p", "negatives": ["n", "m"]}],
    ),
    "DuReader": (
        {"question_id": "1", "question": "问", "answer_paragraphs": [{"paragraph_id": "2", "paragraph_text": "答"}]},
        [{"query": "问", "positive": "答"}],
    ),
    "nothing to learn": ({"query": "q", "positive_passages": [], "negative_passages": [{"text": "n"}]}, []),
}


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("layout", LINES)
def test_a_line_in_its_layout(tmp_path: Path, layout: str) -> None:
    row, records = LINES[layout]
    (tmp_path / "set.jsonl").write_text(lines(row), encoding="utf-8")
    assert list(records_in(tmp_path / "set.jsonl", Counter())) == records


def test_a_file_is_converted_with_counts_and_can_be_trained_on(tmp_path: Path) -> None:
    rows = [row for row, _ in LINES.values()]
    (tmp_path / "a.jsonl").write_text(lines(*rows), encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(*rows[:1]).encode()))
    to = tmp_path / "labelled" / "nq.jsonl"
    table = convert([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"], to)
    expected = [record for _, records in LINES.values() for record in records]
    assert [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()] == [*expected, expected[0]]
    assert [list(row) for row in table.rows][-1] == ["all", "8", "5", "2", "1", "1", "8", "2"]
    check_sources([Source(path=to, kind="retrieval")])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a"}, "line 2 is in no known layout: it has 'text'; known: query and positive, "),
        ({"query": "", "positive_passages": []}, "line 2: query must be a text"),
        ({"query": "q", "positive_passages": "p", "negative_passages": []}, "must be a list of passages"),
        ({"question": "q", "answer_paragraphs": [{"paragraph_id": "1"}]}, "a passage of answer_paragraphs has no text"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (tmp_path / "set.jsonl").write_text(lines(LINES["lists"][0], row))
    with pytest.raises(UserError, match=said):
        convert([tmp_path / "set.jsonl"], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(lines(LINES["MS MARCO"][0]))
    command = [sys.executable, "-m", "speed.labelled", "set.jsonl", "--to", "labelled/msmarco_passage.jsonl"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    assert "without negatives" in done.stdout
    command[3] = "missing.jsonl"
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 1
    assert "missing.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_papers_sets_with_their_ratios(compose: Any) -> None:
    sources = {source.path.path.stem: source for source in compose(*FULL).embedder.sources}
    assert len(sources) == 14
    assert {name: source.weight for name, source in sources.items() if source.weight != 1} == {
        "eli5": 0.1, "msmarco_passage": 0.5, "msmarco_document": 0.2, "quora": 0.1, "t2ranking": 0.5,
    }  # fmt: skip
    assert {name for name, source in sources.items() if len(source.tasks) == 2} == {"nli", "quora"}
    assert all(source.tasks and source.kind for source in sources.values())
    wikipedia = {name: source.tasks[0] for name, source in sources.items() if "Wikipedia" in source.tasks[0]}
    asked = "etrieve Wikipedia passages that answer the question"
    assert wikipedia == dict.fromkeys(("miracl", "mrtydi", "nq"), f"Given a question, r{asked}") | dict.fromkeys(
        ("squad", "triviaqa"), f"R{asked}"
    )
    assert sum(source.expected or 0 for source in sources.values()) == pytest.approx(1_280_000, rel=0.1)
    assert compose(*FULL).embedder.hard_negatives == 1


def test_a_plan_says_what_is_there_and_what_is_missing_where(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEED_LABELLED", str(tmp_path))
    config = compose(*FULL, f"runtime.home={tmp_path / 'home'}")
    (tmp_path / "nq.jsonl").write_text(lines({"query": "q", "positive": "p"}) * 30)
    (tmp_path / "eli5.jsonl").write_text(lines({"query": "q", "positive": "p"}) * 50 + "\n \n")
    with noted_absence() as absent:
        assert stage_statuses(pipeline(config).goals(), Store(tmp_path / "home"))
    assert len(absent) == 12
    assert f"{tmp_path / 'fever.jsonl'} does not exist" in "\n".join(absent)
    told = "\n".join(source_lines(config, 1_150_000))
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line.startswith(str(tmp_path))}
    assert rows[str(tmp_path / "nq.jsonl")] == ["too", "few", "30", "1", "30", "79,000"]
    assert rows[str(tmp_path / "eli5.jsonl")] == ["too", "few", "50", "0.1", "5", "30,000"]
    assert rows[str(tmp_path / "fever.jsonl")] == ["missing", "-", "1", "-", "110,000"]
    expected = 1_359_000 - 79_000 - 30_000 + 30 + 5
    assert (
        f"together {expected:,} labelled records to train on beside 1,150,000 raw synthetic examples, 12 of 14 sets as "
        f"they are expected, since they are missing: {-(-(1_150_000 + expected) // 1536):,} steps"
    ) in " ".join(told.split())
    assert source_lines(compose(), 460) == []
    assert run(config.model_copy(update={"plan": True}), "", Origin(preset="paper")) is None
    shown = capsys.readouterr().out
    assert "would be refused: labelled sets are missing: 12, see above" in shown
    assert "less than half of the records expected (2): see above" in " ".join(shown.split())
    embedder = next(line for line in shown.splitlines() if line.startswith("embedder"))
    assert embedder.endswith(f" {1_150_000 + expected:,}"), "what is trained on counts labelled records"
    assert "fever.jsonl does not exist" not in shown
    with pytest.raises(UserError, match=r"labelled sets are missing \(12\): .*hotpotqa.jsonl, .*fever.jsonl"):
        run(config, "", Origin(preset="paper"))


def test_a_set_that_is_far_too_small_is_refused_unless_it_is_asked_for(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEED_LABELLED", str(tmp_path))
    (tmp_path / "eli5.jsonl").write_text(lines({"query": "q", "positive": "p"}) * 20)
    enough = ("embedder.sources.0.expected=4", "embedder.sources.0.weight=0.1")
    refuse_small_sources(compose(*FULL, *enough))
    small = compose(*FULL, "embedder.sources.0.expected=5")
    with pytest.raises(
        UserError, match=r"expected \(1\): .*eli5.jsonl: 2 instead of about 5\n.*sources.0.expected=null"
    ):
        refuse_small_sources(small)
    for asked in ("embedder.sources.0.expected=null", "embedder.sources.0.weight=1"):
        refuse_small_sources(compose(*FULL, "embedder.sources.0.expected=5", asked))
    source = small.embedder.sources[0]
    other = source.model_copy(update={"expected": None})
    assert other.recipe() == source.recipe(), "what is expected is part of no key"
    assert small.embedder.model_copy(update={"epochs": 3, "sources": small.embedder.sources[:1]}).seen(100) == 306


def test_labelled_records_are_counted_beside_the_corpus_that_is_trained_on(compose: Any, tmp_path: Path) -> None:
    (tmp_path / "nq.jsonl").write_text(lines({"query": "q", "positive": "p", "task": "t"}) * 50)
    sources = f"embedder.sources=[{{path: {tmp_path}/nq.jsonl, kind: retrieval}}]"
    for typed, told in (
        ((), "50 labelled records to train on beside 460 raw synthetic examples: "),
        (
            ("scale.keep=100", "embedder.max_steps=3"),
            "75 labelled records to train on beside 100 synthetic examples (sc",
        ),
        ((f"given.corpus={tmp_path}/nq.jsonl",), "50 labelled records to train on beside 50 given examples: "),
        ((f"given.corpus={tmp_path}/nq.jsonl", "given.records=20"), "beside 20 given examples: "),
    ):
        config = compose(sources, "embedder.epochs=1", *typed)
        assert told in " ".join(" ".join(source_lines(config, pipeline(config).embedder.rows)).split())
