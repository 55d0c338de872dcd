"""Training rows as token ids: tokenised once, kept by content; rows that cannot be trained on are counted by cause.

    <home>/cache/tokens/<key>/ids.npy       ids of all texts, one after the other
                              starts.npy    where each text starts, and where the last one ends

TRL can tokenise too, but it tokenises prompt and completion together (a token may span both), cuts what is too long and
silently drops what is left without a label. Here a row over the limit is left out whole and counted: a completion
without its end would teach the model not to stop, and a pair cut to equal texts would teach nothing.

Ids depend on the texts, their layout and the tokenizer, and on nothing that a training varies: the points of a sweep
over beta, loss, learning rate, length or seed read what the first one made, and of several ranks one makes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.backends.engines.prompt_format import completion_ids, prompt_format, prompt_ids
from speed.core.cache import make_once
from speed.core.errors import UserError
from speed.core.spec import Json, digest
from speed.data.trainings import Completion, Preference
from speed.ports import FormatName
from speed.runtime import Context

LAYOUT = 2
"""Version of the folder's files."""
IGNORED = -100
"""Label of a token that carries no loss."""

Ids = list[int]


def sft_rows(
    rows: Sequence[Completion], name: FormatName, tokenizer: Any, max_length: int, ctx: Context
) -> list[dict[str, Ids]]:
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
) -> list[dict[str, Ids]]:
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


def token_ids(
    rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any, ctx: Context
) -> Iterator[list[Ids]]:
    """Ids of each row: its prompt with what both answers begin with, then its answers, each with its one EOS."""
    if not rows:
        return
    answers = 1 if isinstance(rows[0], Completion) else 2
    is_fast = getattr(tokenizer, "backend_tokenizer", None) is not None  # others are code, which no key can stand for
    arrays = _kept_ids(rows, name, tokenizer, ctx) if is_fast else _tokenised(rows, name, tokenizer, ctx)
    ids, starts = (array.tolist() for array in arrays)
    for first in range(0, len(starts) - 1, answers + 1):
        yield [ids[starts[text] : starts[text + 1]] for text in range(first, first + answers + 1)]


def recipe(rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any) -> list[Json]:
    """All that the ids depend on."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    template = str(tokenizer.chat_template) if name == "chat" else ""
    layout = [prompt_format(name, tokenizer).model_dump(), template]
    makers = [version("tokenizers"), version("transformers")]
    texts = digest([row.model_dump() for row in rows])
    return [LAYOUT, makers, digest(backend.to_str()), layout, texts]


def _kept_ids(
    rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any, ctx: Context
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids, starts) from the cache, made first where they are missing or damaged."""

    def make(folder: Path) -> None:
        ids, starts = _tokenised(rows, name, tokenizer, ctx)
        np.save(folder / "ids.npy", ids)
        np.save(folder / "starts.npy", starts)

    folder = make_once(ctx.store.home / "cache" / "tokens" / digest(recipe(rows, name, tokenizer))[:20], make)
    return np.load(folder / "ids.npy", allow_pickle=False), np.load(folder / "starts.npy", allow_pickle=False)


def _tokenised(
    rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any, ctx: Context
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids, starts), made now."""
    texts: list[NDArray[np.int32]] = []
    for done, row in enumerate(rows, 1):
        begun, answers = (
            ("", [row.completion]) if isinstance(row, Completion) else (row.begun, [row.chosen, row.rejected])
        )
        prompt = prompt_ids(row.prompt, name, tokenizer, begun)
        texts += [np.array(ids, np.int32) for ids in (prompt, *(completion_ids(text, tokenizer) for text in answers))]
        ctx.progress(done, len(rows), "rows read")
    return np.concatenate(texts), np.cumsum([0, *map(len, texts)])


def _cause(prompt: Ids, completions: list[Ids], max_length: int, eos: int) -> str | None:
    """Why a row cannot be trained on; None where it can."""
    if any(len(completion) < 2 for completion in completions):
        return "empty_completion"
    if any(completion.index(eos) != len(completion) - 1 for completion in completions):
        return "eos_inside"
    if any(len(prompt) + len(completion) > max_length for completion in completions):
        return "over_max_length"
    return None


def _enough(usable: list[dict[str, Ids]], given: int, rejected: Counter[str], max_length: int) -> list[dict[str, Ids]]:
    """The usable rows.

    Raises:
        UserError: when they are fewer than two.
    """
    if len(usable) >= 2:
        return usable
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(rejected.items())) or "none rejected"
    raise UserError(
        f"a training needs at least two usable rows; of {given} given there are {len(usable)} ({causes})\n"
        f"  ask for more data, or raise max_length (now {max_length} tokens) if rows are too long"
    )
