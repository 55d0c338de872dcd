"""Where an answer goes wrong: the first field of its JSON that breaks a guideline.

A record is written field by field, as a solution step by step; so the unit of Step-DPO (Lai et al. 2024, arXiv
2406.18629), the first wrong step in the context of right ones, is here the first faulty field behind faultless ones.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from speed.data.answers.parse import example
from speed.data.quality.guidelines import faults
from speed.data.records import Prompt, Rejected


class Broken(NamedTuple):
    """An answer, cut where its first faulty field begins."""

    begun: str
    """Up to and with the colon of the faulty field's key: faultless."""
    rest: str
    """The faulty value and what follows."""
    cause: str
    """The guideline that is broken, a key of `speed.data.quality.guidelines.CAUSES`."""


def first_fault(text: str, finish_reason: str, prompt: Prompt) -> Broken | None:
    """The answer cut at its first faulty field; None where it cannot be read, has no fault, or its keys are not found.

    A fault of two texts that do not go together shows in the one that is written later.
    """
    assert prompt.kind is not None
    read = example(prompt.kind, prompt.task, text, finish_reason)
    if isinstance(read, Rejected):
        return None
    starts = {}
    for key in read.fields():
        found = re.search(rf'(?<!\\)"{re.escape(key)}"\s*:', text)
        if found is None:
            return None
        starts[key] = found.end()
    placed = [(max(starts[key] for key in fault.fields), fault.cause) for fault in faults(read, prompt)]
    if not placed:
        return None
    cut, cause = min(placed)
    return Broken(text[:cut], text[cut:], cause)
