"""Which documents of a record answer its query, by a teacher's verdicts, and what becomes of the record.

A hard negative that answers is made a positive (RLHN, Thakur et al. 2025, arXiv 2505.16967, where that does better than
to leave it out); where it answers and the positive does not, the two change places (Gecko, Lee et al. 2024, arXiv
2403.20327: the positive is the passage that the teacher finds best).
"""

from __future__ import annotations

from collections.abc import Sequence

from speed.data.hard_negatives import Record, text_code

Verdict = tuple[bool, bool]
"""Whether the positive, and whether the hard negative, answers the query."""
SAID = {
    (True, False): "wrong",
    (True, True): "answers_too",
    (False, True): "answers_alone",
    (False, False): "neither_answers",
}
"""What a verdict says of a hard negative."""
UNANSWERED = "unanswered"
"""Why a record is left out: neither its positive nor a hard negative answers its query."""
REPLACED = "positive_replaced"
"""What became of a record whose positive and hard negative changed places."""
FURTHER = "further_positives"
"""What became of a record of which a hard negative is a positive too, in a record of its own."""


def agreed(positive_first: Verdict, negative_first: Verdict) -> Verdict | None:
    """The verdict on a positive and a hard negative that were shown in both orders; None where they contradict.

    Args:
        negative_first: of the documents as they were shown: (negative, positive).
    """
    return positive_first if positive_first == negative_first[::-1] else None


def relabelled(record: Record, verdicts: Sequence[Verdict | None]) -> list[Record]:
    """The record as the verdicts have it, and one more for each further positive; empty where nothing answers.

    A positive stays unless most verdicts are against it. What no verdict was agreed upon of stays a negative. A text
    that is a positive already, whatever its case and spaces, is no further one.

    Args:
        verdicts: on each of its hard negatives.
    """
    refuted = _refuted(verdicts)
    answering, others = list[str](), list[str]()
    for negative, verdict in zip(record.negatives, verdicts, strict=True):
        (answering if verdict is not None and verdict[1] else others).append(negative)
    if refuted and not answering:
        return []
    if refuted:
        others.insert(0, record.positive)
    else:
        answering.insert(0, record.positive)
    positives: dict[int, str] = {}
    for text in answering:
        positives.setdefault(text_code(text), text)
    return [
        record._replace(
            positive=positive,
            negatives=tuple(others),
            document=record.document if positive == record.positive else None,
        )
        for positive in positives.values()
    ]


def became(said: Sequence[str]) -> str:
    """What became of a record that stayed, by what was said of its hard negatives; empty where it is as it was."""
    verdicts = [next((verdict for verdict, name in SAID.items() if name == each), None) for each in said]
    if not any(verdict is not None and verdict[1] for verdict in verdicts):
        return ""
    return REPLACED if _refuted(verdicts) else FURTHER


def _refuted(verdicts: Sequence[Verdict | None]) -> bool:
    """Whether most verdicts are against the positive."""
    said = [None if verdict is None else verdict[0] for verdict in verdicts]
    return said.count(False) > said.count(True)
