"""Training rows as token ids, and the rows that cannot be trained on, counted by cause.

TRL can tokenise too, but it tokenises prompt and completion together, cuts what is too long and drops in silence what
is left without a label (STACK notes on TRL 1.16). Here a row over the limit is left out whole and counted: a completion
without its end would teach the model not to stop, and a pair cut to equal texts would teach nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from speed.backends.alignment.tokens import token_ids
from speed.backends.generator.prompt_format import FormatName
from speed.core.errors import UserError
from speed.ports import Completion, Preference
from speed.runtime import Context

IGNORED = -100
"""Label of a token that carries no loss."""


def sft_rows(
    rows: Sequence[Completion], name: FormatName, tokenizer: Any, max_length: int, ctx: Context
) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each usable row; labels are the completion and its one EOS.

    Raises:
        UserError: when fewer than two rows are usable.
    """
    usable = []
    for prompt, completion in token_ids(rows, name, tokenizer, ctx):
        cause = _cause(prompt, [completion], max_length, tokenizer.eos_token_id)
        if cause:
            ctx.tally.rejected[cause] += 1
        else:
            usable.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
    return _enough(usable, len(rows), ctx.tally.rejected, max_length)


def dpo_rows(
    rows: Sequence[Preference], name: FormatName, tokenizer: Any, max_length: int, ctx: Context
) -> list[dict[str, list[int]]]:
    """`prompt_ids`, `chosen_ids` and `rejected_ids` of each usable pair, each answer with its one EOS.

    Raises:
        UserError: when fewer than two pairs are usable.
    """
    usable = []
    for prompt, chosen, worse in token_ids(rows, name, tokenizer, ctx):
        cause = _cause(prompt, [chosen, worse], max_length, tokenizer.eos_token_id)
        if cause is None and chosen == worse:
            cause = "chosen_equals_rejected"
        if cause:
            ctx.tally.rejected[cause] += 1
        else:
            usable.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": worse})
    return _enough(usable, len(rows), ctx.tally.rejected, max_length)


def _cause(prompt: list[int], completions: list[list[int]], max_length: int, eos: int) -> str | None:
    if any(len(completion) < 2 for completion in completions):
        return "empty_completion"
    if any(completion.index(eos) != len(completion) - 1 for completion in completions):
        return "eos_inside"
    if any(len(prompt) + len(completion) > max_length for completion in completions):
        return "over_max_length"
    return None


def _enough(
    usable: list[dict[str, list[int]]], given: int, rejected: Counter[str], max_length: int
) -> list[dict[str, list[int]]]:
    if len(usable) >= 2:
        return usable
    lost = ", ".join(f"{count} {cause}" for cause, count in sorted(rejected.items())) or "none turned away"
    raise UserError(
        f"a training needs at least two usable rows; of {given} given there are {len(usable)} ({lost})\n"
        f"  ask for more data, or raise max_length (now {max_length} tokens) if rows are too long"
    )
