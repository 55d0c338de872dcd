"""Measure the quality of records by the hidden facts of the miniature: form, content and variety, for several sources.

    python -m speed.miniature.quality senior=speed_home/runs/latest/stages/synthesis revised=FILE.jsonl

A file, or a stage's folder, holds rows of `speed.data.records.Sample`. All facts are looked up, including those that
the teacher does not look up when it judges. No model sees these figures.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from speed.core.spec import Spec
from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.records import KEYS, Kind, Prompt, Sample
from speed.data.text_files import text_lines
from speed.miniature.faults import Fault, content_faults, form_faults, strict_fields
from speed.miniature.lexicon import mentions
from speed.miniature.prompt_reading import read_prompt
from speed.miniature.subject import known_entity, subject_of
from speed.miniature.world import seeded

_NEGATIVE = {Kind.RETRIEVAL: "hard_negative_document", Kind.CLASSIFICATION: "misleading_label", Kind.STS: "S3"}


class Quality(Spec):
    """Figures of one source. Shares are of all rows, unless another base is named."""

    rows: int
    valid: float
    """Share of rows that parse into an example."""
    conforming: float
    """Share of rows that also keep all guidelines that are checked."""
    flawless: float
    """Share of rows without any fault of form or content."""
    flaws: float
    """Mean number of faults of form and content in a strictly well-formed row."""
    guidelines: dict[str, float]
    """Guideline of the prompt -> share of the valid rows that break it."""
    content: dict[str, float]
    """Fault of content -> share of the strictly well-formed rows that have it."""
    true: float
    """Share without a wrong fact, of the strictly well-formed rows on known topics."""
    relevant: float
    """Share that is about its topic, of the strictly well-formed rows."""
    hard: float
    """Share whose negative is wrong and yet near, of the rows with a negative (retrieval, classification, STS)."""
    leaked: float
    """Share of the classification rows whose text contains a label."""
    distinct: dict[str, float]
    """Number of different words and of different word pairs, divided by all of them."""
    topics: float
    """Effective number of (things, aspect) pairs (exponential of their entropy), divided by the number of rows."""
    words: dict[str, float]
    """Field -> mean number of words."""
    duplicates: float
    """Share of rows whose texts have occurred before."""
    unknown: float
    """Share of rows on topics that the world does not have; they are judged by the words of the topic."""


def measure_quality(rows: Sequence[Sample]) -> Quality:
    """Figures of some answers. A row without an answer counts as invalid.

    Raises:
        ValueError: without rows.
    """
    if not rows:
        raise ValueError("no rows: there is nothing to measure")
    judged = [(row, *_judged(row.prompt, written_text(row))) for row in rows]
    parsed = [row for row, _, _ in judged if row.example is not None]
    strict = [(row, fields, faults) for row, fields, faults in judged if fields is not None]
    known = [entry for entry in strict if known_entity(read_prompt(entry[0].prompt.text).about)]
    broken = Counter(cause for row in parsed for cause in set(row.faults))
    content = Counter(cause for _, _, faults in strict for cause in {f.cause for f in faults if f.aspect == "content"})
    labelled = [row for row in rows if row.prompt.kind is Kind.CLASSIFICATION]
    contrasted = [entry for entry in strict if entry[0].prompt.kind in _NEGATIVE]
    texts = [" ".join(fields.values()).lower() for _, fields, _ in strict]
    return Quality(
        rows=len(rows),
        valid=len(parsed) / len(rows),
        conforming=sum(not row.faults for row in parsed) / len(rows),
        flawless=sum(not faults and not row.faults for row, _, faults in strict) / len(rows),
        flaws=sum(len(faults) for _, _, faults in strict) / len(strict) if strict else 0.0,
        guidelines={cause: count / len(parsed) for cause, count in broken.most_common()},
        content={cause: count / len(strict) for cause, count in content.most_common()},
        true=_share(not _has(faults, "wrong_fact") for _, _, faults in known),
        relevant=_share(not _has(faults, "off_topic") for _, _, faults in strict),
        hard=_share(not _bad_negative(row, faults) for row, _, faults in contrasted),
        leaked=_share("label_in_text" in row.faults for row in labelled),
        distinct={"1": _distinct(texts, 1), "2": _distinct(texts, 2)},
        topics=_effective_topics(texts) / len(rows),
        words=_lengths(fields for _, fields, _ in strict),
        duplicates=1 - len(set(texts)) / len(texts) if texts else 0.0,
        unknown=_share(known_entity(read_prompt(row.prompt.text).about) is None for row in rows),
    )


def written_text(row: Sample) -> str:
    """Example of a row as it was written: the whole answer, or the revision in the answer of a revisor."""
    if not row.revised:
        return row.text
    try:
        revision = json.loads(row.text, strict=False)["revision"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return row.text
    return revision if isinstance(revision, str) else json.dumps(revision)


def points(prompt: Prompt, text: str) -> float:
    """Points of an answer by the hidden facts: 0 without a fault, -1 for each fault, -20 if it cannot be read."""
    return -sum(20.0 if not fault.key else 1.0 for fault in faults_of(prompt, text))


def faults_of(prompt: Prompt, text: str) -> list[Fault]:
    """All faults of an answer."""
    return _judged(prompt, text)[1]


def win_rate(left: Iterable[tuple[Prompt, str]], right: Iterable[tuple[Prompt, str]]) -> float:
    """Share of prompts for which the left answer beats the right one by the hidden facts. A draw counts one half.

    Raises:
        ValueError: if the two do not answer the same prompts in the same order.
    """
    wins = []
    for (prompt, one), (other_prompt, two) in zip(left, right, strict=True):
        if prompt.text != other_prompt.text:
            raise ValueError("a win rate compares answers to the same prompts")
        first, second = points(prompt, one), points(prompt, two)
        wins.append(0.5 if first == second else float(first > second))
    return _share(wins)


def side_by_side(sources: Mapping[str, Quality]) -> str:
    """Markdown table of form, content and variety, with one column for each source."""
    names = list(sources)
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]

    def line(name: str, values: Iterable[float], form: str = ".1%") -> None:
        lines.append(f"| {name} | " + " | ".join(format(value, form) for value in values) + " |")

    every = list(sources.values())
    line("rows", (each.rows for each in every), ".0f")
    for name, label in (("valid", "**form**: valid JSON"), ("conforming", "keeps every guideline")):
        line(label, (getattr(each, name) for each in every))
    for cause in dict.fromkeys(cause for each in every for cause in each.guidelines):
        line(f"breaks `{cause}`", (each.guidelines.get(cause, 0.0) for each in every))
    line("label in the text", (each.leaked for each in every))
    for name, label in (
        ("relevant", "**content**: on topic"),
        ("true", "facts right"),
        ("hard", "negative hard and wrong"),
    ):
        line(label, (getattr(each, name) for each in every))
    for cause in dict.fromkeys(cause for each in every for cause in each.content):
        line(f"`{cause}`", (each.content.get(cause, 0.0) for each in every))
    line("**flawless**", (each.flawless for each in every))
    line("flaws a well-formed row", (each.flaws for each in every), ".2f")
    line("**variety**: distinct words", (each.distinct["1"] for each in every))
    line("distinct pairs of words", (each.distinct["2"] for each in every))
    line("effective topics a row", (each.topics for each in every))
    line("duplicates", (each.duplicates for each in every))
    line("topics unknown to the world", (each.unknown for each in every))
    return "\n".join(lines)


def _judged(prompt: Prompt, text: str) -> tuple[dict[str, str] | None, list[Fault]]:
    """Fields and faults of an answer; no fields if it is not exactly a JSON object with the right keys."""
    assert prompt.kind is not None
    fields = strict_fields(prompt.kind, text)
    if isinstance(fields, Fault):
        return None, [fields]
    request = read_prompt(prompt.text)
    about = subject_of(request.about, seeded("quality", prompt.text))
    return fields, form_faults(request, fields) + content_faults(request, about, fields)


def _bad_negative(row: Sample, faults: Sequence[Fault]) -> bool:
    assert row.prompt.kind is not None
    return any(fault.key == _NEGATIVE[row.prompt.kind] and fault.aspect == "content" for fault in faults)


def _has(faults: Sequence[Fault], cause: str) -> bool:
    return any(fault.cause == cause for fault in faults)


def _share(held: Iterable[float]) -> float:
    values = list(held)
    return sum(values) / len(values) if values else 0.0


def _distinct(texts: Sequence[str], length: int) -> float:
    grams = [tuple(words[i : i + length]) for words in map(str.split, texts) for i in range(len(words) - length + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _effective_topics(texts: Sequence[str]) -> float:
    """Exponential of the entropy of the (things, aspect) pairs that texts mention first."""
    seen = Counter(
        tuple(dict(reversed(mentions(text))).get(slot, "") for slot in ("things", "aspect")) for text in texts
    )
    total = seen.total()
    return math.exp(-sum(n / total * math.log(n / total) for n in seen.values())) if total else 0.0


def _lengths(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    counts: dict[str, list[int]] = {}
    for fields in rows:
        for key, value in fields.items():
            counts.setdefault(key, []).append(len(value.split()))
    order = [key for keys in KEYS.values() for key in keys.all]
    return {key: sum(counts[key]) / len(counts[key]) for key in dict.fromkeys(order) if key in counts}


def read_samples(source: Path) -> list[Sample]:
    """Read rows of `Sample` from a JSONL file (plain or packed) or a stage's shards, and parse and check them again."""
    files = sorted(source.glob("rows-*.jsonl*")) if source.is_dir() else [source]
    lines = (line.text for file in files for line in text_lines(file))
    stored = [Sample.model_validate_json(line) for line in lines if line.strip()]
    again = [accept_or_reject(row.row, row.prompt, written_text(row), row.finish_reason, row.tokens) for row in stored]
    return [
        new.model_copy(update={"text": row.text, "revised": row.revised})
        for new, row in zip(again, stored, strict=True)
    ]


if __name__ == "__main__":
    named = [argument.partition("=") for argument in sys.argv[1:]]
    print(side_by_side({name: measure_quality(read_samples(Path(file or name))) for name, _, file in named}))
