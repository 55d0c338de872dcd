"""Find the first field of an answer that breaks a guideline.

Step-DPO (Lai et al. 2024, arXiv 2406.18629) compares the first wrong step of a solution with a right one, after the
same right steps. A record is written field by field, so here the step is a field.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from speed.data.answers.parse import parse_example
from speed.data.quality.guidelines import faults
from speed.data.records import Prompt, Rejected


class Broken(NamedTuple):
    """An answer, cut at its first faulty field."""

    begun: str
    """Text up to the colon behind the key of the faulty field; it breaks no guideline."""
    rest: str
    """The faulty value and all text behind it."""
    cause: str
    """The broken guideline: a key of `speed.data.quality.guidelines.CAUSES`."""


def first_fault(text: str, finish_reason: str, prompt: Prompt) -> Broken | None:
    """Cut an answer at its first faulty field; None if it cannot be read, has no fault, or lacks a key as text.

    A fault between two texts counts for the one that is written later.
    """
    assert prompt.kind is not None
    example = parse_example(prompt.kind, prompt.task, text, finish_reason, ground=prompt.ground)
    if isinstance(example, Rejected):
        return None
    starts = {}
    for key in example.fields():
        key_and_colon = re.search(rf'(?<!\\)"{re.escape(key)}"\s*:', text)
        if key_and_colon is None:
            return None
        starts[key] = key_and_colon.end()
    placed = [(max(starts[key] for key in fault.fields), fault.cause) for fault in faults(example, prompt)]
    if not placed:
        return None
    cut, cause = min(placed)
    return Broken(text[:cut], text[cut:], cause)
