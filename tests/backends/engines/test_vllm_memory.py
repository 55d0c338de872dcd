"""What vLLM cannot hold at once is halved, once, and the texts stay the same; vLLM itself is a fake one here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_contract import WARM, requests
from fake_vllm import FakeVllm
from tiny_generator import context, make_base

from speed.backends.engines.vllm_engine import VllmEngine
from speed.backends.engines.vllm_server import Amounts, NoRoom, explain_errors
from speed.core.errors import UserError
from speed.runtime import Context

ENGINE = VllmEngine(precision="fp32", cache_tokens=4096, step_tokens=2048, step_texts=16)
MOST = {"num_gpu_blocks_override": 129, "max_num_batched_tokens": 2048, "max_num_seqs": 16}
HALF = {"num_gpu_blocks_override": 65, "max_num_batched_tokens": 1024, "max_num_seqs": 8}
BEGINS = "engine.cache_tokens=2048 engine.step_tokens=1024 engine.step_texts=8 begins with them"
TOLD = f"8 texts a pass were computed at once, since 16 did not fit into memory; {BEGINS}"
TOO_LITTLE = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA out of memory occurred when warming up sampler with 16 dummy requests."),
    RuntimeError(
        "Worker failed with error 'CUDA out of memory. Tried to allocate 2.00 GiB.', please check the stack trace "
        "above for the root cause"
    ),  # one of several GPUs that share the model
    ValueError("No available memory for the cache blocks."),
    ValueError("1.0 GiB KV cache is needed, which is larger than the available KV cache memory (0.5 GiB)."),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def written(
    fake: FakeVllm, base: Path, home: Path, monkeypatch: pytest.MonkeyPatch, engine: VllmEngine = ENGINE
) -> Any:
    """The texts of three blocks, and the context that was told of them."""
    fake.install(monkeypatch)
    ctx = context(home)
    blocks = [requests(5, n=2), requests(3), requests(4)]
    return list(engine.generate(base, blocks, WARM, ctx)), ctx


def given(fake: FakeVllm) -> list[dict[str, int]]:
    """Of what is halved, what each start was given."""
    return [{name: options[name] for name in MOST} for options in fake.starts]


def said(ctx: Context) -> list[str]:
    return [event["message"] for event in ctx.events if event["event"] == "say"]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def wanted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The texts where everything fits."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        found, ctx = written(FakeVllm(), base, tmp_path_factory.mktemp("roomy"), monkeypatch)
    assert said(ctx) == []
    return found


@pytest.mark.parametrize("error", TOO_LITTLE, ids=str)
def test_lack_of_memory_is_known_by_what_vllm_and_torch_say(error: Exception) -> None:
    with pytest.raises(NoRoom), explain_errors():
        raise error


def test_what_does_not_fit_at_the_start_is_halved_and_remembered(
    wanted: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FakeVllm(room={"max_num_seqs": 8})
    found, ctx = written(small, base, tmp_path / "home", monkeypatch)
    assert found == wanted
    assert given(small) == [MOST, HALF]
    assert {options["max_model_len"] for options in small.starts} == {512}
    assert said(ctx) == ["16 texts a pass at once do not fit into memory: 8 from now on", TOLD]
    assert ctx.tally.metrics["at_once"] == TOLD
    again = FakeVllm(room={"max_num_seqs": 8})
    found, ctx = written(again, base, tmp_path / "home", monkeypatch)
    assert (found, given(again), said(ctx)) == (wanted, [HALF], [TOLD])
    assert small.running == again.running == 0


def test_what_does_not_fit_while_texts_are_written_is_begun_again(
    wanted: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FakeVllm(room_to_write={"max_num_batched_tokens": 1024})
    found, ctx = written(small, base, tmp_path / "home", monkeypatch)
    assert found == wanted
    assert (given(small), small.calls) == ([MOST, HALF], 4), "the first block is not written again"
    assert said(ctx)[-1] == TOLD
    assert small.running == 0


@pytest.mark.parametrize("where", ["room", "room_to_write"])
def test_half_that_does_not_fit_either_is_an_error(
    where: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FakeVllm(**{where: {"num_gpu_blocks_override": 64}})
    told = (
        r"engine.cache_tokens=2048 do not fit into memory\n  lower engine.cache_tokens, engine.step_tokens or engine."
    )
    for starts in ([MOST, HALF], [HALF]):
        with pytest.raises(UserError, match=told):
            written(small, base, tmp_path / "home", monkeypatch)
        assert given(small) == starts
        small.starts, small.calls = [], 0
    assert small.running == 0


def test_where_one_text_needs_all_tokens_fewer_texts_a_pass_are_tried(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = ENGINE.model_copy(update={"cache_tokens": 256, "step_tokens": 256})
    small = FakeVllm(room={"max_num_seqs": 8})
    written(small, base, tmp_path / "home", monkeypatch, full)
    assert [start["max_num_seqs"] for start in small.starts] == [16, 8]
    smaller = FakeVllm(room={"max_num_seqs": 4})
    with pytest.raises(UserError, match="engine.cache_tokens=256 do not fit into memory"):
        written(smaller, base, tmp_path / "other", monkeypatch, full)
    assert len(smaller.starts) == 2


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access"), RuntimeError("a bug")], ids=str
)
def test_other_errors_are_no_lack_of_memory(
    error: Exception, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = FakeVllm(room={"max_num_seqs": 8}, error=error)
    with pytest.raises(RuntimeError, match=str(error)):
        written(broken, base, tmp_path / "home", monkeypatch)
    assert len(broken.starts) == 1


def test_half_is_enough_for_the_longest_text() -> None:
    assert Amounts(262_144, 8_192, 256).halved(8_192) == Amounts(131_072, 8_192, 128)
    assert Amounts(9_000, 8_192, 1).halved(8_192) == Amounts(8_192, 8_192, 1)
