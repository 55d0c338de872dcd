"""Queries for given passages: how the rules write them from the passage's own words, and what is wrong with one.

A real teacher asks in other words than the passage's. The rules know no words for what is no part of their world, so
theirs are some of the passage's, in its order: enough to try the pipeline on any documents.
"""

from __future__ import annotations

import json
import random
import re

from speed.miniature.faults import Fault
from speed.miniature.prompt_reading import Request

KEY = "user_query"
LONGEST = 8
"""Words of a query, unless the prompt asks for more."""
NEAR = 0.5
"""Share of a query's words that its passage has, at least."""
COPIED = 5
"""A query of so many words is copied if the passage has them in a row."""


def write_query(request: Request, rng: random.Random) -> str:
    """The answer to a prompt for a query, as JSON."""
    there = list(dict.fromkeys(_words(request.passage)))
    telling = [word for word in there if len(word) > 3] or there or ["this"]
    most = min(request.query_words.most, max(LONGEST, request.query_words.least), len(telling))
    count = rng.randint(min(request.query_words.least, most), most)
    places = sorted(rng.sample(range(len(telling)), max(1, count)))
    words = [telling[place] for place in places]
    while len(words) < request.query_words.least:
        words.append(rng.choice(telling))
    return json.dumps({KEY: " ".join(words)})


def query_faults(request: Request, text: str) -> list[Fault]:
    """What is wrong with an answer to a prompt for a query."""
    try:
        fields = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return [Fault("", "not_json", "form")]
    if not isinstance(fields, dict) or set(fields) != {KEY} or not isinstance(fields[KEY], str):
        return [Fault("", "wrong_keys", "form")]
    words, there = _words(fields[KEY]), _words(request.passage)
    faults = [] if request.query_words.hold(fields[KEY]) else [Fault(KEY, "length", "form")]
    if len(words) >= COPIED and f" {' '.join(words)} " in f" {' '.join(there)} ":
        faults.append(Fault(KEY, "copied", "form"))
    if sum(word in set(there) for word in words) < NEAR * max(1, len(words)):
        faults.append(Fault(KEY, "off_topic", "content"))
    return faults


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())
