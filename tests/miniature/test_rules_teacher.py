"""The rules behind litellm give the same answers, and their settings are part of the journal keys."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from speed.core.errors import UserError
from speed.core.store import Store
from speed.data.prompts.rendering import PromptsConfig, brainstorm_prompt
from speed.data.records import Kind
from speed.miniature.rules import answer_prompt
from speed.miniature.teacher import UNKNOWN, RulesTeacher
from speed.miniature.world import world
from speed.ports import Answer, Ask, Check
from speed.runtime import Context, Runtime

KNOWN = brainstorm_prompt(Kind.RETRIEVAL, world().half("train")[0].topic, 5, PromptsConfig(), random.Random(0)).text
FOREIGN = brainstorm_prompt(Kind.RETRIEVAL, "Business/Accounting", 5, PromptsConfig(), random.Random(0)).text


def accepted(text: str) -> str | None:
    return None


def asked(prompts: Iterable[str], index: int = 0) -> list[tuple[Ask, Check]]:
    wanted = [Ask(prompt=p, temperature=1.0, max_tokens=512, purpose="brainstorm", index=index) for p in prompts]
    return [(ask, accepted) for ask in wanted]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(store=Store(tmp_path), runtime=Runtime(home=tmp_path))


def answers(teacher: RulesTeacher, prompts: Iterable[str], ctx: Context, index: int = 0) -> list[Answer]:
    return list(teacher.ask(asked(prompts, index), ctx))


def test_answers_come_through_litellm_and_once(ctx: Context) -> None:
    first = answers(RulesTeacher(), [KNOWN, FOREIGN], ctx)
    assert first[0].text == answer_prompt(KNOWN, seed=(0, [0, 0]))
    assert (first[0].cause, first[0].finish_reason) == ("ok", "stop")
    assert (ctx.tally.cost["calls"], ctx.tally.dollars) == (2, 0.0)
    assert answers(RulesTeacher(), [KNOWN, FOREIGN], ctx) == first
    assert (ctx.tally.cost["calls"], ctx.tally.cost["cached"]) == (2, 2)


def test_an_unknown_topic_is_said_for_each_record(ctx: Context) -> None:
    found = answers(RulesTeacher(), [KNOWN, FOREIGN, KNOWN], ctx)
    assert [each.detail for each in found] == ["", UNKNOWN, ""]
    assert ctx.tally.counts["topics_unknown_to_teacher"] == 1


def test_sample_index_and_seed_give_other_answers(ctx: Context) -> None:
    texts = {
        answers(RulesTeacher(), [KNOWN], ctx)[0].text,
        answers(RulesTeacher(), [KNOWN], ctx, index=1)[0].text,
        answers(RulesTeacher(seed=1), [KNOWN], ctx)[0].text,
    }
    assert len(texts) == 3
    assert ctx.tally.cost["calls"] == 3


def test_each_setting_is_identity() -> None:
    teachers = [RulesTeacher(), RulesTeacher(error_rate=0.2), RulesTeacher(length_bias=0.0), RulesTeacher(seed=1)]
    assert len({json.dumps(teacher.recipe()) for teacher in teachers}) == 4
    calls = [teacher._call(asked([KNOWN])[0][0], 0, 512) for teacher in teachers]
    assert len({call.key for call in calls}) == 4


def test_an_answer_that_is_too_long_is_cut(ctx: Context) -> None:
    ask = Ask(prompt=KNOWN, temperature=1.0, max_tokens=10, purpose="brainstorm")
    found = next(iter(RulesTeacher(content_retries=0).ask([(ask, accepted)], ctx)))
    assert (found.cause, found.tokens_out, len(found.text)) == ("truncated", 10, 40)


def test_a_prompt_that_the_rules_cannot_read_ends_the_run(ctx: Context) -> None:
    with pytest.raises(UserError, match="none of the project's prompts"):
        answers(RulesTeacher(), ["What is the capital of France?"], ctx)
