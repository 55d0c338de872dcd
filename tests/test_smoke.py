"""The whole of SPEED, small: every stage, real libraries, as a user runs it."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import (
    PLANTED,
    SMOKE,
    Finished,
    answers,
    content,
    finished_smoke_run,
    records,
    runs,
    speed,
    speed_here,
    summary,
    surroundings,
)  # fmt: skip
from conftest import HANG, ROOT

from speed.core.build_all import build_all
from speed.core.store import Store
from speed.data.evaluation_record import read_evaluation
from speed.data.query_scores import read_queries
from speed.pipeline import pipeline
from speed.report import main
from speed.runs.building import PRELOAD
from speed.runs.stage_lines import stage_line
from speed.teaching.journal import Journal

BOXES = [
    "topics", "tasks for seed", "seed data", "junior", "tasks for root", "root data", "preferences", "senior",
    "tasks for synthesis", "synthesis", "revisions", "revisor", "revision", "dedup", "embedder", "evaluation",
]  # fmt: skip
HEAVY = {"torch", "transformers", "trl", "mteb", "sentence_transformers", "litellm", "datasets"}


@pytest.fixture(scope="session")
def first(smoke: Path) -> tuple[Path, Finished]:
    """A finished smoke run in a store of its own, with keys in its environment that must not show up anywhere."""
    return smoke / "home", finished_smoke_run(smoke)


def test_every_box_of_figure_2_is_built(first: tuple[Path, Finished]) -> None:
    home, done = first
    stages = {stage["label"]: stage for stage in summary(home)["stages"]}
    assert sorted(stages) == sorted(BOXES)
    assert all(stage["state"] == "built" for stage in stages.values())
    assert all(box in done.out for box in BOXES)
    assert stages["synthesis"]["rows_in"] == 46
    assert stages["dedup"]["rows_out"] > 0
    assert sorted(summary(home)["scores"]["types"]) == ["PairClassification", "Retrieval", "STS"]
    run = runs(home)[-1]
    assert list(read_queries(run, read_evaluation(run))) == ["MiniatureRetrieval"]


def test_what_goes_in_comes_out_or_is_rejected_with_a_cause(first: tuple[Path, Finished]) -> None:
    home, _ = first
    for stage in summary(home)["stages"]:
        pools = ("tasks", "seed data", "root data", "preferences", "revisions", "synthesis", "revision", "dedup")
        if stage["label"].startswith(pools):
            assert stage["rows_in"] == stage["rows_out"] + sum(stage["rejected"].values()), stage["label"]


def test_the_plans_calls_are_the_ledgers(first: tuple[Path, Finished]) -> None:
    home, _ = first
    planned = {
        line.split("  ")[0].strip(): line
        for line in (home.parent / "plan.txt").read_text().splitlines()
        if "  " in line
    }
    for stage in summary(home)["stages"]:
        calls = stage["cost"].get("calls", 0)
        assert f" {calls:,} " in planned[stage["label"]], (stage["label"], calls, planned[stage["label"]])
    asked = sum(stage["cost"].get("calls", 0) for stage in summary(home)["stages"])
    assert answers(home).total() == asked
    assert (
        "answers of the teacher take under a minute at runtime.concurrency=" in (home.parent / "plan.txt").read_text()
    )
    assert list((home / "journal").glob("*.jsonl")), "the journal stays what it is: lines that anybody can read"
    assert not list((home / "journal").glob("*.zst"))


def test_what_was_previewed_was_sent(first: tuple[Path, Finished], tmp_path: Path) -> None:
    home, _ = first
    sent = {entry.messages[-1]["content"] for entry in Journal(home / "journal")}
    for root, wanted in ((tmp_path / "empty", ("tasks for seed",)), (home, BOXES)):
        shown = speed_here(root, SMOKE, "preview=true")
        assert shown.code == 0, shown.err
        parts = [part.partition("\n") for part in f"\n{shown.out}".split("\n=== ")[1:]]
        texts = {text.rstrip("\n") for head, _, text in parts if head.partition(",")[0] in wanted}
        assert texts
        assert texts <= {text.rstrip("\n") for text in sent}
    assert not (tmp_path / "empty").exists()


def test_the_status_of_a_run_that_is_over(first: tuple[Path, Finished]) -> None:
    done = speed_here(first[0], SMOKE, "status=true")
    assert done.code == 0, done.err
    assert "smoke: finished" in done.out
    assert all(f"{box} " in done.out for box in BOXES)


def test_causes_sum_to_the_requests_of_every_stage(first: tuple[Path, Finished]) -> None:
    for stage in summary(first[0])["stages"]:
        asked = sum(line["calls"] for line in stage["ledger"])
        assert asked == stage["cost"].get("calls", 0) + stage["cost"].get("retries", 0), stage["label"]
        tokens = sum(line["tokens_in"] + line["tokens_out"] for line in stage["ledger"])
        assert tokens == stage["cost"].get("tokens_in", 0) + stage["cost"].get("tokens_out", 0)
    assert "## Teacher" in (runs(first[0])[0] / "report.md").read_text()
    page = (runs(first[0])[0] / "report.html").read_text()
    assert 'id="data"' in page, "with its records"
    assert page.count("Content-Security-Policy") == 1


def test_the_second_run_finds_everything(first: tuple[Path, Finished]) -> None:
    home, _ = first
    before = records(home)
    again = speed(home, SMOKE, PYTHONPROFILEIMPORTTIME="1")
    assert again.code == 0, again.err
    assert "0 of 16 stages built" in again.out
    assert records(home) == before
    imported = {line.rpartition("|")[2].strip() for line in again.err.splitlines() if line.startswith("import time:")}
    assert "speed.runs.experiment" in imported
    assert not imported & HEAVY, "nothing is computed, so nothing that computes is waited for"


def test_the_report_and_its_curves_are_there(first: tuple[Path, Finished]) -> None:
    home, _ = first
    run = runs(home)[0]
    report = (run / "report.md").read_text()
    assert "## Scores" in report
    assert "## Stages" in report
    for training in ("junior", "senior", "revisor", "embedder"):
        points = [json.loads(line) for line in (run / "stages" / training / "curves.jsonl").read_text().splitlines()]
        assert points, training
        assert all("loss" in point for point in points)
    assert list(run.glob("wandb/offline-run-*")), "W&B mirrors offline when there is no key"


def test_the_corpus_is_exported_with_its_card(first: tuple[Path, Finished], tmp_path: Path) -> None:
    home, _ = first
    export = [
        "-m",
        "speed.export",
        str(runs(home)[0]),
        "--stage",
        "dataset",
        "--licence",
        "cc-by-4.0",
        "--to",
        "corpus",
    ]
    subprocess.run([sys.executable, *export], cwd=tmp_path, env=surroundings(home), check=True, timeout=HANG)
    assert (tmp_path / "corpus" / "examples.jsonl").read_bytes() == records(home)["examples"]
    card = (tmp_path / "corpus" / "README.md").read_text()
    assert all(f"| {box} | built |" in card for box in BOXES[: BOXES.index("dedup") + 1])
    assert "xxhash" in card
    assert str(home) not in card


def test_the_flow_through_every_stage_is_conserved(first: tuple[Path, Finished]) -> None:
    stages = {stage["label"]: stage for stage in summary(first[0])["stages"]}
    for label in ("seed data", "synthesis", "revisions", "revision", "preferences", "dedup"):
        stage = stages[label]
        assert stage["rows_in"] == stage["rows_out"] + sum(stage["rejected"].values()), label
    assert stages["dedup"]["rows_in"] == stages["revision"]["rows_out"]
    assert stages["embedder"]["rows_in"] == stages["dedup"]["rows_out"]


def test_the_notebooks_read_the_run(
    first: tuple[Path, Finished], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEED_HOME", str(first[0]))
    for page in ("one_topic", "reading_a_run"):
        runpy.run_path(str(ROOT / "notebooks" / f"{page}.py"))
    told = capsys.readouterr().out
    assert "topic  " in told
    assert "guidelines broken" in told
    assert "cosine of query and positive" in told


def test_no_address_but_the_loopback_was_asked_for(first: tuple[Path, Finished]) -> None:
    log = first[0].parent / "network.txt"
    assert not log.exists(), log.read_text()


def test_no_key_is_written_anywhere(first: tuple[Path, Finished]) -> None:
    home, done = first
    assert PLANTED not in done.out + done.err
    for path in home.rglob("*"):
        if path.is_file():
            assert PLANTED.encode() not in content(path), path


def test_the_store_may_be_moved_and_an_ablation_shares_it(first: tuple[Path, Finished], tmp_path: Path) -> None:
    home, _ = first
    moved = tmp_path / "elsewhere"
    shutil.copytree(home, moved, symlinks=True)
    done = speed_here(moved, SMOKE, "preference=none", "plan=true")
    states = {line[:20].strip(): line for line in done.out.splitlines()}
    assert " hit " in states["junior"]
    assert " miss " in states["synthesis"]


@pytest.mark.slow
def test_an_instruct_model_writes_the_corpus(first: tuple[Path, Finished], tmp_path: Path) -> None:
    """Table 1's baseline to scores. Here the instruct model is a trained junior whose tokenizer has a chat template."""
    home, instruct = tmp_path / "home", tmp_path / "instruct"
    shutil.copytree(first[0], home, symlinks=True)
    shutil.copytree(runs(home)[0] / "stages" / "junior" / "model", instruct)
    (instruct / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] + '\\n' }}")
    done = speed(
        home, "+experiment=[smoke,baseline_llama3]", "preference=none", "revisor=none", f"generator.base={instruct}"
    )
    assert done.code == 0, done.out + done.err
    stages = {stage["label"]: stage for stage in summary(home)["stages"]}
    assert set(stages) == {
        "topics", "tasks for synthesis", "instruct model", "synthesis", "dedup", "embedder", "evaluation"
    }  # fmt: skip
    assert stages["tasks for synthesis"]["state"] == "reused"
    assert stages["synthesis"]["rows_out"] > 0
    assert summary(home)["scores"]["mean"] > 0


