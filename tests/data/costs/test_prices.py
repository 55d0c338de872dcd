"""Prices, and the paper's costs computed from them."""

from __future__ import annotations

import pytest

from speed.data.costs.prices import EXPECTED_TOKENS, dollars, estimated_tokens, price, price_table

LIST_PRICES = {
    "gpt-4o-2024-05-13": (5, 15), "gpt-4o": (2.5, 10), "gpt-4o-2024-08-06": (2.5, 10), "gpt-4o-mini": (0.15, 0.6),
    "gpt-4.1": (2, 8), "gpt-4.1-mini": (0.4, 1.6), "gpt-5": (1.25, 10), "gpt-5-mini": (0.25, 2), "gpt-4-0613": (30, 60),
    "gpt-4-turbo": (10, 30), "gpt-3.5-turbo": (0.5, 1.5),
    "text-embedding-3-large": (0.13, 0), "text-embedding-3-small": (0.02, 0), "text-embedding-ada-002": (0.1, 0),
}  # fmt: skip

# Table 5's calls, and their tokens in and out split as the lengths of the prompts and answers give it.
ALIGNMENT = {"seed": (25_000, 6_100_000, 3_900_000), "judge": (10_000, 11_000_000, 1_000_000),
             "revise": (10_000, 6_200_000, 3_800_000)}  # fmt: skip
DOLLARS = {"seed": (89, 45, 54), "judge": (70, 35, 38), "revise": (88, 44, 54)}
"""At gpt-4o-2024-05-13, the same in batches, at gpt-4o-2024-08-06; rounded."""


def test_list_prices_and_their_date() -> None:
    table = price_table()
    assert {name: (known.input, known.output) for name, known in table.models.items()} == LIST_PRICES
    assert table.date > "2026"
    assert "litellm" in table.source


def test_batches_cost_half() -> None:
    for name, known in price_table().models.items():
        if known.batch_input is not None:
            assert dollars(name, 10**6, 10**6, batch=True) == pytest.approx((known.input + known.output) / 2)
    assert dollars("gpt-4-turbo", 1, 1, batch=True) is None


def test_what_plans_expect_of_a_call_adds_up_to_table_5() -> None:
    for purpose, (calls, ask, answer) in ALIGNMENT.items():
        assert tuple(calls * tokens for tokens in EXPECTED_TOKENS[purpose]) == (ask, answer)
    tokens = {purpose: ask + answer for purpose, (_, ask, answer) in ALIGNMENT.items()}
    assert tokens == {"seed": 10_000_000, "judge": 12_000_000, "revise": 10_000_000}
    assert sum(calls for calls, _, _ in ALIGNMENT.values()) == 45_000


@pytest.mark.parametrize("purpose", list(ALIGNMENT))
def test_dollars_of_the_alignment(purpose: str) -> None:
    _, ask, answer = ALIGNMENT[purpose]
    at = (
        dollars("gpt-4o-2024-05-13", ask, answer), dollars("gpt-4o-2024-05-13", ask, answer, batch=True),
        dollars("openai/gpt-4o-2024-08-06", ask, answer),
    )  # fmt: skip
    assert at == pytest.approx(DOLLARS[purpose], abs=0.6)


def test_total_and_bounds() -> None:
    spent = [dollars("gpt-4o-2024-05-13", ask, answer) for _, ask, answer in ALIGNMENT.values()]
    assert sum(filter(None, spent)) == pytest.approx(247, abs=0.6)
    assert dollars("gpt-4o-2024-05-13", 32_000_000, 0) == 160
    assert dollars("gpt-4o-2024-05-13", 0, 32_000_000) == 480


def test_what_is_not_known_is_none_and_what_runs_here_is_free() -> None:
    assert dollars("somebody/else", 10, 10) is None
    assert dollars("azure/gpt-4o", 10, 10) is None
    assert price("gpt-4o-2099-01-01") is None
    assert dollars("miniature/rules", 10**9, 10**9) == 0


def test_estimated_tokens() -> None:
    assert [estimated_tokens("a" * length) for length in (0, 1, 4, 5, 9, 450)] == [0, 1, 1, 2, 2, 100]
