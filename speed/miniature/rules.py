"""The rules behind the miniature's teacher: a pure function from a prompt to an answer. It is no language model.

It knows the facts of the training half of the world and nothing of the held-out half, on which the evaluation is
built. As a judge it errs at a given rate and likes long answers, as language models do; as a judge it does not look up
all of the facts that it writes by, and as a reviser it believes the answer on all but its topic.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from speed.data.records import Kind
from speed.miniature.assessment import JUDGED, Fault, content_faults, fields_of, form_faults, salvaged
from speed.miniature.reading import Request, read
from speed.miniature.repair import believed, repaired
from speed.miniature.topic import Subject, known_entity, subject
from speed.miniature.world import seeded
from speed.miniature.writing import example, tasks

ERROR_RATE = 0.1
"""How often the judge's verdict is a blind guess."""
LENGTH_BIAS = 0.5
"""What the judge gives for being the longest answer, in units of one fault."""

MARK = "no entry:"
"""Begins every reason that the teacher gives about a topic of which it knows nothing but the words."""


def known(prompt: str) -> bool:
    """Whether the teacher knows the topic of a prompt; otherwise it writes from the topic's words alone."""
    return known_entity(read(prompt).about) is not None


def answer(prompt: str, seed: object = 0, error_rate: float = ERROR_RATE, length_bias: float = LENGTH_BIAS) -> str:
    """The teacher's answer to one of the project's prompts: always the same for the same arguments.

    Args:
        prompt: the rendered text as it is sent.
        seed: whatever tells two askings of the same prompt apart, such as (seed, sample index).

    Raises:
        ValueError: when the prompt is none of the project's.
    """
    request = read(prompt)
    rng = seeded("rules", seed, prompt)
    about = subject(request.about, rng)
    if request.role == "brainstorm":
        return tasks(request, about, rng)
    if request.role == "synthesis":
        return json.dumps(example(request, about, rng))
    if request.role == "judge":
        return _verdict(request, about, rng, error_rate, length_bias)
    return _revision(request, about, rng)


def faults_of(request: Request, about: Subject, text: str, slots: Sequence[str] = JUDGED) -> list[Fault]:
    """All faults of an answer, as far as the facts of `slots` show them."""
    fields = fields_of(request.kind, text)
    if isinstance(fields, Fault):
        return [fields]
    return form_faults(request, fields) + content_faults(request, about, fields, slots)


def _verdict(request: Request, about: Subject, rng: random.Random, error_rate: float, length_bias: float) -> str:
    count = len(request.shown)
    if count < 2:
        return json.dumps({"reason": "There is nothing to compare.", "best": 0, "worst": 0})
    faults = [faults_of(request, about, text) for text in request.shown]
    longest = max(len(text.split()) for text in request.shown) or 1
    points = [
        length_bias * len(text.split()) / longest - sum(_weight(fault) for fault in found)
        for text, found in zip(request.shown, faults, strict=True)
    ]
    order = sorted(range(count), key=lambda place: (-points[place], place))
    best, worst = order[0], order[-1]
    if rng.random() < error_rate:
        best, worst = rng.sample(range(count), 2)
    reason = f"Number {best} fits the prompt. Number {worst}: {_reason(faults[worst])}"
    return json.dumps({"reason": _marked(about, reason), "best": best, "worst": worst})


def _weight(fault: Fault) -> float:
    """An answer that cannot be read is worse than any that can."""
    return 20.0 if not fault.key else 1.5 if fault.cause == "off_topic" else 1.0


def _reason(faults: Sequence[Fault]) -> str:
    return " ".join(dict.fromkeys(fault.sentence for fault in faults)) or "It is right."


def _marked(about: Subject, reason: str) -> str:
    return reason if about.known else f"{MARK} {reason}"


def _revision(request: Request, about: Subject, rng: random.Random) -> str:
    """Keeps what is right, rewrites what is wrong."""
    text = request.shown[0]
    fields = fields_of(request.kind, text)
    kept = salvaged(request.kind, text) if isinstance(fields, Fault) else fields
    about = believed(about, kept)
    faults = faults_of(request, about, text, slots=tuple(about.sure))
    better = repaired(request, about, kept, rng)
    return json.dumps({"reason": _marked(about, _reason(faults)), "revision": better})


__all__ = ["ERROR_RATE", "LENGTH_BIAS", "MARK", "Kind", "answer", "faults_of", "known"]
