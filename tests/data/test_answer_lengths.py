"""Limits follow from what the prompts ask for, and leave room for it."""

from __future__ import annotations

from typing import Any

import pytest

from speed.data.answer_lengths import longest_answer
from speed.data.prompts.rendering import Choices, Lengths, PromptsConfig
from speed.data.records import Kind


def test_the_papers_prompts() -> None:
    found = {kind: longest_answer(kind, PromptsConfig()) for kind in Kind}
    assert found == {"retrieval": 2048, "classification": 512, "sts": 1024, "short_short": 256, "long_long": 2048}


def test_other_lengths_and_units_have_other_limits() -> None:
    longer = PromptsConfig(
        lengths=Lengths(
            retrieval_words=(50, 900), classification_words=Choices(values=("at least 400",)), long_words=900
        ),
        unit=Choices(values=("sentence", "phrase")),
    )
    found = {kind: longest_answer(kind, longer) for kind in Kind}
    assert found == {"retrieval": 4096, "classification": 1024, "sts": 256, "short_short": 256, "long_long": 4096}


@pytest.mark.parametrize("preset", ["paper", "one_gpu", "laptop"])
def test_a_preset_leaves_room_for_what_it_asks(compose: Any, preset: str) -> None:
    config = compose(f"preset={preset}")
    assert {
        kind: limit >= longest_answer(kind, config.prompts) for kind, limit in config.longest.items()
    } == dict.fromkeys(Kind, True)


def test_a_limit_by_name_wins(compose: Any) -> None:
    config = compose("preset=paper", "limits.example.sts=300")
    assert config.longest[Kind.STS] == 300
    assert config.longest[Kind.RETRIEVAL] == 2048