def test_a_given_senior_writes_what_it_wrote_where_it_was_trained(
    first: tuple[Path, Finished], compose: Any, tmp_path: Path
) -> None:
    """Its folder of another root takes the place of everything that trained it; nothing but brainstorming is asked."""
    senior = (runs(first[0])[0] / "stages" / "senior").resolve()
    config = compose(SMOKE, f"given.senior={senior}", "revisor=none", "dedup=none", f"runtime.home={tmp_path / 'home'}")
    store = Store(config.runtime.home).open()
    order = pipeline(config).goals()
    labels = [goal.label for goal in order]
    assert labels == [
        "topics", "tasks for synthesis", "given senior", "synthesis", "dedup", "embedder", "evaluation",
    ]  # fmt: skip
    built = order[: labels.index("synthesis") + 1]
    runtime = config.runtime.on_this_machine()
    build_all(built, store, runtime, lambda label, event: None, tmp_path / "logs", PRELOAD)
    lines = [stage_line(goal, store, built_now=True) for goal in built]
    assert {line.label for line in lines if line.cost.get("calls")} == {"tasks for synthesis"}
    written = (runs(first[0])[-1] / "stages" / "synthesis").glob("rows-*.jsonl.zst")
    texts = [json.loads(line)["text"] for file in sorted(written) for line in content(file).splitlines()]
    assert [row.text for row in store.rows(built[-1].node.take(46))] == texts
    assert len(texts) == 46


