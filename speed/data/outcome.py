"""From a prompt and a raw answer to a row: parsed and verified against the prompt's own guidelines, or rejected."""

from __future__ import annotations

from speed.data.parse import example as read_example
from speed.data.records import Prompt, Rejected, Sample
from speed.data.verify import faults


def sample(row: int, prompt: Prompt, text: str, finish_reason: str, tokens: int) -> Sample:
    """The row of one answer to a data prompt."""
    assert prompt.kind is not None
    made = Sample(row=row, prompt=prompt, text=text, finish_reason=finish_reason, tokens=tokens)
    found = read_example(prompt.kind, prompt.task, text, finish_reason)
    if isinstance(found, Rejected):
        return made.turned_away(found.cause, found.detail)
    broken = tuple(fault.cause for fault in faults(found, prompt))
    return made.model_copy(update={"example": found, "faults": broken})
