"""Worked examples that stand in front of a prompt, for teachers too weak to do without (`teacher.examples`; ours).

The paper's teacher saw none. Each is a task or topic with its answer, in the form that the answer is parsed in; all are
of this project's own making, and of topics that no test data is about.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files

from speed.core.spec import Json, digest
from speed.data.records import Kind

MOST = 3
"""Worked examples that there are of each kind."""
LEAST_WORDS = 5
"""Of a text that is a copy: shorter ones can be the same by chance."""
_BEHIND = "\n\nNow the request. Write about what it says, and repeat none of these texts.\n\n"


@lru_cache(maxsize=1)
def _written() -> Json:
    return json.loads((files("speed.data.prompts") / "worked_examples.json").read_text(encoding="utf-8"))


def identity(count: int) -> Json:
    """What stands for the examples in a key: how many, the content that they are taken from, and that answers with
    their texts are rejected, which they once were not."""
    return {"count": count, "sha256": digest(_written()), "copies": "rejected"}


@lru_cache(maxsize=64)
def worked_examples(purpose: str, kind: Kind | None, count: int) -> str:
    """The text in front of a prompt of a purpose; empty where there are none of its kind."""
    shown = [
        f"Example {number}{f', for: {about}' if about else ''}\n{json.dumps(answer, ensure_ascii=False)}"
        for number, (about, answer) in enumerate(_pairs(purpose, kind)[:count], 1)
    ]
    if not shown:
        return ""
    return "Some worked examples of the answer that is wanted.\n\n" + "\n\n".join(shown) + _BEHIND


def without_worked_examples(prompt: str) -> str:
    """The request alone."""
    return prompt.rpartition(_BEHIND)[2]


def example_texts(kind: Kind) -> list[str]:
    """The examples of a kind as answers."""
    return [json.dumps(answer, ensure_ascii=False) for _, answer in _pairs("seed", kind)]


def is_of_worked_example(text: str) -> bool:
    """Whether a text is one of a worked example, but for case and punctuation. Labels and the like are no copies."""
    words = _words(text)
    return len(words) >= LEAST_WORDS and words in _texts()


def worked_task(kind: Kind, number: int) -> str:
    """What a worked example of a kind is about: a task, or a topic for STS."""
    pairs = _pairs("seed", kind)
    return pairs[number % len(pairs)][0]


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


@lru_cache(maxsize=1)
def _texts() -> frozenset[tuple[str, ...]]:
    examples = [pair["answer"].values() for pairs in _written()["example"].values() for pair in pairs]
    tasks = [pair["answer"] for pairs in _written()["brainstorm"].values() for pair in pairs]
    return frozenset(_words(text) for texts in (*examples, *tasks) for text in texts)


def _pairs(purpose: str, kind: Kind | None) -> list[tuple[str, Json]]:
    written = _written()
    if purpose == "judge":
        return [("", verdict) for verdict in written["reason"]["judge"]]
    if purpose not in ("brainstorm", "seed", "revise"):
        return []
    examples = written["brainstorm" if purpose == "brainstorm" else "example"].get(kind, [])
    pairs = [(each["about"], each["answer"]) for each in examples]
    if purpose != "revise":
        return pairs
    reasons = written["reason"]["revise"]
    return [
        (about, {"reason": why, "revision": json.dumps(answer)})
        for (about, answer), why in zip(pairs, reasons, strict=True)
    ]