@pytest.mark.slow
def test_labelled_sets_beside_five_times_the_corpus(first: tuple[Path, Finished], tmp_path: Path) -> None:
    """Table 1's supervised row to scores, on 14 small files; a run without one of them is refused."""
    home, labelled = tmp_path / "home", tmp_path / "labelled"
    shutil.copytree(first[0], home, symlinks=True)
    labelled.mkdir()
    for name in yaml.safe_load((ROOT / "conf/experiment/full_data.yaml").read_text())["embedder"]["sources"]:
        file = labelled / Path(name["path"]).name
        record = {"query": f"what is {file.stem}", "positive": f"{file.stem} is a set", "negatives": ["another thing"]}
        file.write_text(json.dumps(record) + "\n")
    small = [f"embedder.sources.{place}.expected=null" for place in range(14)]
    command = ("+experiment=[smoke,full_data]", "embedder.epochs=1", *small)
    (labelled / "nq.jsonl").rename(tmp_path / "nq.jsonl")
    refused = speed(home, *command, SPEED_LABELLED=str(labelled))
    assert refused.code == 1
    assert f"labelled sets are missing (1): {labelled / 'nq.jsonl'}" in refused.err
    (tmp_path / "nq.jsonl").rename(labelled / "nq.jsonl")
    done = speed(home, *command, SPEED_LABELLED=str(labelled))
    assert done.code == 0, done.out + done.err
    stages = {stage["label"]: stage for stage in summary(home)["stages"]}
    assert stages["synthesis"]["rows_in"] == 230
    assert stages["embedder"]["state"] == "built"
    assert summary(home)["scores"]["mean"] > 0


def test_a_flipped_bit_in_a_model_is_found_and_mended(first: tuple[Path, Finished], tmp_path: Path) -> None:
    home, _ = first
    copy = tmp_path / "copy"
    shutil.copytree(home, copy, symlinks=True)
    before = records(home)
    model = next((runs(copy)[0] / "stages" / "senior").resolve().rglob("*.safetensors"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(bytes(content))
    done = speed(copy, SMOKE, "verify=true")
    assert done.code == 0, done.err
    assert "damaged and set aside" in done.err
    assert "1 of 16 stages built" in done.out
    assert records(copy) == before


def test_a_multirun_ends_with_its_table_and_a_study_reads_the_runs(
    first: tuple[Path, Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = first
    swept = speed_here(home, "-m", SMOKE, "tracker=none", "seed=0")
    assert swept.code == 0, swept.err
    head, point = (line.split() for line in swept.out.splitlines() if line.startswith(("point", "this recipe")))
    mean = f"{summary(home)['scores']['mean']:.2f}"
    assert head == ["point", "score", "seeds", "calls", "dollars", "stages", "built", "reused", "seconds"]
    assert point[2:8] == [mean, "1", "0", "$0.00", "0", "16"]
    assert "synthesis" not in swept.out, "the pages of each run stand in its report"
    main(["table5", "--root", str(home), "--to", str(tmp_path)])
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    calls = {stage["label"]: stage["cost"].get("calls") for stage in summary(home)["stages"]}
    for row, label in (("SFT: calls", "seed data"), ("DPO: calls", "preferences"), ("revisor: calls", "revisions")):
        assert rows[row][-2] == str(calls[label])
    assert rows["brainstorming: calls"][-2] == str(
        sum(calls[label] for label in calls if label.startswith("tasks for"))
    )
