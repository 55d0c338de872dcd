"""Tokens of a call to a teacher, counted on prompts that are rendered as they will be sent.

What a model has yet to write stands in the prompts of judges and revisors as a text of the length that was asked for.
Table 5 of the paper gives the tokens of its own calls; a plan shows them beside these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from statistics import fmean

from speed.data.costs.prices import estimated_tokens
from speed.data.draws import generator
from speed.data.mix import Mix
from speed.data.prompts.rendering import (
    BRAINSTORMED,
    PromptsConfig,
    brainstorm_prompt,
    data_prompt,
    graded_prompt,
    judge_prompt,
    relevance_prompt,
    revise_prompt,
)
from speed.data.quality.guidelines import word_bounds
from speed.data.records import KEYS, LEVELS, Kind

PAPER = {"seed": 10_000_000 / 25_000, "judge": 12_000_000 / 10_000, "revise": 10_000_000 / 10_000}
"""Tokens of a call, input and output together, as the paper's Table 5 has them; it leaves out brainstorming."""
EACH = 60
"""Prompts of a kind that are rendered: enough for a mean within a few percent."""
TASK_TOKENS = 25
"""Of a brainstormed task (ours)."""
REASON_TOKENS = {"judge": 80, "revise": 150, "relevance": 50}
"""Of what a teacher says before its verdict or its revision (ours)."""
WORDS = {"sentence": 16, "phrase": 6, "passage": 80, "query": 8, "label": 3, "short text": 12}
"""Words of texts for which a prompt gives no number (ours)."""
TOPIC = "Arts/Movies/Titles/Cast_and_Crew"
TASK = "Given a question about the cast and crew of a movie, retrieve documents that answer it."


@lru_cache(maxsize=64)
def call_tokens(
    purpose: str, prompts: PromptsConfig, mix: Mix, candidates: int = 1, request: int = 5
) -> tuple[int, int]:
    """(input, output) tokens of a call, as a mean over the kinds of the mix.

    Args:
        purpose: what the ledger calls it; `revision` is `revise` without the reason before it.
        candidates: answers in a list that is judged.
        request: tasks that a brainstorm call asks for.
    """
    about = {"brainstorm": BRAINSTORMED, "graded": (Kind.RETRIEVAL,)}.get(purpose, mix.kinds)
    kinds = [kind for kind in mix.kinds if kind in about]
    weights = {kind: mix.weights[kind] / EACH / sum(mix.weights[each] for each in kinds) for kind in kinds}
    tokens_in = tokens_out = 0.0
    for kind, weight in weights.items():
        for row in range(EACH):
            asked, answered = _one(purpose, kind, row, prompts, candidates, request)
            tokens_in, tokens_out = tokens_in + weight * asked, tokens_out + weight * answered
    return round(tokens_in), round(tokens_out)


def _one(purpose: str, kind: Kind, row: int, prompts: PromptsConfig, candidates: int, request: int) -> tuple[int, int]:
    rng = generator(0, "tokens of a call", kind, row)
    if purpose == "brainstorm":
        return estimated_tokens(brainstorm_prompt(kind, TOPIC, request, prompts, rng).text), request * TASK_TOKENS
    prompt = data_prompt(kind, TASK, TOPIC, prompts, rng)
    answer = stand_in(kind, prompt.slots)
    match purpose:
        case "judge":
            text = judge_prompt(prompt.text, [answer] * candidates, prompts).text
            return estimated_tokens(text), REASON_TOKENS["judge"]
        case "relevance":
            query, *documents = json.loads(answer).values()
            text = relevance_prompt(TASK, query, documents[0], documents[-1], prompts).text
            return estimated_tokens(text), REASON_TOKENS["relevance"]
        case "graded":
            query, document, *_ = json.loads(answer).values()
            text = graded_prompt(TASK, query, len(document.split()), prompts).text
            return estimated_tokens(text), len(LEVELS) * estimated_tokens(document)
        case "revise" | "revision":
            text = revise_prompt(prompt.text, answer, prompts).text
            return estimated_tokens(text), REASON_TOKENS.get(purpose, 0) + estimated_tokens(answer)
    return estimated_tokens(prompt.text), estimated_tokens(answer)


def stand_in(kind: Kind, slots: Mapping[str, str]) -> str:
    """An answer of the length that a prompt with these slots asks for."""
    least, most = word_bounds(slots.get("num_words", ""))
    asked = least if most is None else round(fmean((least, most)))
    words = {
        Kind.RETRIEVAL: (WORDS["query"], asked, asked),
        Kind.CLASSIFICATION: (asked, WORDS["label"], WORDS["label"]),
        Kind.STS: (WORDS.get(slots.get("unit", ""), WORDS["passage"]),) * 3,
        Kind.SHORT_SHORT: (WORDS["short text"],) * 2,
        Kind.LONG_LONG: (asked,) * 2,
    }[kind]
    return json.dumps({key: " ".join(["words"] * count) for key, count in zip(KEYS[kind].all, words, strict=True)})
