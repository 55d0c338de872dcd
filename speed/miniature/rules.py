"""The rules that answer the prompts of the miniature's teacher. They are a pure function and no language model.

They know the facts of the training half of the world, and nothing of the held-out half that the evaluation asks about.
As a judge they err at a given rate and favour long answers, as language models do, and look up some of the facts only.
As a reviser they believe everything that an answer says, except its topic.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from speed.data.answers.schemas import ANSWERING
from speed.miniature.faults import JUDGED, Fault, content_faults, form_faults, is_wanted, salvage_fields, strict_fields
from speed.miniature.graded import write_graded
from speed.miniature.passages import query_faults, write_query
from speed.miniature.prompt_reading import Request, read_prompt
from speed.miniature.repair import believed, repair
from speed.miniature.subject import Subject, known_entity, subject_of
from speed.miniature.world import seeded
from speed.miniature.writing import write_example, write_tasks

ERROR_RATE = 0.1
"""Share of judgements that are blind guesses."""
LENGTH_BIAS = 0.5
"""Bonus of the longest answer, in units of one fault."""

MARK = "no entry:"
"""Begins the reason of every answer on a topic that the teacher does not know."""


def knows_topic(prompt: str) -> bool:
    """Whether the teacher knows the topic of a prompt, or is given texts on it. If not, it writes from the words of the
    topic alone."""
    request = read_prompt(prompt)
    return bool(request.passage or request.query) or known_entity(request.about) is not None


def answer_prompt(
    prompt: str, seed: object = 0, error_rate: float = ERROR_RATE, length_bias: float = LENGTH_BIAS
) -> str:
    """Answer one of the project's prompts: always the same for the same arguments.

    Args:
        prompt: the rendered text, as it is sent.
        seed: anything that tells two requests with the same prompt apart, such as (seed, sample index).

    Raises:
        ValueError: if the prompt is none of the project's.
    """
    request = read_prompt(prompt)
    rng = seeded("rules", seed, prompt)
    if request.role == "relevance":
        return _relevance(request, rng, error_rate)
    if request.role == "graded":
        return write_graded(request, rng)
    about = subject_of(request.about, rng)
    if request.role == "brainstorm":
        return write_tasks(request, about, rng)
    if request.role == "synthesis" and request.passage:
        return write_query(request, rng)
    if request.role == "synthesis":
        return json.dumps(write_example(request, about, rng))
    if request.role == "judge":
        return _verdict(request, about, rng, error_rate, length_bias)
    return _revision(request, about, rng)


def faults_of(request: Request, about: Subject, text: str, slots: Sequence[str] = JUDGED) -> list[Fault]:
    """Find all faults of an answer. Facts are looked up for `slots` only."""
    if request.passage:
        return query_faults(request, text)
    fields = strict_fields(request.kind, text)
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
        length_bias * len(text.split()) / longest - sum(_weight(fault) for fault in own)
        for text, own in zip(request.shown, faults, strict=True)
    ]
    order = sorted(range(count), key=lambda place: (-points[place], place))
    best, worst = order[0], order[-1]
    if rng.random() < error_rate:
        best, worst = rng.sample(range(count), 2)
    reason = f"Number {best} fits the prompt. Number {worst}: {_reason(faults[worst])}"
    told = reason if request.passage else _marked(about, reason)
    return json.dumps({"reason": told, "best": best, "worst": worst})


def _relevance(request: Request, rng: random.Random, error_rate: float) -> str:
    said = {wanted: name for name, wanted in ANSWERING.items()}
    first, second = (is_wanted(request.kind, request.query, document) for document in request.shown)
    answer = rng.choice(tuple(ANSWERING)) if rng.random() < error_rate else said[first, second]
    return json.dumps({"reason": f"What is asked for is in: {answer}.", "answer": answer})


def _weight(fault: Fault) -> float:
    """Weight of a fault. An answer that cannot be read is worse than any that can."""
    return 20.0 if not fault.key else 1.5 if fault.cause == "off_topic" else 1.0


def _reason(faults: Sequence[Fault]) -> str:
    return " ".join(dict.fromkeys(fault.sentence for fault in faults)) or "It is right."


def _marked(about: Subject, reason: str) -> str:
    return reason if about.known else f"{MARK} {reason}"


def _revision(request: Request, about: Subject, rng: random.Random) -> str:
    """Keep what is right and rewrite what is wrong."""
    text = request.shown[0]
    if request.passage:
        wrong = query_faults(request, text)
        query = json.loads(write_query(request, rng) if wrong else text)
        return json.dumps({"reason": _reason(wrong), "revision": query})
    fields = strict_fields(request.kind, text)
    kept = salvage_fields(request.kind, text) if isinstance(fields, Fault) else fields
    about = believed(about, kept)
    faults = faults_of(request, about, text, slots=tuple(about.sure))
    better = repair(request, about, kept, rng)
    return json.dumps({"reason": _marked(about, _reason(faults)), "revision": better})
