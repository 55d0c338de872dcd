"""Training records with several hard negatives, and which texts of a corpus may be one another's negatives.

A corpus is read from its file as often as needed; memory holds numbers and hashes of its texts, never the texts.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from speed.data.records import Kind

KINDS = tuple(Kind)


class Record(NamedTuple):
    """One line of a training corpus."""

    kind: Kind
    task: str
    query: str
    positive: str
    negatives: tuple[str, ...]
    document: str | None = None
    """The user's document that the positive is a passage of, as in `speed.data.records.Example`."""
    graded: tuple[str, ...] = ()
    """Documents of falling relevance (`speed.data.records.LEVELS`); mostly none."""

    def line(self) -> str:
        """The record as the embedder reads it."""
        fields = self._asdict()
        lists = {name: list(fields.pop(name)) for name in ("negatives", "graded")}
        if self.document is None:
            del fields["document"]
        return json.dumps(fields | {name: texts for name, texts in lists.items() if texts}, ensure_ascii=False) + "\n"


class Span(NamedTuple):
    """Numbers of the queries of a kind, and of the documents that they may be compared with."""

    queries: range
    documents: range


def read_records(file: Path) -> Iterator[Record]:
    """The records of a corpus that a stage wrote."""
    with file.open("rb") as lines:
        yield from map(_record, lines)


class TextNumbers:
    """The queries and documents of a corpus by number: records of a kind follow one another, and equal texts of a kind,
    whatever their case and spaces, are one document.

    Positives come first, kind by kind; then the hard negatives that are nobody's positive.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        kinds, offsets = bytearray(), array("q")
        queries, positives, negatives, ends = array("Q"), array("Q"), array("Q"), array("q")
        with file.open("rb") as lines:
            offset = 0
            for text in lines:
                record = _record(text)
                kinds.append(KINDS.index(record.kind))
                offsets.append(offset)
                queries.append(text_code(record.query))
                positives.append(text_code(record.positive))
                negatives.extend(map(text_code, record.negatives))
                ends.append(len(negatives))
                offset += len(text)
        order = sorted(range(len(kinds)), key=kinds.__getitem__)
        self.query_of = array("q", bytes(8 * len(order)))
        """Number of the query of each record, in the order of the file."""
        self.positive = array("q")
        """Document that is the positive of each query."""
        self.negative = array("q")
        """Documents that are hard negatives, query by query."""
        self._ends = array("q")
        self.groups: list[Span] = []
        self._codes, self._kinds = array("Q"), bytearray()
        self._offsets = array("q")
        self._by_text: dict[tuple[int, int], int] = {}
        self._more_answers: dict[tuple[int, int], set[int]] = {}
        """Positives of queries that have several."""
        answers: dict[tuple[int, int], int] = {}
        query = 0
        for kind in range(len(KINDS)):
            first, document = query, len(self._offsets)
            for line in order[query : query + kinds.count(kind)]:
                code = kind, positives[line]
                if code not in self._by_text:
                    self._by_text[code] = len(self._offsets)
                    self._offsets.append(offsets[line])
                self.query_of[line] = query
                self.positive.append(self._by_text[code])
                self._codes.append(queries[line])
                self._kinds.append(kind)
                asked, answer = (kind, queries[line]), self._by_text[code]
                if answers.setdefault(asked, answer) != answer:
                    self._more_answers.setdefault(asked, {answers[asked]}).add(answer)
                query += 1
            if query > first:
                self.groups.append(Span(range(first, query), range(document, len(self._offsets))))
        last = len(self._offsets)
        for line in order:
            begins = ends[line - 1] if line else 0
            for code in ((kinds[line], text_hash) for text_hash in negatives[begins : ends[line]]):
                number = self._by_text.setdefault(code, last)
                last = max(last, number + 1)
                self.negative.append(number)
            self._ends.append(len(self.negative))

    def __len__(self) -> int:
        """Queries, which are as many as records."""
        return len(self.positive)

    def queries(self) -> Iterator[tuple[str, str]]:
        """(task, query) of each query."""
        return ((record.task, record.query) for record in self._by_kind())

    def documents(self) -> Iterator[str]:
        """The text of each document."""
        known = 0
        for record, number in zip(self._by_kind(), self.positive, strict=True):
            if number == known:
                yield record.positive
                known += 1
        texts = (text for record in self._by_kind() for text in record.negatives)
        for text, number in zip(texts, self.negative, strict=True):
            if number == known:
                yield text
                known += 1

    def excluded(self, query: int) -> Collection[int]:
        """Documents that are no negatives of a query: its positive, the positives of equal queries, and its own text.
        Equal labels are one document."""
        code = self._kinds[query], self._codes[query]
        own = self._by_text.get(code)
        return {self.positive[query], *self._more_answers.get(code, ()), *(() if own is None else (own,))}

    def negatives_of(self, query: int) -> range:
        """Places of the hard negatives of a query in `negative`."""
        return range(self._ends[query - 1] if query else 0, self._ends[query])

    def positives(self) -> Positives:
        """Access to the texts of documents that are positives."""
        return Positives(self.file, self._offsets)

    def _by_kind(self) -> Iterator[Record]:
        for span in self.groups:
            kind = KINDS[self._kinds[span.queries.start]]
            yield from (record for record in read_records(self.file) if record.kind == kind)


class Positives:
    """Texts of positives by number, read from the corpus one by one."""

    def __init__(self, file: Path, offsets: array[int]) -> None:
        self._file, self._offsets = file.open("rb"), offsets

    def __enter__(self) -> Positives:
        return self

    def __exit__(self, *how: object) -> None:
        self._file.close()

    def text(self, document: int) -> str:
        """The text of one."""
        self._file.seek(self._offsets[document])
        return _record(self._file.readline()).positive


def text_code(text: str) -> int:
    """64-bit hash of a text, equal for texts that differ in case and spaces alone."""
    plain = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _record(line: bytes) -> Record:
    row = json.loads(line)
    negatives = row.get("negatives") or ([row["negative"]] if row.get("negative") else [])
    texts = row["task"], row["query"], row["positive"], tuple(negatives)
    return Record(Kind(row["kind"]), *texts, row.get("document"), tuple(row.get("graded", ())))
