"""Tokens of calls follow from the prompts, the mix and the lengths that are asked for."""

from __future__ import annotations

import pytest

from speed.data.answers.parse import parse_example
from speed.data.costs.call_tokens import PAPER, call_tokens, stand_in
from speed.data.costs.prices import estimated_tokens
from speed.data.draws import generator
from speed.data.mix import Mix
from speed.data.prompts.rendering import Lengths, PromptsConfig, data_prompt
from speed.data.records import Example, Kind

PROMPTS, MIX = PromptsConfig(), Mix()


def test_the_papers_numbers_are_those_of_table_5() -> None:
    assert PAPER == {"seed": 400, "judge": 1_200, "revise": 1_000}


def test_a_list_of_five_holds_five_answers_and_a_revision_one() -> None:
    written, answer = call_tokens("seed", PROMPTS, MIX)
    judged, _ = call_tokens("judge", PROMPTS, MIX, candidates=5)
    fewer, _ = call_tokens("judge", PROMPTS, MIX, candidates=2)
    assert judged - fewer == pytest.approx(3 * answer, rel=0.02)
    revised, revision = call_tokens("revise", PROMPTS, MIX)
    assert revised > written + answer
    assert revision > answer


def test_kinds_count_by_their_share_and_lengths_by_what_is_asked() -> None:
    short = Mix(retrieval=0, classification=0, sts=0, short_short=1, long_long=0)
    long = Mix(retrieval=0, classification=0, sts=0, short_short=0, long_long=1)
    both = Mix(retrieval=0, classification=0, sts=0, short_short=1, long_long=1)
    less, more, mean = (call_tokens("seed", PROMPTS, mix)[1] for mix in (short, long, both))
    assert mean == pytest.approx((less + more) / 2, abs=1)
    longer = PromptsConfig(lengths=Lengths(long_words=600))
    assert call_tokens("seed", longer, long)[1] == pytest.approx(2 * more, rel=0.05)
    assert call_tokens("brainstorm", PROMPTS, MIX, request=10)[1] == 2 * call_tokens("brainstorm", PROMPTS, MIX)[1]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_stand_in_is_an_answer(kind: Kind) -> None:
    prompt = data_prompt(kind, "t", "x", PROMPTS, generator(0))
    text = stand_in(kind, prompt.slots)
    assert isinstance(parse_example(kind, "t", text, "stop"), Example)
    assert estimated_tokens(text) > 10
