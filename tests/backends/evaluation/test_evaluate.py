"""The evaluate command: any model, resumed, priced, next to published scores; and its messages for mistakes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from embeddings_server import Server
from tiny_generator import make_base
from tiny_tasks import WORDS, all_seven, write

from speed.backends.evaluation.evaluated_model import LocalModel
from speed.core.errors import UserError
from speed.data.query_scores import read_queries
from speed.evaluate import evaluate, main, parser


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seven types, and a task that goes by an mteb name."""
    root = all_seven(tmp_path_factory.mktemp("tasks"))
    rows = [{"sentence1": w, "sentence2": f"{w} stone", "score": i % 6} for i, w in enumerate(WORDS)]
    write(root / "STSBenchmark/test.jsonl", rows)
    (root / "STSBenchmark/README.md").write_text("- type: STS\n- mteb task: STSBenchmark\n")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare language model, as it lies on the hub."""
    return make_base(tmp_path_factory.mktemp("models") / "bare")


@pytest.fixture
def judge(tmp_path: Path, tasks: Path) -> Callable[..., tuple[Any, Path]]:
    def run(*arguments: Any) -> tuple[Any, Path]:
        words = [*map(str, arguments), "--home", str(tmp_path / "home")]
        if not {"--folder", "--benchmark", "--mirror"} & set(words):
            words += ["--folder", str(tasks)]
        return evaluate(parser().parse_args(words))

    return run


def test_a_bare_model_on_a_folder_of_tasks(model: Path, judge: Any, tmp_path: Path) -> None:
    found, folder = judge(model)
    assert len(found.scores.tasks) == 8
    assert (found.name, found.protocol) == ("local/bare", "native")
    assert found.pins.datasets["MySimilarity"].startswith("local-")
    files = tmp_path / "home" / "evaluations" / "results" / "local__bare" / found.model
    assert {file.stem for file in files.glob("*.json")} == {*found.scores.tasks, "model_meta"}
    stored = json.loads((files / "MySimilarity.json").read_text())
    assert stored["scores"]["test"][0]["main_score"] * 100 == pytest.approx(found.scores.tasks["MySimilarity"])
    report = (folder / "report.md").read_text()
    assert "E5-mistral" in report
    assert "mean over" in report
    assert json.loads((folder / "evaluation.json").read_text())["pins"]["mteb"] == found.pins.mteb


def test_the_same_command_again_encodes_nothing(model: Path, judge: Any, tmp_path: Path) -> None:
    first, _ = judge(model, "--tasks", "MyRetrieval", "MySimilarity")
    results = next((tmp_path / "home" / "evaluations").rglob("MySimilarity.json"))
    written = results.stat().st_mtime_ns
    second, folder = judge(model, "--tasks", "MyRetrieval", "MySimilarity", "MyPairs")
    assert results.stat().st_mtime_ns == written
    assert first.scores.tasks.items() <= second.scores.tasks.items()
    shutil.rmtree(tmp_path / "home" / "evaluations")
    third, folder = judge(model, "--tasks", "MyRetrieval", "MySimilarity")
    assert third == first
    assert "texts encoded: 0" in (folder / "report.md").read_text(), "vectors are found again by model and text"


def test_the_run_of_an_evaluation_holds_the_scores_of_its_tasks_queries(model: Path, judge: Any) -> None:
    """Of this evaluation's tasks alone; an earlier one without them is scored anew with --queries."""
    _, before = judge(model, "--tasks", "MyRetrieval", "MyPairs", "MyReranking")
    assert {file.name for file in (before / "queries").iterdir()} == {"MyRetrieval.json", "MyReranking.json"}
    record, folder = judge(model, "--tasks", "MyRetrieval", "MyPairs")
    assert list(read_queries(folder, record)) == ["MyRetrieval"]
    for file in folder.parents[2].glob("evaluations/queries/*/*/*"):
        file.unlink()
    old, without = judge(model, "--tasks", "MyRetrieval")
    assert not (without / "queries").exists()
    again, anew = judge(model, "--tasks", "MyRetrieval", "--queries")
    assert read_queries(anew, again) == read_queries(folder, record)
    assert old == again


def test_another_model_in_the_same_place_gets_its_own_scores(model: Path, judge: Any, tmp_path: Path) -> None:
    """mteb's own cache goes by names: it gives the second model the scores of the first."""
    import torch
    from safetensors.torch import load_file, save_file

    place = shutil.copytree(model, tmp_path / "model")
    first, _ = judge(place, "--tasks", "MySimilarity", "--name", "my/model")
    weights = load_file(place / "model.safetensors")
    torch.manual_seed(1)
    save_file({name: torch.randn_like(tensor) for name, tensor in weights.items()}, place / "model.safetensors")
    second, _ = judge(place, "--tasks", "MySimilarity", "--name", "my/model")
    assert first.model != second.model
    assert first.scores != second.scores


