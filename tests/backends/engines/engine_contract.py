"""What every engine promises, whatever writes the texts: run over each of them by the engine's own test file.

A promise is a function of (engine, folder of a tiny base model, empty folder); the engine computes in fp32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_generator import context

from speed.backends.engines.prompt_format import prompt_format
from speed.backends.engines.weights import CARD, WeightsCard, load, write_card
from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.ports import Engine, FormatName, Generate, Generated, Sampling

WARM = Sampling(temperature=1.0)
GREEDY = Sampling(temperature=0.0)

Promise = Callable[[Engine, Path, Path], None]


def requests(count: int, n: int = 1, max_tokens: int = 24) -> list[Generate]:
    """Requests of unlike lengths, each with a seed of its own."""
    return [
        Generate(key=str(i), prompt="Write " + "more " * (i % 5), seed=100 * i, n=n, max_tokens=max_tokens)
        for i in range(count)
    ]


def texts(engine: Engine, weights: Path, block: list[Generate], sampling: Sampling) -> list[Generated]:
    """The texts of one block."""
    return next(engine.generate(weights, [block], sampling, context(weights)))


def adapter_of(base: Path, payload: Path, layout: FormatName = "inst") -> Path:
    """A payload of the store: a random adapter of the base, and its card."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    loaded = load(base, "fp32", "cpu", for_training=True)
    model = get_peft_model(loaded.model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(payload / "model")
    loaded.tokenizer.save_pretrained(payload / "model")
    layout_now = prompt_format(layout, loaded.tokenizer)
    card = WeightsCard(base=str(base), base_sha256=sha256_of(base), adapter=True, prompt_format=layout_now)
    write_card(payload, card)
    return payload


def texts_come_by_request_and_index(engine: Engine, base: Path, empty: Path) -> None:
    """Also where no prompt of a block is like the others."""
    found = texts(engine, base, requests(9, n=2), WARM)
    assert [(text.key, text.index) for text in found] == [(str(i), j) for i in range(9) for j in range(2)]


def a_block_generated_again_is_the_same(engine: Engine, base: Path, empty: Path) -> None:
    """Resumed, it comes first; undisturbed, after another block from the same model."""
    before, block = requests(5, n=3), requests(7, n=2)[::-1]
    undisturbed = list(engine.generate(base, [before, block], WARM, context(empty)))[1]
    assert texts(engine, base, block, WARM) == undisturbed


def a_text_depends_on_its_request_alone(engine: Engine, base: Path, empty: Path) -> None:
    """Not on its place, on its neighbours or on how many candidates are wanted."""
    block = requests(9, n=2)
    more = [request.model_copy(update={"n": 3}) for request in block]
    blocks = [block, block[::-1], block[3:5], more, [block[0].model_copy(update={"seed": 7})]]
    together, backwards, few, three, reseeded = engine.generate(base, blocks, WARM, context(empty))
    assert sorted(map(str, backwards)) == sorted(map(str, together))
    assert few == together[6:10]
    assert [text for text in three if text.index < 2] == together
    assert len({text.text for text in three}) > 20, "candidates differ"
    assert reseeded[0].text != together[0].text


def blocks_are_answered_one_by_one_from_one_model(engine: Engine, base: Path, empty: Path) -> None:
    """A call is read when the one before has been answered, and it may be empty."""
    asked = []

    def calls() -> Iterator[list[Generate]]:
        for block in (requests(3), [], requests(5)):
            asked.append(len(block))
            yield block

    ctx = context(empty)
    answers = engine.generate(base, calls(), WARM, ctx)
    assert len(next(answers)) == 3
    assert asked == [3]
    assert [len(block) for block in answers] == [0, 5]
    last = ctx.events[-1]  # type: ignore[attr-defined]
    assert last["step"] == 8
    assert last["figures"]["tokens_per_second"] > 0


def a_text_ends_at_its_end_token_or_its_limit(engine: Engine, base: Path, empty: Path) -> None:
    """The limits are those of each request."""
    block = [request.model_copy(update={"max_tokens": 5 + i * 40}) for i, request in enumerate(requests(6, n=8))]
    found = texts(engine, base, block, WARM)
    limits = {request.key: request.max_tokens for request in block}
    reasons = Counter(text.finish_reason for text in found)
    assert reasons["stop"] > 5
    assert reasons["length"] > 5
    for text in found:
        assert text.tokens <= limits[text.key]
        assert text.finish_reason == "stop" or text.tokens == limits[text.key]
        assert "</s>" not in text.text


def a_prompt_that_fills_the_context_gets_no_text(engine: Engine, base: Path, empty: Path) -> None:
    """One is said, a whole block of them is refused."""
    full = Generate(key="full", prompt="x y " * 400, seed=0, n=2)
    with pytest.raises(UserError, match="context of 512"):
        texts(engine, base, [full], GREEDY)
    near = Generate(key="near", prompt="x" * 490, seed=0, max_tokens=500)
    ctx = context(empty)
    found = next(engine.generate(base, [[full, near]], GREEDY, ctx))
    assert [(text.key, text.text, text.finish_reason) for text in found[:2]] == [("full", "", "length")] * 2
    assert 0 < found[2].tokens < 30
    assert "1 prompts fill" in ctx.events[0]["message"]  # type: ignore[attr-defined]


def long_prompts_do_not_disturb_one_another(engine: Engine, base: Path, empty: Path) -> None:
    """More of them than any engine here computes in one pass."""
    long = [f"{i} " + "x y " * (40 + i) for i in range(8)]
    block = [request.model_copy(update={"prompt": text}) for request, text in zip(requests(8, n=2), long, strict=True)]
    together, alone = engine.generate(base, [block, block[5:6]], WARM, context(empty))
    assert together[10:12] == alone


def what_an_answer_has_begun_with_is_its_context(engine: Engine, base: Path, empty: Path) -> None:
    """It is not repeated, and changes what follows."""
    block = requests(3)
    begun = [request.model_copy(update={"begun": '{"input": "one'}) for request in block]
    plain, continued = engine.generate(base, [block, begun], GREEDY, context(empty))
    assert [text.text for text in plain] != [text.text for text in continued]
    assert not any(text.text.startswith('{"input": "one') for text in continued)


def an_adapter_changes_the_text(engine: Engine, base: Path, empty: Path) -> None:
    """It is merged into its base."""
    block = requests(4)
    adapted = texts(engine, adapter_of(base, empty, "plain"), block, GREEDY)
    assert [text.text for text in adapted] != [text.text for text in texts(engine, base, block, GREEDY)]


def another_prompt_format_than_the_trained_one_is_refused(engine: Engine, base: Path, empty: Path) -> None:
    """The same name may stand for another layout today."""
    file = adapter_of(base, empty) / CARD
    file.write_text(file.read_text().replace('"inst"', '"released"'))
    with pytest.raises(UserError, match="another layout"):
        texts(engine, empty, requests(1), GREEDY)


def a_missing_model_is_told_in_one_message(engine: Engine, base: Path, empty: Path) -> None:
    """And so is a folder without one."""
    with pytest.raises(UserError, match="there is no base model"):
        texts(engine, Path("no such folder/at/all"), requests(1), GREEDY)
    with pytest.raises(UserError, match="cannot be loaded"):
        texts(engine, empty, requests(1), GREEDY)


PROMISES: list[Promise] = [
    texts_come_by_request_and_index,
    a_block_generated_again_is_the_same,
    a_text_depends_on_its_request_alone,
    blocks_are_answered_one_by_one_from_one_model,
    a_text_ends_at_its_end_token_or_its_limit,
    a_prompt_that_fills_the_context_gets_no_text,
    long_prompts_do_not_disturb_one_another,
    what_an_answer_has_begun_with_is_its_context,
    an_adapter_changes_the_text,
    another_prompt_format_than_the_trained_one_is_refused,
    a_missing_model_is_told_in_one_message,
]
