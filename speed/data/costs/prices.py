"""What calls of the teacher cost: a vendored, dated price table, and the paper's own counts (Table 5).

Prices change and models vanish, so the table stands in the repository with source and date. A price that is not in it
is unknown: None, never 0 and never a guess.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from speed.core.spec import Spec

CHARACTERS_PER_TOKEN = 4.5
"""English prose under the tokenizers of GPT-4 and LLaMA-3, to about 10 %."""

EXPECTED_TOKENS = {"brainstorm": (280, 125), "seed": (244, 156), "judge": (1_100, 100), "revise": (620, 380)}
"""(input, output) of a call, for plans. Together they are the paper's Table 5 (10M tokens / 25K calls, 12M / 10K, 10M /
10K; it leaves brainstorming out), split by the lengths of the released prompts (ours)."""

SECONDS_A_CALL, SECONDS_A_TOKEN = 1.0, 1 / 60
"""How long a hosted model takes before it writes, and for each token of the answer (ours: an assumption for plans)."""
RULES_SECONDS = 0.01
"""The same for a call of the miniature's rules, litellm included (ours)."""

FREE = "miniature/"
"""Models that run inside this project cost nothing."""


class Price(Spec):
    """List prices of a model, dollars per million tokens."""

    input: float
    output: float
    batch_input: float | None = None
    """Through the provider's batch API; None where the table does not say."""
    batch_output: float | None = None
    ends: str | None = None
    """Day on which the provider switches the model off, where it is known."""


class PriceTable(Spec):
    """Prices by model, as of a day."""

    date: str
    """Of the source, ISO 8601."""
    source: str
    models: dict[str, Price]


@lru_cache(maxsize=1)
def price_table() -> PriceTable:
    """The table that comes with this version."""
    return PriceTable.model_validate_json((files("speed.data.costs") / "prices.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def price(model: str) -> Price | None:
    """List prices of a model, or None when they are not known.

    The provider in front (`openai/gpt-4o`) is left away only for `openai/`, whose prices these are: another provider
    may ask for others for the same name.
    """
    if model.startswith(FREE):
        return Price(input=0, output=0, batch_input=0, batch_output=0)
    return price_table().models.get(model.removeprefix("openai/"))


def dollars(model: str, tokens_in: int, tokens_out: int, batch: bool = False) -> float | None:
    """Cost of so many tokens, in dollars; None when the price is not known."""
    known = price(model)
    if known is None:
        return None
    ask = known.batch_input if batch else known.input
    answer = known.batch_output if batch else known.output
    return None if ask is None or answer is None else (tokens_in * ask + tokens_out * answer) / 1_000_000


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, before any tokenizer has seen it: characters / 4.5, at least 1 for any text."""
    return -int(-len(text) // CHARACTERS_PER_TOKEN)


def seconds(model: str, calls: int, tokens_out: int) -> float:
    """How long so many calls take one after another, by the assumptions above."""
    if model.startswith(FREE):
        return RULES_SECONDS * calls
    return SECONDS_A_CALL * calls + SECONDS_A_TOKEN * tokens_out
