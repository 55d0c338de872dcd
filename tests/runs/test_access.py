"""A local hub: what it grants, guards, lacks or does not say is known before a teacher is asked for anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import constants

from speed.core.content import HubRepository, hub_model
from speed.core.errors import UserError
from speed.core.graph import stage_statuses
from speed.core.store import Store
from speed.data.evaluation_datasets import evaluation_datasets, is_cached
from speed.pipeline import pipeline
from speed.runs.access import Access, _cached_model, access_lines, hub_access
from speed.runs.building import Origin
from speed.runs.experiment import run

REVISION = "6b5d328eaae8ef408dd7d775040245cf86f92e9d"
GATED, NOWHERE, ODD = "someone/gated", "someone/nowhere", "someone/odd"


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, by names; whatever is posted is a call to a teacher."""

    asked: list[str]
    called: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status, cause = 200, ""
        if GATED in self.path:
            status, cause = 403, "GatedRepo"
        if NOWHERE in self.path:
            status, cause = 401, "RepoNotFound"
        if ODD in self.path:
            status = 500
        if self.path.endswith("/revision/never"):
            status, cause = 404, "RevisionNotFound"
        self.send_response(status)
        if cause:
            self.send_header("X-Error-Code", cause)
            self.send_header("X-Error-Message", "hf_secret is no good token")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_HEAD(self) -> None:
        """A file of a repository, as `hf_hub_download` asks for it."""
        self.send_response(200)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{abs(hash(self.path)):x}"')
        self.send_header("Content-Length", "2")
        self.end_headers()

    def do_POST(self) -> None:
        self.called.append(self.path)
        self.send_error(500)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Hub]]]:
    handler = type("Handler", (Hub,), {"asked": [], "called": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    yield url, handler
    server.shutdown()
    server.server_close()


def access(config: Any, home: Path) -> dict[str, Access]:
    found = stage_statuses(pipeline(config).goals(), Store(home))
    return {each.wanted.title: each for each in hub_access(found, home)}


def cached(folder: Path, name: str, files: dict[str, str]) -> None:
    """A model in the hub's cache."""
    repository = folder / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text("abc")
    for file, text in files.items():
        (repository / "snapshots" / "abc").mkdir(parents=True, exist_ok=True)
        (repository / "snapshots" / "abc" / file).write_text(text)


@pytest.mark.parametrize(
    ("base", "state", "said"),
    [
        ("someone/open", "there", "at the hub"),
        (GATED, "gated", f"/{GATED}, and set HF_TOKEN"),
        (NOWHERE, "missing", "check the name"),
        ("someone/open@never", "missing", "no revision never"),
        (ODD, "unknown", "answers HTTP 500"),
    ],
)
def test_what_the_hub_says(
    hub: tuple[str, type[Hub]], compose: Any, tmp_path: Path, base: str, state: str, said: str
) -> None:
    found = access(compose("+experiment=smoke", "trainer=lora", f"generator.base={base}"), tmp_path / "home")
    assert list(found) == [base], "one question a model, whatever stages need it"
    assert found[base].state == state
    assert said in found[base].detail
    assert "hf_secret" not in str(found)
    assert set(found[base].stages) == {"junior", "root data", "senior", "synthesis", "revisor", "revision"}
    whole = access(compose("+experiment=smoke", "trainer=full", f"generator.base={base}"), tmp_path / "home")
    assert whole[base].stages == ("junior", "revisor"), "what is trained as a whole stands on no base"


def test_a_hub_that_cannot_be_reached_is_no_reason(
    hub: tuple[str, type[Hub]], compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = access(compose("+experiment=smoke", f"generator.base={GATED}"), tmp_path / "home")
    assert found[GATED].state == "unknown"
    assert "does not answer" in found[GATED].detail
    many = access(compose("preset=paper", "topics=miniature"), tmp_path / "home")
    assert len(many) == 69
    assert {each.state for each in many.values()} == {"unknown"}
    assert len(access_lines(list(many.values()))) == 3


def test_a_hub_that_says_nothing_is_waited_for_once(
    hub: tuple[str, type[Hub]], compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Silent:
        def get(self, url: str, **options: object) -> None:
            asked.append(url)
            raise httpx.ConnectTimeout("")

    monkeypatch.setattr("huggingface_hub.utils._http.get_session", Silent)
    monkeypatch.setattr("speed.runs.access.SIDE_BY_SIDE", 1)
    found = access(compose("preset=paper", "topics=miniature"), tmp_path / "home")
    assert (len(found), len(asked)) == (69, 1)


def test_offline_only_the_caches_are_looked_at(
    hub: tuple[str, type[Hub]], compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = compose("preset=paper", "topics=miniature")
    base, embedder = "meta-llama/Meta-Llama-3-8B", "mistralai/Mistral-7B-v0.1"
    assert {each.state for each in access(config, tmp_path / "home").values()} == {"missing"}
    whole = {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": ""}
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    cached(tmp_path, base, whole)
    cached(tmp_path, embedder, {**whole, "model.safetensors.index.json": json.dumps(shards), "model-1.safetensors": ""})
    first, second, third = evaluation_datasets("mteb_v1")[:3]
    snapshot = tmp_path / "hub" / f"datasets--{first.path.replace('/', '--')}" / "snapshots" / first.revision
    prepared = tmp_path / "huggingface" / "datasets" / second.path.replace("/", "___").lower()
    kept = tmp_path / "home" / "cache" / "datasets" / third.path.replace("/", "___")
    for file in (
        snapshot / "data/a.parquet",
        prepared / "en/0.0.0" / second.revision / "a",
        kept / "en/0.0.0/another" / "a",
    ):
        file.parent.mkdir(parents=True)
        file.touch()
    found = access(config, tmp_path / "home")
    assert found[base].state == "there"
    assert found[embedder].state == "missing"
    assert "lacks 1 of its files (model-2.safetensors" in found[embedder].detail
    there = {title for title, each in found.items() if each.wanted.kind == "dataset" and each.state == "there"}
    assert there == {first.path, second.path}, "the third is there in another revision"
    lines = access_lines(list(found.values()))
    assert len(lines) == 4
    assert max(len(line) for text in lines for line in text.splitlines()) <= 120
    assert not hub[1].asked


def test_offline_the_download_that_is_named_is_of_the_revision_that_is_looked_for(
    hub: tuple[str, type[Hub]], compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = compose("preset=paper", "topics=miniature", "generator.base=org/model@0123abc")
    found = access(config, tmp_path / "home")
    first = evaluation_datasets("mteb_v1")[0]
    assert "hf download org/model --revision 0123abc, or" in found["org/model@0123abc"].detail
    wanted = f"hf download --repo-type dataset {first.path} --revision {first.revision}, or"
    assert wanted in found[first.path].detail
    cached(tmp_path, "org/model", {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": ""})
    assert access(config, tmp_path / "home")["org/model@0123abc"].state == "missing", "another revision lies there"


def test_a_run_without_access_is_refused_before_the_teacher_is_asked(
    hub: tuple[str, type[Hub]], compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, handler = hub
    config = compose(
        *("+experiment=smoke", "teacher=openai_compatible", f"runtime.api_base={url}/v1", f"generator.base={GATED}"),
        *("embedder.base=someone/open", f"runtime.home={tmp_path / 'home'}"),
    )
    with pytest.raises(UserError, match="that this run needs cannot be had") as refused:
        run(config, "", Origin(preset="miniature"))
    assert f"gated   {GATED}" in str(refused.value)
    assert "someone/open" not in str(refused.value)
    assert not handler.called
    assert not list((tmp_path / "home").rglob("*.jsonl"))
    assert run(config.model_copy(update={"plan": True}), "", Origin(preset="miniature")) is None
    shown = capsys.readouterr().out
    assert shown.index("needed from the hub") < shown.index("the run would be refused") < shown.index("disk still to")
    assert f"gated   {GATED} (junior" in shown
    assert "there   someone/open (embedder): at the hub" in shown
    assert "the run would be refused: models or data sets of the hub" in shown
    assert not handler.called


def test_folders_and_the_miniature_need_no_hub(compose: Any, tmp_path: Path) -> None:
    assert access(compose(), tmp_path / "home") == {}
    assert hub_model(str(tmp_path)) == ()
    assert hub_model("a/b@c") == (HubRepository("model", "a/b", "c"),)


def test_a_mirror_and_built_stages_need_no_hub(compose: Any, tmp_path: Path) -> None:
    evaluator = compose("preset=laptop").eval
    assert len(evaluator.hub_repositories()) == 10
    assert evaluator.model_copy(update={"mirror": tmp_path}).hub_repositories() == ()
    assert len(evaluation_datasets("any", ["CQADupstackRetrieval", "NoSuchTask"])) == 12


# -- caches as the libraries lay them out ------------------------------------------------------------------------------


def test_a_data_set_that_datasets_prepared_is_found_by_its_revision(
    hub: tuple[str, type[Hub]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.packaged_modules.json.json import Json

    name, cache = "mteb/AmazonReviewsClassification", tmp_path / "home" / "cache" / "datasets"
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": 0}\n')
    made = Json(
        cache_dir=str(cache), repo_id=name, dataset_name=name.partition("/")[2], config_name="en", hash=REVISION
    )
    rows = DataFilesList([str(tmp_path / "rows.jsonl")], [("rows",)])
    made.config.data_files = DataFilesDict({"test": rows})
    assert not is_cached(name, REVISION, tmp_path / "home")
    made.download_and_prepare()
    assert is_cached(name, REVISION, tmp_path / "home")
    assert not is_cached(name, "another", tmp_path / "home")
    assert not is_cached("mteb/AmazonReviews", REVISION, tmp_path / "home")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert len(datasets.load_dataset(name, "en", cache_dir=str(cache))["test"]) == 1, "and datasets finds it, too"
    [prepared] = cache.glob(f"*/*/*/{REVISION}")
    prepared.rename(prepared.with_name(f"{REVISION}.incomplete"))
    assert not is_cached(name, REVISION, tmp_path / "home")


def test_downloads_of_the_hub_are_found_once_they_hold_data(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    def fetch(name: str, file: str, kind: str) -> None:
        hf_hub_download(name, file, repo_type=kind, revision=revision, cache_dir=tmp_path / "hub")

    name, revision = "mteb/arxiv-clustering-p2p", REVISION
    fetch(name, "README.md", "dataset")
    assert not is_cached(name, REVISION, tmp_path / "home"), "its page alone"
    fetch(name, "data/test-00000-of-00001.parquet", "dataset")
    assert is_cached(name, REVISION, tmp_path / "home")
    assert not is_cached(name, "another", tmp_path / "home")

    base, revision = "someone/base", "main"
    wanted = hub_model(base)[0]
    assert _cached_model(wanted) == (False, "it is not in the local cache")
    fetch(base, "config.json", "model")
    assert _cached_model(wanted) == (False, "the local cache lacks its weights")
    fetch(base, "model.safetensors", "model")
    assert _cached_model(wanted) == (False, "the local cache lacks its tokenizer")
    fetch(base, "tokenizer.json", "model")
    assert _cached_model(wanted) == (True, "")
    assert _cached_model(hub_model(f"{base}@{REVISION}")[0]) == (True, "")
    assert _cached_model(hub_model(f"{base}@another")[0]) == (False, "it is not in the local cache")
    snapshot = tmp_path / "hub" / "models--someone--base" / "snapshots" / REVISION
    for index, shard in (("model.safetensors", "model.safetensors"), ("pytorch_model.bin", "pytorch_model-1.bin")):
        (snapshot / f"{index}.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert _cached_model(wanted) == (True, ""), "weights in one of two formats are enough"
    (snapshot / "model.safetensors").unlink()
    assert _cached_model(wanted)[1].startswith("the local cache lacks 1 of its files (model.safetensors")
