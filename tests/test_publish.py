"""`python -m speed.publish`: nothing is sent without --push, cards say where things come from, a fake hub gets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from huggingface_hub import RepoCard, constants
from served_embedder import made

from speed.core.ledger import Line
from speed.core.manifest import Manifest, outputs_of, read_manifest
from speed.core.spec import Json
from speed.data.quality.contaminated_records import Contamination, TaskOverlap
from speed.publish import main
from speed.runs.provenance import own_paths
from speed.runs.stage_lines import StageLine

TOKEN = "planted-hub-token"
COPIED = "a sentence of fourteen words that stands in the test set of this one task too"


def stage_of(run: Path, label: str, recipe: Json, **more: Json) -> StageLine:
    """A built stage, with its manifest beside what its folder holds."""
    folder, key = run / "stages" / label, label[0] * 64
    (folder / "manifest.json").unlink(missing_ok=True)
    outputs = outputs_of(folder)
    Manifest(key=key, stage=label, label=label, version=1, recipe=recipe, outputs=outputs, **more).write(
        folder / "manifest.json"
    )
    asked = Line(purpose="seed", model="some/teacher", cause="ok", calls=7, cached=2)
    nothing = {"state": "built", "seconds": 1.0, "gpu_seconds": 0.0, "cost": {}, "dollars": 0.0, "metrics": {}}
    return StageLine(
        label=label, key=key, rows_in=2, rows_out=2, rejected={}, ledger=(asked,) if label == "dedup" else (), **nothing
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run: a corpus, an embedder and its scores."""
    folder = tmp_path / "runs" / "one"
    made(folder / "stages" / "embedder", pooling="last", normalize=True)
    (folder / "stages" / "dedup").mkdir()
    rows = [
        {"kind": "sts", "task": "t", "query": "one", "positive": COPIED},
        {"kind": "sts", "task": "t", "query": "two", "positive": "nothing of the kind"},
    ]
    (folder / "stages" / "dedup" / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = folder / "stages" / "evaluation" / "results" / "speed__embedder"
    results.mkdir(parents=True)
    (results / "OneTask.json").write_text(json.dumps({"task_name": "OneTask"}))
    scores = {"tasks": {"OneTask": 61.25}, "types": {"STS": 61.25}, "mean": 61.25, "mean_of_types": 61.25}
    (folder / "stages" / "evaluation" / "scores.json").write_text(json.dumps(scores))
    pins = {"mteb": "2.26", "precision": "fp32"}
    judged = {"judged": {"scores": scores, "kinds": {"OneTask": "STS"}, "pins": pins, "protocol": "e5"}}
    language = {"prompts": {"language": "English"}, "file": {"sha256": "f" * 64}}
    trained = read_manifest(folder / "stages" / "embedder" / "manifest.json")
    assert trained is not None
    lines = [
        stage_of(folder, "dedup", language),
        stage_of(folder, "embedder", {"trainer": trained.recipe["trainer"] | {"base": {"hub": "org/base"}}}),
        stage_of(folder, "evaluation", {}, metrics=judged),
    ]
    about = {"preset": "miniature", "seeds": "data 0, sample 1, train 2", "key": "k" * 64}
    summary = {"name": "one", "about": about, "stages": [line.model_dump(mode="json") for line in lines]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub(TOKEN) as made_up:
        monkeypatch.setattr(constants, "ENDPOINT", made_up.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield made_up


def publish(run: Path, stage: str, to: Path, *more: str) -> RepoCard:
    main([str(run), "--stage", stage, "--licence", "apache-2.0", "--to", str(to), "--repo", "me/mine", *more])
    return RepoCard((to / "README.md").read_text(encoding="utf-8"))


def refused(capsys: pytest.CaptureFixture[str], run: Path, stage: str, to: Path, *more: str) -> str:
    with pytest.raises(SystemExit):
        publish(run, stage, to, *more)
    return capsys.readouterr().err


def tasks(folder: Path) -> Path:
    task = folder / "tasks" / "OneTask"
    task.mkdir(parents=True)
    head = {"configs": [{"config_name": "default", "data_files": [{"split": "test", "path": "test.jsonl"}]}]}
    (task / "README.md").write_text(f"---\n{json.dumps(head)}\n---\n- type: STS\n")
    rows = [{"sentence1": COPIED, "sentence2": "other", "score": 1}, {"sentence1": "a", "sentence2": "b", "score": 5}]
    (task / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "tasks"


def test_without_push_nothing_is_sent_and_the_card_says_where_it_comes_from(
    run: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    card = publish(run, "embedder", to, "--against", str(tasks(tmp_path)))
    assert hub.asked == []
    told = capsys.readouterr().out
    assert "as the model repository me/mine, private where it is new" in told
    assert "model.safetensors" in told
    assert "Nothing was sent" in told
    assert card.data["license"] == "apache-2.0"
    section = card.text.partition("## Provenance")[2]
    assert "- licence: apache-2.0, chosen by whoever publishes this" in section
    assert "- teacher: some/teacher (9 requests); the terms of who serves it" in section
    assert "org/base" in section
    assert f"sha256 {'f' * 64}" in section
    assert "searched for the texts of 1 tasks (OneTask): 1 of 2 records share a run of 13 words" in section
    assert "| OneTask | STS | 61.25 |" in card.text
    assert "## Parity" in card.text, "an embedder is exported as speed.export does"


def test_the_same_command_with_push_sends_the_folder_as_it_stands(run: Path, tmp_path: Path, hub: FakeHub) -> None:
    to = tmp_path / "out"
    publish(run, "embedder", to)
    card = to / "README.md"
    card.write_text(card.read_text() + "\nA line of my own.\n")
    publish(run, "embedder", to, "--push")
    assert hub.private("models/me/mine")
    sent = hub.files["models/me/mine"]
    assert sent == {file.relative_to(to).as_posix(): file.read_bytes() for file in to.rglob("*") if file.is_file()}
    assert sent["README.md"].endswith(b"A line of my own.\n")
    publish(run, "embedder", to, "--push")  # a repository that is there is no mistake


def test_a_folder_of_something_else_is_not_sent(
    run: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was read in a card is what is sent: another stage, licence or run under the same folder is refused."""
    to = tmp_path / "out"
    publish(run, "results", to)
    told = refused(capsys, run, "dataset", to, "--push")
    assert f"{to} holds results of the run one, key {'k' * 60}" in told
    assert f"and dataset of the run one, key {'k' * 60}" in told
    told = refused(capsys, run, "results", to, "--licence", "cc-by-nc-4.0", "--push")
    assert "has the licence apache-2.0, and --licence cc-by-nc-4.0 was typed" in told
    summary = json.loads((run / "summary.json").read_text())
    summary["about"]["key"] = "m" * 64
    (run / "summary.json").write_text(json.dumps(summary))
    assert "was asked for: nothing is sent" in refused(capsys, run, "results", to, "--push")
    (to / "README.md").write_text((to / "README.md").read_text().replace("- published: ", "- "))
    assert "what its card no longer says" in refused(capsys, run, "results", to, "--push")
    assert hub.asked == []


def test_the_card_quotes_what_the_evaluation_found(run: Path, tmp_path: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    found = Contamination(
        words=13, similarity=0.8, records=442, every=1, contaminated=38, left_out=(),
        tasks={"OneTask": TaskOverlap(texts=4, records=38)},
    )  # fmt: skip
    summary["stages"][-1]["metrics"]["contamination"] = found.model_dump(mode="json")
    (run / "summary.json").write_text(json.dumps(summary))
    told = "searched for the texts of 1 tasks of its evaluation (OneTask): 38 of 442 records share a run of 13 words"
    assert told in publish(run, "dataset", tmp_path / "out").text


def test_the_records_that_are_published_are_those_that_are_searched(run: Path, tmp_path: Path) -> None:
    """Behind a filter the corpus is the filter's, and so is what a card says of it."""
    (run / "stages" / "filter").mkdir()
    row = {"kind": "sts", "task": "t", "query": "two", "positive": "nothing of the kind"}
    (run / "stages" / "filter" / "examples.jsonl").write_text(json.dumps(row) + "\n")
    summary = json.loads((run / "summary.json").read_text())
    line = stage_of(run, "filter", {}).model_dump(mode="json")
    summary["stages"].insert(1, line)
    (run / "summary.json").write_text(json.dumps(summary))
    card = publish(run, "dataset", tmp_path / "out", "--against", str(tasks(tmp_path)))
    assert len((tmp_path / "out" / "examples.jsonl").read_text().splitlines()) == 1
    assert "(OneTask): 0 of 1 records share a run of 13 words" in card.text


@pytest.mark.parametrize(("stage", "file"), [("dataset", "examples.jsonl"), ("results", "scores.json")])
def test_corpus_and_results_are_data_sets_of_the_hub(
    run: Path, tmp_path: Path, hub: FakeHub, stage: str, file: str
) -> None:
    publish(run, stage, tmp_path / "out")
    card = publish(run, stage, tmp_path / "out", "--public", "--push")
    assert not hub.private("datasets/me/mine")
    sent = hub.files["datasets/me/mine"]
    assert file in sent
    assert card.data["license"] == "apache-2.0"
    assert "## Provenance" in card.text
    assert "not searched for texts of tests" in card.text
    if stage == "results":
        assert "results/speed__embedder/OneTask.json" in sent
        assert card.text.count("| OneTask | STS | 61.25 |") == 1


def test_what_names_a_place_of_this_machine_is_not_sent(
    run: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    publish(run, "results", to)
    assert own_paths(to) == []
    (to / "results" / "more.json").write_text(json.dumps({"trained on": f"{run}/summary.json"}))
    assert f"names a place of this machine, {run}/summary.json" in refused(capsys, run, "results", to, "--push")
    assert hub.asked == []


def test_a_hub_that_does_not_take_it_is_one_message(
    run: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "out"
    publish(run, "results", to)
    hub.full = True
    assert "the hub does not take me/mine: " in (told := refused(capsys, run, "results", to, "--push"))
    assert "507" in told
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "401" in (told := refused(capsys, run, "results", to, "--push"))
    assert TOKEN not in told
    assert hub.files == {}
    hub.full = False
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    publish(run, "results", to, "--push")
    assert "scores.json" in hub.files["datasets/me/mine"]


def test_mistakes_are_told_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "out"
    assert "--repo 'mine' is no repository" in refused(capsys, run, "results", to, "--repo", "mine")
    assert "is no licence" in refused(capsys, run, "results", to, "--licence", "My Own!")
    assert "is no finished run" in refused(capsys, tmp_path, "results", to)
    assert "is not written yet" in refused(capsys, run, "results", to, "--push")
    assert not to.exists()
    to.mkdir()
    (to / "mine.txt").touch()
    assert "is there already" in refused(capsys, run, "results", to)
    (to / "mine.txt").unlink()
    publish(run, "results", to)
    assert "--against has no effect" in refused(capsys, run, "results", to, "--against", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(capsys, run, "results", to, "--push")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "needs a token" in refused(capsys, run, "results", to, "--push")