def test_an_edited_instruction_is_another_task(model: Path, judge: Any, tmp_path: Path, tasks: Path) -> None:
    mine = shutil.copytree(tasks / "MySimilarity", tmp_path / "tasks" / "MySimilarity").parent
    seen = []
    for text in ("Find.", "Find the opposite of everything that was ever said."):
        entry = [{"name": "MySimilarity", "type": "STS", "instruction": text}]
        (mine / "tasks.json").write_text(json.dumps(entry))
        found, _ = judge(model, "--folder", mine, "--protocol", "e5")
        seen.append((found.pins.datasets["MySimilarity"], found.scores.mean))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_the_protocol_belongs_to_the_model(model: Path, judge: Any, tmp_path: Path) -> None:
    asking = shutil.copytree(model, tmp_path / "asking")
    prompts = {"STSBenchmark": "Instruct: Retrieve semantically similar text.\nQuery: "}
    (asking / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    assert judge(asking, "--tasks", "MySimilarity")[0].protocol == "e5"
    assert judge(asking, "--tasks", "MySimilarity", "--protocol", "native")[0].protocol == "native"


def test_the_embedder_of_a_run_is_found_in_its_folder(model: Path, judge: Any, tmp_path: Path) -> None:
    payload = tmp_path / "store" / "embedder" / "key"
    shutil.copytree(model, payload / "model")
    run = tmp_path / "runs" / "today"
    (run / "stages").mkdir(parents=True)
    (run / "stages" / "embedder").symlink_to(payload)
    found, _ = judge(run, "--tasks", "MySimilarity")
    assert found.name == "local/today"
    assert found.scores == judge(model, "--tasks", "MySimilarity")[0].scores


def test_a_layout_of_sentence_transformers_alone(model: Path, judge: Any, tmp_path: Path) -> None:
    """A dense layer behind the pooling: our encoder does not have it, so the library encodes."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(0)
    transformer = Transformer(str(model), max_seq_length=64)
    parts = [transformer, Pooling(32, "mean"), Dense(32, 5)]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "dense"))
    found, _ = judge(tmp_path / "dense", "--tasks", "MySimilarity")
    assert found.scores.tasks["MySimilarity"] != judge(model, "--tasks", "MySimilarity")[0].scores.tasks["MySimilarity"]


def test_an_endpoint_is_a_model_like_any_other(judge: Any, tmp_path: Path) -> None:
    server = Server()
    found, folder = judge("some/model", "--url", server.url, "--tasks", "MyRetrieval", "MySimilarity")
    assert found.name == "127.0.0.1/some_model"
    assert found.pins.precision == "endpoint"
    sent = len(server.requests)
    again, _ = judge("some/model", "--url", server.url, "--tasks", "MyRetrieval", "MySimilarity")
    assert (again.scores, len(server.requests)) == (found.scores, sent)
    shutil.rmtree(tmp_path / "home" / "evaluations")
    judge("some/model", "--url", server.url, "--tasks", "MyRetrieval", "MySimilarity")
    assert len(server.requests) == sent + 1, "the probe alone: vectors are kept"
    assert "dollars: 0.0000" in (folder / "report.md").read_text()
    server.close()


def test_money_is_shown_and_needs_a_word_before_anything_is_sent(
    judge: Any, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()
    words = ["m", "--url", server.url, "--folder", str(tasks), "--home", str(tmp_path / "home"), "--price", "1000"]

    def refused(*more: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*words, *more])
        assert stopped.value.code == 1
        return capsys.readouterr().err

    assert "this costs money and has no cap" in refused()
    assert "8 tasks on 127.0.0.1/m: at most" in refused()
    assert "more than --max-usd 0.5" in refused("--max-usd", "0.5")
    words[2], words[-2:] = "https://elsewhere.example/v1", []
    assert "the price of m is not known" in refused("--max-usd", "5")
    assert not server.requests
    server.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such-model", "--tasks", "STS13"], "no/such-model is not a folder, and it cannot be had from the hub"),
        (["MODEL"], "which tasks"),
        (["MODEL", "--tasks", "NoSuchTask"], "has no task 'NoSuchTask'"),
        (["MODEL", "--benchmark", "mteb_v1", "--tasks", "MyPairs"], "MyPairs, which mteb_v1 does not have"),
        (["MODEL", "--folder", "/no/such"], "/no/such does not exist"),
        (["MODEL", "--folder", "x", "--benchmark", "dev"], "--folder goes with neither"),
        (["MODEL", "--tasks", "STS13", "--max-length", "2"], "max_length.*greater than or equal to 8"),
        (["MODEL", "--tasks", "STS13", "--max-usd", "2"], "--max-usd is for an endpoint"),
        (["m", "--url", "nonsense", "--tasks", "STS13"], "nonsense is not a URL"),
    ],
)
def test_mistakes_are_told_in_a_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    import re

    words = [str(model) if word == "MODEL" else word for word in arguments]
    with pytest.raises(SystemExit):
        main([*words, "--home", str(tmp_path / "home")])
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert "Traceback" not in said


# -- data sets without the hub -----------------------------------------------------------------------------------------


def a_copy_of_the_hubs(folder: Path) -> Path:
    """STSBenchmark as it lies on the hub: a card and a file for each split."""
    rows = [{"sentence1": w, "sentence2": f"{w} stone", "score": float(i % 6)} for i, w in enumerate(WORDS)]
    write(folder / "test.jsonl", rows)
    files = "configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.jsonl\n"
    (folder / "README.md").write_text(f"---\n{files}---\n")
    return folder


def test_a_mirror_takes_the_place_of_the_hub(model: Path, judge: Any, tmp_path: Path) -> None:
    a_copy_of_the_hubs(tmp_path / "mirror" / "mteb" / "stsbenchmark-sts")
    found, _ = judge(model, "--tasks", "STSBenchmark", "--mirror", tmp_path / "mirror")
    assert found.pins.datasets["STSBenchmark"].startswith("local-")
    with pytest.raises(Exception, match="mirror .* lacks STS13: it should hold the folder mteb/sts13-sts"):
        judge(model, "--tasks", "STS13", "--mirror", tmp_path / "mirror")


def test_a_snapshot_in_the_hubs_cache_keeps_its_revision(
    model: Path, judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb
    from huggingface_hub import constants

    data = mteb.get_task("STSBenchmark").metadata.dataset
    cached = tmp_path / "hub" / f"datasets--{data['path'].replace('/', '--')}"
    a_copy_of_the_hubs(cached / "snapshots" / data["revision"])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    found, _ = judge(model, "--benchmark", "mteb_v1", "--tasks", "STSBenchmark")
    assert found.pins.datasets == {"STSBenchmark": data["revision"]}


@pytest.mark.parametrize(
    ("device", "found", "devices", "granted"),
    [
        ("auto", 2, (0, 1), (0, 1)),
        ("cuda", 2, (0, 1), (0, 1)),
        ("cpu", 2, "cpu", ()),
        ("auto", 0, "auto", ()),
        ("cuda", 0, (0,), ()),
    ],
)
def test_all_gpus_encode_or_none(
    device: str, found: int, devices: Any, granted: tuple[int, ...], model: Path, judge: Any, monkeypatch: Any
) -> None:
    def load(self: Any, max_length: Any, at_most: Any, precision: str, ctx: Any) -> Any:
        assert (ctx.runtime.devices, ctx.grant.devices, ctx.grant.threads) == (devices, granted, 3)
        raise UserError("it would be loaded now")

    monkeypatch.setattr(LocalModel, "load", load)
    monkeypatch.setattr("speed.evaluate.gpus", lambda: ("a GPU",) * found)
    with pytest.raises(UserError, match="it would be loaded now"):
        judge(model, "--device", device, "--threads", 3)


def test_gpus_that_another_command_uses_are_waited_for(
    model: Path, judge: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from speed.core.devices import Devices
    from speed.core.machine import Gpu

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for user in ("speed.evaluate", "speed.core.devices"):
        monkeypatch.setattr(f"{user}.gpus", lambda: (Gpu("0", 80.0),))
    other, loaded = Devices((0,)), list[str]()
    other.grant((), lambda free: [("key", tuple(free))])

    def load(self: Any, max_length: Any, at_most: Any, precision: str, ctx: Any) -> Any:
        loaded.append(capsys.readouterr().err)
        raise UserError("it would be loaded now")

    monkeypatch.setattr(LocalModel, "load", load)
    monkeypatch.setattr("speed.core.devices.time.sleep", lambda seconds: other.release([0]))
    with pytest.raises(UserError, match="it would be loaded now"):
        judge(model, "--threads", 3)
    assert "waits for GPU 0, which another command uses" in loaded[0]
