"""Find the faults of an example: of form, by the guidelines of its prompt, and of content, by meaning and facts.

The judge, the reviser and the quality report all use these checks, but not the same facts: the judge looks up the slots
in `JUDGED` only, the report all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from speed.data.records import KEYS, Kind
from speed.miniature.lexicon import SLOTS, lexicon, meaning, meanings
from speed.miniature.prompt_reading import Request
from speed.miniature.subject import Subject
from speed.miniature.world import similarity
from speed.miniature.writing import asked_slot

JUDGED = ("things", "aspect", "kind", "place")
"""Slots whose facts the judge looks up. Only the quality report looks up quality, people and time."""

ALIKE = 3.75
"""Similarity from which two texts mean the same: between the scores that are asked for of S2 (at least 4) and of S3 (at
most 3.5)."""

Aspect = Literal["form", "content"]

_SAID = {
    "not_json": "is no valid JSON object",
    "wrong_keys": "does not have the right keys",
    "empty": "is empty",
    "length": "does not have the right number of words",
    "copied": "is copied",
    "label_in_text": "contains a label",
    "off_topic": "is not about the topic",
    "wrong_fact": "is not right",
    "not_answered": "does not answer the query",
    "false_negative": "is relevant to the query",
    "easy_negative": "has nothing to do with the query",
    "wrong_label": "is not the right label",
    "wrong_similarity": "does not have the right similarity",
}


@dataclass(frozen=True)
class Fault:
    """One fault of a field, or of the whole example if `key` is empty."""

    key: str
    cause: str
    aspect: Aspect

    @property
    def sentence(self) -> str:
        """Sentence for the reason of a judgement or revision."""
        where = f"The {self.key.replace('_', ' ')}" if self.key else "The output"
        return f"{where} {_SAID[self.cause]}."


def strict_fields(kind: Kind, text: str) -> dict[str, str] | Fault:
    """Fields of an answer that is exactly a JSON object with the right keys; otherwise the fault."""
    try:
        fields = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return Fault("", "not_json", "form")
    if not isinstance(fields, dict):
        return Fault("", "not_json", "form")
    if set(fields) != set(KEYS[kind].all) or not all(isinstance(value, str) for value in fields.values()):
        return Fault("", "wrong_keys", "form")
    return fields


def salvage_fields(kind: Kind, text: str) -> dict[str, str]:
    """Find the fields that can be read in a broken answer."""
    fields = {}
    for key in KEYS[kind].all:
        match = re.search(rf'"{key}"\s*:\s*"((?:[^"\\]|\\.)*)"', text)
        if match and match[1].strip():
            fields[key] = match[1]
    return fields


def form_faults(request: Request, fields: Mapping[str, str]) -> list[Fault]:
    """Find broken guidelines that can be checked without knowing what words mean."""
    faults = [Fault(key, "empty", "form") for key, value in fields.items() if not value.strip()]
    lengths = {
        Kind.RETRIEVAL: {
            "user_query": request.query_words,
            "positive_document": request.words,
            "hard_negative_document": request.words,
        },
        Kind.CLASSIFICATION: {"input_text": request.words},
        Kind.STS: {},
        Kind.SHORT_SHORT: {"input": request.words, "positive_document": request.words},
        Kind.LONG_LONG: {"input": request.words, "positive_document": request.words},
    }[request.kind]
    faults += [Fault(key, "length", "form") for key, words in lengths.items() if not words.hold(fields[key])]
    if request.kind is Kind.RETRIEVAL:
        query = _flat(fields["user_query"])
        faults += [Fault(key, "copied", "form") for key in KEYS[request.kind].all[1:] if query in _flat(fields[key])]
    if request.kind is Kind.CLASSIFICATION:
        text = _flat(fields["input_text"])
        faults += [
            Fault("input_text", "label_in_text", "form")
            for key in ("label", "misleading_label")
            if re.search(rf"\b{re.escape(_flat(fields[key]))}\b", text) and fields[key].strip()
        ][:1]
    values = [_flat(value) for value in fields.values()]
    keys = list(fields)
    faults += [Fault(keys[i], "copied", "form") for i in range(1, len(values)) if values[i] in values[:i]]
    return list(dict.fromkeys(faults))


def content_faults(
    request: Request, about: Subject, fields: Mapping[str, str], slots: Collection[str] = SLOTS
) -> list[Fault]:
    """Find faults of meaning. Facts are looked up for the given slots only."""
    check = {
        Kind.RETRIEVAL: _retrieval,
        Kind.CLASSIFICATION: _classification,
        Kind.STS: _triple,
        Kind.SHORT_SHORT: _pair,
        Kind.LONG_LONG: _pair,
    }[request.kind]
    causes = check(request, about, fields, frozenset(slots) & about.sure)
    return [Fault(key, cause, "content") for key, cause in dict.fromkeys(causes)]


def text_similarity(one: str, other: str) -> float:
    """Similarity of two texts by what their words mean, 1 to 5."""
    return similarity(meaning(one), meaning(other))


def on_topic(about: Subject, text: str) -> bool:
    """Whether a text names the subject or its things (it need not name its aspect)."""
    if about.name.lower() in text.lower():
        return True
    things = about.facts["things"]
    return things in meaning(text).get("things", ()) if things in lexicon()["things"] else things in text.lower()


def conflicts(about: Subject, text: str, slots: Collection[str]) -> list[str]:
    """Slots on which a text contradicts the facts."""
    said = meaning(text)
    stated = [slot for slot in slots if slot in said and about.facts[slot] in lexicon()[slot]]
    return [slot for slot in stated if said[slot] != {about.facts[slot]}]


def answers_query(query: str, text: str) -> bool:
    """Whether a text has all concepts that the query asks for."""
    said = meaning(text)
    return all(concepts <= said.get(slot, frozenset()) for slot, concepts in meaning(query).items())


def is_wanted(kind: Kind, query: str, document: str) -> bool:
    """Whether a document is what a query asks for: as near in meaning as a pair that is alike, the label of one of its
    concepts, or a text with all its concepts. A query of other words than the world's is answered by a text that has
    half of them."""
    asked, label = meaning(query), meanings().get(_flat(document))
    if kind is Kind.STS:
        return text_similarity(query, document) >= ALIKE
    if label is not None:
        return label[1] in asked.get(label[0], ())
    if asked:
        return answers_query(query, document)
    words = _flat(query).split()
    return sum(word in _flat(document).split() for word in words) >= len(words) / 2


def _retrieval(
    request: Request, about: Subject, fields: Mapping[str, str], slots: frozenset[str]
) -> list[tuple[str, str]]:
    query, positive, negative = (fields[key] for key in KEYS[Kind.RETRIEVAL].all)
    faults = [(key, "off_topic") for key in ("user_query", "positive_document") if not on_topic(about, fields[key])]
    faults += [
        (key, "wrong_fact") for key in ("user_query", "positive_document") if conflicts(about, fields[key], slots)
    ]
    if not answers_query(query, positive):
        faults.append(("positive_document", "not_answered"))
    asked = meaning(query)
    if asked and answers_query(query, negative):
        faults.append(("hard_negative_document", "false_negative"))
    elif asked and not any(concepts & meaning(negative).get(slot, frozenset()) for slot, concepts in asked.items()):
        faults.append(("hard_negative_document", "easy_negative"))
    return faults


def _classification(
    request: Request, about: Subject, fields: Mapping[str, str], slots: frozenset[str]
) -> list[tuple[str, str]]:
    text, label, misleading = (fields[key] for key in KEYS[Kind.CLASSIFICATION].all)
    faults = [] if on_topic(about, text) else [("input_text", "off_topic")]
    if conflicts(about, text, slots):
        faults.append(("input_text", "wrong_fact"))
    asked, said = asked_slot(request.about), meaning(text)
    meant = {key: meanings().get(_flat(value)) for key, value in (("label", label), ("misleading_label", misleading))}
    for key, right in (("label", True), ("misleading_label", False)):
        concept = meant[key]
        fits = concept is not None and asked in (None, concept[0])
        if not fits or (concept is not None and (concept[1] in said.get(concept[0], ())) is not right):
            faults.append((key, "wrong_label"))
    return faults


def _triple(
    request: Request, about: Subject, fields: Mapping[str, str], slots: frozenset[str]
) -> list[tuple[str, str]]:
    faults = [] if on_topic(about, fields["S1"]) else [("S1", "off_topic")]
    for key, wanted in (("S2", request.high_score), ("S3", request.low_score)):
        if abs(text_similarity(fields["S1"], fields[key]) - wanted) > 0.75:
            faults.append((key, "wrong_similarity"))
    return faults


def _pair(request: Request, about: Subject, fields: Mapping[str, str], slots: frozenset[str]) -> list[tuple[str, str]]:
    faults = [("input", "off_topic")] if not on_topic(about, fields["input"]) else []
    faults += [(key, "wrong_fact") for key in fields if conflicts(about, fields[key], slots)]
    if text_similarity(fields["input"], fields["positive_document"]) < 4.0:
        faults.append(("positive_document", "wrong_similarity"))
    return faults


def _flat(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .?!")
