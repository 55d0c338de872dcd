"""A model behind an OpenAI-compatible server on the loopback, with the faults that such servers have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG
from embeddings_server import Server, meaning
from tiny_generator import context

from speed.backends.encoding.endpoint import TEXTS, EndpointEncoder, EndpointModel
from speed.backends.encoding.text_encoder import encoded
from speed.backends.encoding.vector_cache import VectorCache
from speed.core.errors import UserError
from speed.teaching.errors import Patience

QUICK = Patience(attempts=3, base=0.001, cap=0.002, timeout=HANG)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def encoder(server: Server, home: Path, runtime: dict[str, Any] | None = None, **fields: Any) -> EndpointEncoder:
    model = EndpointModel(server.url, "some/model", **fields)
    return EndpointEncoder(model, context(home, **(runtime or {"concurrency": 4})), QUICK)


def test_vectors_come_in_the_order_of_the_texts_and_are_counted(server: Server, tmp_path: Path) -> None:
    texts = [f"{'a' * (i % 5)}{i}" for i in range(3 * TEXTS + 7)]
    made = encoder(server, tmp_path, usd_per_million=2.0)
    found = encoded(made, texts, "Q: ")
    assert np.array_equal(found, np.array([meaning(f"Q: {text}") for text in texts], np.float32))
    assert max(len(request["input"]) for request in server.requests) == TEXTS
    assert {request["path"] for request in server.requests} == {"/v1/embeddings"}
    tokens = sum(len(text) for request in server.requests for text in request["input"])
    tally = made.ctx.tally
    assert (tally.cost["calls"], tally.cost["tokens_in"]) == (len(server.requests), tokens)
    assert tally.dollars == pytest.approx(2e-6 * tokens)


def test_a_stumbling_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    faults = {2: (429, {"error": "slow down"}), 3: (503, {}), 4: (200, {"data": []}), 5: (200, ["?"])}
    server.fault = lambda number, texts: faults.get(number)
    patient = Patience(attempts=4, base=0.001, cap=0.002, timeout=HANG)
    made = EndpointEncoder(EndpointModel(server.url, "m"), context(tmp_path, concurrency=1), patient)
    assert encoded(made, ["aa"]).tolist() == [meaning("aa")]
    assert made.ctx.tally.cost["retries"] == 4


def test_a_server_that_stays_away_ends_the_run_and_leaves_what_was_paid_for(server: Server, tmp_path: Path) -> None:
    server.fault = lambda number, texts: (500, {}) if "bad" in texts else None
    texts = [*(f"good {i}" for i in range(2 * TEXTS)), "bad"]
    cache = VectorCache(tmp_path / "vectors", {"m": 1}, 4, 10**9)
    with pytest.raises(UserError, match="all vectors so far are kept"):
        encoded(encoder(server, tmp_path, {"concurrency": 1}), texts, cache=cache)
    server.fault, sent = lambda number, texts: None, len(server.asked)
    made = encoder(server, tmp_path)
    assert encoded(made, texts, cache=cache).shape == (len(texts), 4)
    assert server.asked[sent + 1 :] == ["bad"], "the rest was not bought again"
    cache.close()


def test_texts_that_the_server_refuses_are_cut_and_counted(server: Server, tmp_path: Path) -> None:
    long = {"error": {"message": "This model's maximum context length is 100 tokens"}}
    server.fault = lambda number, texts: (400, long) if any(len(text) > 100 for text in texts) else None
    made = encoder(server, tmp_path)
    found = encoded(made, ["a", "b" * 250, "c" * 99, "d" * 101])
    assert found[:, 0].tolist() == [1, 78, 99, 75]
    assert made.cut == 2


def test_vectors_of_another_width_and_of_no_numbers_are_refused(server: Server, tmp_path: Path) -> None:
    assert encoded(encoder(server, tmp_path, dimensions=3), ["a"]).shape == (1, 3)
    assert server.requests[-1]["dimensions"] == 3
    server.fault = lambda number, texts: (200, {"data": [{"index": 0, "embedding": [1.0, 2.0]}]})
    with pytest.raises(UserError, match="width 2 instead of 5"):
        encoder(server, tmp_path, dimensions=5)
    server.fault = lambda number, texts: (200, {"data": [{"index": 0, "embedding": [1.0, float("nan")]}]})
    with pytest.raises(UserError, match="finite"):
        encoder(server, tmp_path)


def test_the_key_comes_from_the_environment_and_shows_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-key-of-openai")
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "local-key-12345")
    made = encoder(server, tmp_path)
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer local-key-12345"}
    assert "key" not in json.dumps(made.model.identity())
    server.fault = lambda number, texts: (401, {"error": "wrong key local-key-12345"})
    with pytest.raises(UserError, match="OPENAI_COMPATIBLE_API_KEY .set") as refused:
        encoded(made, ["a"])
    assert "12345" not in str(refused.value)
    assert EndpointModel("https://api.openai.com/v1", "m").variable == "OPENAI_API_KEY"


def test_an_empty_text_is_sent_as_a_space(server: Server, tmp_path: Path) -> None:
    encoded(encoder(server, tmp_path), [""])
    assert server.asked == [" "]


def test_spending_stops_at_the_cap(server: Server, tmp_path: Path) -> None:
    runtime = {"concurrency": 1, "max_usd": 0.001}
    made = encoder(server, tmp_path, runtime, usd_per_million=10.0)
    with pytest.raises(UserError, match=r"--max-usd is 0.001: stopped"):
        encoded(made, [f"{i} {'a' * 50}" for i in range(20 * TEXTS)])
    assert 2 <= len(server.requests) <= 3


def test_prices_are_known_guessed_never(server: Server) -> None:
    assert EndpointModel("https://api.openai.com/v1", "text-embedding-3-small").dollars(1e6) == 0.02
    assert EndpointModel("https://api.openai.com/v1", "something-new").dollars(1e6) is None
    assert EndpointModel("https://elsewhere.example/v1", "text-embedding-3-small").dollars(1e6) is None
    assert EndpointModel(server.url, "anything").dollars(1e6) == 0
    with pytest.raises(UserError, match="not a URL"):
        EndpointModel("file:///etc/passwd", "m")


def test_address_model_and_width_are_its_identity(server: Server) -> None:
    made = [
        EndpointModel(server.url, "a"),
        EndpointModel(server.url, "b"),
        EndpointModel(server.url, "a", 256),
        EndpointModel("http://127.0.0.1:1/v1", "a"),
    ]
    assert len({json.dumps(model.identity()) for model in made}) == 4
    with_secret = EndpointModel("https://me:secret@host/v1?key=secret", "a").identity()
    assert "secret" not in json.dumps(with_secret)
