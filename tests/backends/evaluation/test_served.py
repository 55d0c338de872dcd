"""A served model on the same tasks as its checkpoint: its drift, and what is told before any task is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embeddings_server import Server
from served_embedder import EmbeddingServer, made
from tiny_tasks import WORDS, write

from speed.backends.encoding.probe_texts import PROBES
from speed.core.errors import UserError
from speed.evaluate import evaluate, parser


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    rows = [{"sentence1": f"{w} {w[0]}", "sentence2": f"{w} stone {i}", "score": i % 6} for i, w in enumerate(WORDS)]
    write(root / "MySimilarity/test.jsonl", rows)
    pairs = [{"sent1": w, "sent2": f"{w} stone {i}", "labels": i % 2} for i, w in enumerate(WORDS)]
    write(root / "MyPairs/test.jsonl", pairs)
    return root


@pytest.fixture
def served(tmp_path: Path) -> Iterator[EmbeddingServer]:
    server = EmbeddingServer(made(tmp_path / "payload") / "model")
    yield server
    server.close()


@pytest.fixture
def judge(tmp_path: Path, tasks: Path) -> Callable[..., str]:
    """The report of a served model beside its checkpoint."""

    def run(url: str, *more: str, name: str = "mine") -> str:
        checkpoint = ["--checkpoint", str(tmp_path / "payload")]
        where = ["--folder", str(tasks), "--home", str(tmp_path / "home"), "--no-published"]
        _, folder = evaluate(parser().parse_args([name, "--url", url, *checkpoint, *where, *more]))
        return (folder / "report.md").read_text()

    return run


def drifts(report: str) -> dict[str, tuple[float, float, float]]:
    rows = re.findall(r"^\| (My\w+|mean over \w+) \| [^|]+ \| ([\d.-]+) \| ([\d.-]+) \| ([+-][\d.]+) \|$", report, re.M)
    return {name: (float(own), float(found), float(drift)) for name, own, found, drift in rows}


def test_a_faithful_server_does_not_drift_and_a_rougher_one_is_measured(
    served: EmbeddingServer, judge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    report = judge(served.url)
    told = capsys.readouterr()
    assert f"{len(PROBES)} texts, and then 2 tasks on 127.0.0.1/mine, beside " in told.err
    assert "mean over tasks" in told.out
    assert {name: drift for name, (_, _, drift) in drifts(report).items()} == dict.fromkeys(
        ["MySimilarity", "MyPairs", "mean over tasks", "mean over types"], 0.0
    )
    assert "64 texts before the tasks: lowest cosine 1.000000, mean 1.000000." in report
    assert any(text.startswith("Instruct: ") and "stone" in text for text in served.asked), "the checkpoint's prompt"
    sent = len(served.asked)
    judge(served.url)
    assert len(served.asked) - sent == len(PROBES) + 1, "results are kept; only the probes are sent again"
    served.scale = 0.3  # as of weights in few bits: nearly the same vectors
    rough = judge(served.url)
    table = drifts(rough)
    assert "mean 1.000000" not in rough
    assert table["MySimilarity"][0] == drifts(report)["MySimilarity"][0], "the checkpoint's scores stay"
    assert any(drift for _, _, drift in table.values()), "a server under the same name is measured anew"
    assert all(round(found - own, 2) == pytest.approx(drift, abs=0.011) for own, found, drift in table.values())
    mean = sum(table[name][2] for name in ("MySimilarity", "MyPairs")) / 2
    assert table["mean over tasks"][2] == pytest.approx(mean, abs=0.011)


def test_a_fault_is_told_before_a_task_is_sent(served: EmbeddingServer, judge: Any) -> None:
    def refused(message: str, url: str = served.url, **how: Any) -> None:
        with pytest.raises(UserError, match=f"(?s){message}"):
            judge(url, **how)
        assert not any(text.rpartition("Query: ")[2].endswith(" stone 1") for text in served.asked)

    frame, longest = served.encoder.frame, served.encoder.max_length
    served.encoder.how = "cls"
    refused(r"127\.0\.0\.1/mine at http.* embeds otherwise than .*payload.*wrong pooling.*--anyway")
    served.encoder.how, served.encoder.frame = "last", frame._replace(after=())
    refused("lost EOS")
    served.encoder.frame, served.encoder.max_length = frame, 32
    refused("long texts are cut elsewhere: the training reads 64 tokens")
    served.encoder.max_length = longest
    served.read = lambda text: text[::-1]
    refused("other weights, another tokenizer")
    served.read = lambda text: text
    served.longest = 0
    refused("too long")
    served.longest = 10**6
    refused("refused the request with HTTP 404: no such model.*check the URL .*, the model yours", name="yours")
    other = Server()
    refused("another model: its vectors have 4 numbers, and those of the training 32", other.url)
    other.close()
    refused("could not be reached .*run the same command again", "http://127.0.0.1:9/v1")


def test_a_known_fault_is_measured_anyway(served: EmbeddingServer, judge: Any) -> None:
    served.encoder.how = "mean"
    table = drifts(judge(served.url, "--anyway"))
    assert table["MySimilarity"][2] != 0.0


def test_options_of_a_served_model_are_for_one(tmp_path: Path) -> None:
    for words, message in (
        (["m", "--checkpoint", str(tmp_path)], "--checkpoint is for an endpoint"),
        (["m", "--url", "http://127.0.0.1:9/v1", "--anyway"], "--anyway has no effect"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(parser().parse_args([*words, "--tasks", "STS13", "--home", str(tmp_path / "home")]))
