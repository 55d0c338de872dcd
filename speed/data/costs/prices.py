"""Prices of teacher calls, from a dated table in this repository, and the tokens that a call is expected to need.

Prices change and models are switched off, so the table names its source and date. A price that is not in it is None:
never 0, and never a guess.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from speed.core.spec import Spec

CHARACTERS_PER_TOKEN = 4.5
"""For English prose and the tokenizers of GPT-4 and LLaMA-3, within about 10 %."""

EXPECTED_TOKENS = {"brainstorm": (280, 125), "seed": (244, 156), "judge": (1_100, 100), "revise": (620, 380)}
"""(input, output) tokens of a call of the paper's, for the time and memory of small models. The sums are
those of the paper's Table 5 (10M tokens in 25K calls, 12M
in 10K, 10M in 10K; without brainstorming); they are split by the lengths of the released prompts (ours)."""

SECONDS_A_CALL, SECONDS_A_TOKEN = 1.0, 1 / 60
"""Seconds before a hosted model writes, and for each token of its answer (ours: an assumption for plans)."""
RULES_SECONDS = 0.01
"""Seconds for a call of the miniature's rules through litellm (ours)."""

FREE = "miniature/"
"""Models with this prefix run inside this project and cost nothing."""


class Price(Spec):
    """List prices of a model, in dollars per million tokens."""

    input: float
    output: float
    batch_input: float | None = None
    """Price of the provider's batch API; None if the table has none."""
    batch_output: float | None = None
    ends: str | None = None
    """Day on which the provider switches the model off, if it is known."""


class PriceTable(Spec):
    """Prices of models on a day."""

    date: str
    """Date of the source, ISO 8601."""
    source: str
    models: dict[str, Price]


@lru_cache(maxsize=1)
def price_table() -> PriceTable:
    """Read the price table that comes with this version."""
    return PriceTable.model_validate_json((files("speed.data.costs") / "prices.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def price(model: str) -> Price | None:
    """List prices of a model; None if they are not known.

    The prefix of a provider is ignored for `openai/` only (`openai/gpt-4o`), since these are OpenAI's prices. Another
    provider may have other prices for the same name.
    """
    if model.startswith(FREE):
        return Price(input=0, output=0, batch_input=0, batch_output=0)
    return price_table().models.get(model.removeprefix("openai/"))


def dollars(model: str, tokens_in: int, tokens_out: int, batch: bool = False) -> float | None:
    """Cost of so many tokens in dollars; None if the price is not known."""
    known = price(model)
    if known is None:
        return None
    ask = known.batch_input if batch else known.input
    answer = known.batch_output if batch else known.output
    return None if ask is None or answer is None else (tokens_in * ask + tokens_out * answer) / 1_000_000


def estimated_tokens(text: str) -> int:
    """Estimated tokens of a text, without a tokenizer: characters / 4.5, rounded up."""
    return -int(-len(text) // CHARACTERS_PER_TOKEN)


def seconds(model: str, calls: int, tokens_out: int) -> float:
    """Seconds for so many calls one after another, by the assumptions above."""
    if model.startswith(FREE):
        return RULES_SECONDS * calls
    return SECONDS_A_CALL * calls + SECONDS_A_TOKEN * tokens_out
