"""The longest answer that a prompt for an example can ask for, in tokens: limits follow from it."""

from __future__ import annotations

from speed.data.prompts.rendering import PromptsConfig
from speed.data.quality.guidelines import PHRASE_WORDS, SHORT_TEXT_WORDS, word_bounds
from speed.data.records import KEYS, Kind

UNIT_WORDS = {"phrase": PHRASE_WORDS, "sentence": 40}
"""Words of a text of STS; no prompt says how long (ours)."""
PASSAGE_WORDS = 150
"""Words of a passage of STS, or of whatever other unit is asked for (ours)."""
TOKENS_A_WORD = 2
"""A word of English is about 1.35 tokens; the rest is room for whoever writes more than was asked for (ours)."""
FEWEST = 256
"""Fewer tokens are not worth a limit (ours)."""


def longest_answer(kind: Kind, prompts: PromptsConfig) -> int:
    """Tokens for the longest texts of a kind that a prompt can ask for, as a power of two."""
    texts = 1 if kind is Kind.CLASSIFICATION else len(KEYS[kind].all) - (kind is Kind.RETRIEVAL)
    tokens = TOKENS_A_WORD * texts * _words(kind, prompts)
    return max(FEWEST, 1 << (tokens - 1).bit_length())


def _words(kind: Kind, prompts: PromptsConfig) -> int:
    """Most words of one long text of a kind; a query or label beside it is short."""
    match kind:
        case Kind.RETRIEVAL:
            return max(prompts.lengths.retrieval_words)
        case Kind.CLASSIFICATION:
            return max(
                max(least, most or 0) for least, most in map(word_bounds, prompts.lengths.classification_words.values)
            )
        case Kind.STS:
            return max(UNIT_WORDS.get(unit, PASSAGE_WORDS) for unit in prompts.unit.values)
        case Kind.SHORT_SHORT:
            return SHORT_TEXT_WORDS
        case Kind.LONG_LONG:
            return prompts.lengths.long_words
