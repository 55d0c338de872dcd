"""Ids of a search task that name no text: a few are reported; so many that the score means nothing are refused."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from speed.backends.evaluation.gold import no_score

Relevant = Mapping[str, Mapping[str, int]]


def remarks_on_ids(file: Path | str, relevant: Relevant, documents: Set[str], queries: Set[str]) -> list[str]:
    """What a reader should know of judgments that name absent documents or queries; they count as mteb counts them.

    Args:
        file: the judgments.
        relevant: score of each document, by query.

    Raises:
        UserError: where half of the relevant documents or more are not in the corpus, or all documents are relevant.
    """
    kept = {query: {doc for doc, score in found.items() if score > 0} for query, found in relevant.items()}
    total = sum(map(len, kept.values()))
    judged = {query: found for query, found in kept.items() if query in queries}
    absent = sum(len(found - documents) for found in judged.values())
    count = sum(map(len, judged.values()))
    if not count:
        raise no_score(file, "no document is relevant to a query of queries.jsonl")
    if 2 * absent >= count:
        raise no_score(
            file,
            f"{absent} of {count} relevant documents are not in corpus.jsonl\n"
            "  check that both files belong to one version of the data, and that ids are written alike",
        )
    if all(documents <= found for found in judged.values()):
        raise no_score(file, "every document is relevant to every query")
    bare = sum(not found for found in judged.values())
    found = {
        f"{absent} of {count} relevant documents are not in the corpus, and count as not found": absent,
        f"{total - count} judgments name queries that are not there, and are left out": total - count,
        f"{bare} of {len(judged)} queries have no relevant document, and count as 0": bare,
    }
    return [f"{file}: {remark}" for remark, number in found.items() if number]


def candidates(
    file: Path, ranked: Mapping[str, list[str]], relevant: Relevant, documents: Set[str], queries: Set[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The documents to rank for each query, without those that are not in the corpus, and what a reader should know.

    Args:
        file: the candidates.

    Raises:
        UserError: where half of the candidates or more are absent, or nothing depends on their order.
    """
    asked = {query: ranked.get(query, []) for query in relevant if query in queries}
    there = {query: [doc for doc in found if doc in documents] for query, found in asked.items()}
    count, left = sum(map(len, asked.values())), sum(map(len, there.values()))
    if 2 * left <= count:
        raise no_score(
            file,
            f"{count - left} of {count} candidates are not in corpus.jsonl\n"
            "  check that both files belong to one version of the data, and that ids are written alike",
        )
    kinds = [{relevant[query].get(doc, 0) > 0 for doc in found} for query, found in there.items()]
    if not any(len(kind) == 2 for kind in kinds):
        raise no_score(file, "no query has a relevant and another document to put in order")
    without = sum(True not in kind for kind in kinds)
    found = {
        f"{count - left} of {count} candidates are not in the corpus, and are left out": count - left,
        f"{without} of {len(kinds)} queries have no relevant document among their candidates, and count as 0": without,
    }
    return there, [f"{file}: {remark}" for remark, number in found.items() if number]
