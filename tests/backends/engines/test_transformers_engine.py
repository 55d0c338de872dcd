"""The engine writes what the model says: greedy text, frequencies, ends, and nothing of its neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_contract import GREEDY, PROMISES, WARM, Promise, requests, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_generator import completions, context, make_base

from speed.backends.alignment.trainer import TrlTrainer
from speed.backends.engines.decoding import Prefix, _nucleus, chosen_tokens, continuations, uniforms
from speed.backends.engines.prompt_format import prompt_ids
from speed.backends.engines.transformers_engine import TransformersEngine, batches, rows_of, tokens_of
from speed.backends.engines.weights import end_tokens, load
from speed.backends.runtime import attention
from speed.core.errors import UserError
from speed.data.trainings import Sft
from speed.ports import Generate, Sampling

ENGINE = TransformersEngine(precision="fp32", batch_tokens=4096)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {"tie_word_embeddings": True},
    "Qwen2Config": {},
    "GemmaConfig": {"head_dim": 8},
    "MistralConfig": {"sliding_window": 16},
    "Qwen3Config": {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_contract(promise: Promise, base: Path, tmp_path: Path) -> None:
    promise(ENGINE, base, tmp_path)


def test_a_text_does_not_depend_on_its_batch(base: Path) -> None:
    block = requests(9, n=2)
    alone = TransformersEngine(precision="fp32", batch_tokens=1)
    assert texts(alone, base, block, WARM) == texts(ENGINE, base, block, WARM)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_text_is_that_of_transformers(architecture: str, tmp_path: Path) -> None:
    folder = make_base(tmp_path, architecture, **ARCHITECTURES[architecture])
    block = requests(7, max_tokens=40)
    found = texts(ENGINE, folder, block, GREEDY)
    loaded = load(folder, "fp32", "cpu")
    for request, text in zip(block, found, strict=True):
        ids = torch.tensor([prompt_ids(request.prompt, "plain", loaded.tokenizer)])
        made = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
        expected = made[0, ids.shape[1] :].tolist()
        ended = expected[-1] == loaded.tokenizer.eos_token_id
        assert text.text == loaded.tokenizer.decode(expected, skip_special_tokens=True)
        assert text.tokens == len(expected)
        assert text.finish_reason == ("stop" if ended else "length")


def test_heads_that_share_keys_are_one_product_of_a_new_token_and_only_while_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn import functional

    attention._register.cache_clear()
    queries: list[torch.Size] = []
    plain = functional.scaled_dot_product_attention

    def noted(query: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        queries.append(query.shape)
        return plain(query, *rest, **more)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    loaded = load(make_base(tmp_path, num_attention_heads=4, num_key_value_heads=2), "fp32", "cpu")
    continuations(loaded.model, [Prefix([5, 6, 7], 0, [0, 1], 4), Prefix([8], 1, [0], 4)], WARM, [])
    assert {tuple(shape[1:3]) for shape in queries if shape[2] != 3} == {(2, 2)}
    assert loaded.model.config._attn_implementation == "sdpa"
    attention._register.cache_clear()


def test_tokens_come_as_often_as_the_model_says() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, float("-inf")]])
    rows = 40_000
    draws = torch.rand(rows, generator=torch.Generator().manual_seed(0))

    def frequencies(sampling: Sampling) -> torch.Tensor:
        drawn = chosen_tokens(logits.expand(rows, -1), sampling, draws)
        return torch.bincount(drawn, minlength=5) / rows

    assert torch.allclose(frequencies(WARM), torch.softmax(logits[0], 0), atol=0.01)
    cool = Sampling(temperature=0.5)
    assert torch.allclose(frequencies(cool), torch.softmax(logits[0] * 2, 0), atol=0.01)
    kept = torch.softmax(logits[0, :2], 0)  # 0.64 and 0.24: the smallest set that reaches 0.8
    assert torch.allclose(frequencies(Sampling(temperature=1.0, top_p=0.8))[:2], kept, atol=0.01)
    assert frequencies(Sampling(temperature=1.0, top_p=0.8))[2:].sum() == 0
    assert frequencies(Sampling(temperature=1.0, top_p=0.01))[0] == 1


def test_a_nucleus_is_what_sorting_the_whole_vocabulary_gives() -> None:
    """Peaked rows, for which the likeliest tokens suffice, beside a flat one, and equals that no order may part."""
    torch.manual_seed(0)
    weights = torch.softmax(torch.randn(6, 1000) * torch.tensor([[8.0], [4.0], [2.0], [1.0], [0.1], [0.0]]), dim=-1)
    for top_p in (0.01, 0.5, 0.8, 0.99):
        ordered = weights.double().sort(dim=-1, descending=True).values
        needed = (ordered.cumsum(-1) - ordered < top_p * ordered.sum(-1, keepdim=True)).sum(-1)
        kept = _nucleus(weights, top_p)
        assert (kept > 0).sum(-1)[:5].tolist() == needed[:5].tolist()
        assert (kept > 0).sum(-1)[5] == 1000, "equals stay together"
        assert torch.equal(kept[kept > 0], weights[kept > 0])
        assert (kept.amax(-1) == weights.amax(-1)).all()


def test_the_largest_draw_takes_a_possible_token() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]])
    largest = torch.tensor([1 - 2**-24]) * (1 - 1e-6)
    assert int(chosen_tokens(logits, WARM, largest)) == 1


def test_random_numbers_belong_to_seed_and_index() -> None:
    one = uniforms([Prefix([1], 5, range(3), 10), Prefix([1], 6, range(1), 10)], 10)
    two = uniforms([Prefix([1, 2], 6, range(2), 10), Prefix([1], 5, [2], 10)], 20)
    assert torch.equal(one[3], two[0, :10])
    assert torch.equal(one[2], two[2, :10])
    assert len({float(row[0]) for row in one}) == 4
    assert 0 <= float(one.min()) <= float(one.max()) < 1


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(1, 30)), max_size=20), st.integers(1, 300))
def test_batches_hold_every_text_once_and_keep_to_the_budget(sizes: list[tuple[int, int, int]], budget: int) -> None:
    work = [Prefix([0] * length, 0, range(n), limit) for length, n, limit in sizes]
    cut = list(batches(work, budget))
    assert cut == list(batches(work, budget))
    found = Counter((place, index) for batch in cut for place, indices in batch for index in indices)
    assert found == Counter((place, index) for place, (_, n, _) in enumerate(sizes) for index in range(n))
    for batch in cut:
        widest = max(len(work[place].ids) for place, _ in batch) + max(work[place].max_tokens for place, _ in batch)
        assert rows_of(batch) * widest <= budget or rows_of(batch) == 1
        assert tokens_of(work, batch) == rows_of(batch) * widest


@pytest.fixture
def narrow_memory() -> Iterator[list[int]]:
    """A machine on which more than five rows at once run out of memory."""
    sizes: list[int] = []

    def refuse(module: Any, args: Any, kwargs: Any) -> None:
        if "input_ids" in kwargs and "attention_mask" in kwargs:
            sizes.append(len(kwargs["input_ids"]))
            if sizes[-1] > limit[0]:
                raise torch.OutOfMemoryError("full")

    limit = [5]
    before = torch.nn.Module.__call__

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse(self, args, kwargs)
        return before(self, *args, **kwargs)

    torch.nn.Module.__call__ = watched  # type: ignore[assignment, method-assign]
    yield limit
    torch.nn.Module.__call__ = before  # type: ignore[method-assign]


def said(ctx: Any) -> list[str]:
    return [event["message"] for event in ctx.events if event["event"] == "say"]


def test_batches_that_do_not_fit_are_halved_and_this_is_remembered_and_told(
    base: Path, narrow_memory: list[int], tmp_path: Path
) -> None:
    """For the rest of the stage, and by whoever goes on with it after a kill."""
    blocks = [requests(4, n=3), requests(5, n=2)]
    narrow_memory[0] = 1000
    expected = [texts(ENGINE, base, block, WARM) for block in blocks]
    narrow_memory[0] = 5
    ctx = context(tmp_path)
    found = ENGINE.generate(base, blocks, WARM, ctx)
    assert next(found) == expected[0]
    halvings = len(said(ctx))
    assert 1 <= halvings <= 2, "12 rows, 6 and 3"
    assert all("tokens at once do not fit into memory" in line for line in said(ctx))
    assert list(found) == [expected[1]]
    assert len(said(ctx)) == halvings + 1, "no later block meets it again, and the end tells"
    assert said(ctx)[-1] == ctx.tally.metrics["at_once"]
    assert "4,096 did not fit into memory; engine.batch_tokens=" in said(ctx)[-1]
    again = context(tmp_path)
    assert list(ENGINE.generate(base, blocks, WARM, again)) == expected
    assert len(said(again)) == 1, "only what is told at the end"
    narrow_memory[0] = 0
    with pytest.raises(UserError, match="one text alone"):
        next(ENGINE.generate(base, blocks, WARM, context(tmp_path / "elsewhere")))


def test_an_adapter_is_generated_from_in_the_format_it_was_trained_in(base: Path, tmp_path: Path) -> None:
    trainer = TrlTrainer(method="lora", r=4, alpha=64, precision="fp32", prompt_format="inst")
    # at a rate of 3e-2 this training is at the edge of stability, and whether it learns depends on the processor
    config = Sft(learning_rate=1e-2, batch_size=4, epochs=12, max_length=64)
    rows = [row.model_copy(update={"completion": "stone"}) for row in completions(4)]
    trainer.sft(str(base), rows, config, tmp_path, context(tmp_path))
    block = [Generate(key="a", prompt="Write 1", seed=0, max_tokens=12)]
    assert texts(ENGINE, tmp_path, block, GREEDY)[0].text == "stone"


def test_all_end_tokens_of_a_model_end_a_text(base: Path) -> None:
    loaded = load(base, "fp32", "cpu")
    loaded.model.generation_config.eos_token_id = [1, 17]
    assert end_tokens(loaded.tokenizer, loaded.model.generation_config) == [1, 17]
