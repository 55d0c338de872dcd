"""Records as token rows on disk: tokenised once, kept by content, read through memory maps.

    <home>/cache/tokens/<key>/   ids.bin (int32), starts.bin, texts.bin, labels.bin (int64), records.bin
                                 graded.bin (int8), where documents of several levels of relevance are read

A table is shared by every training that reads the same records with the same tokenizer, wording and length, whatever
its seed, batch or learning rate. Memory holds what a batch needs, however many records there are. `speed.core.cache`
keeps the folder: one process makes it, and a damaged one is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from speed.backends.embedder.records import Labelled
from speed.backends.encoding.token_rows import Frame, token_rows
from speed.core.cache import make_once
from speed.core.spec import Json, Spec, digest
from speed.data.records import Kind
from speed.model.batching import Ids
from speed.model.loss import label_hash, text_hash

KINDS = tuple(Kind)
RECORD = np.dtype([("first", "<i8"), ("number", "<i8"), ("task", "<i8"), ("source", "<i2"), ("kind", "<i2")])
"""First row of a record (its query; the positive and the negatives follow), line in its file, hash of its task."""
LAYOUT = 1
WINDOW = 1024
"""Records tokenised together."""


class Wording(Spec):
    """How the texts of a record are written."""

    query: str
    """With {query} and, where there is an instruction, {task}."""
    document: str = ""
    """Prefix of every document."""


class TokenTable:
    """The rows of all records, in memory maps."""

    def __init__(self, folder: Path) -> None:
        self.key = folder.name
        self.ids = _mapped(folder / "ids.bin", "<i4")
        self.starts = _mapped(folder / "starts.bin", "<i8")
        self.texts = _mapped(folder / "texts.bin", "<i8")
        self.labels = _mapped(folder / "labels.bin", "<i8")
        self.records = _mapped(folder / "records.bin", RECORD)
        graded = folder / "graded.bin"
        self.graded = _mapped(graded, "<i1") if graded.is_file() else np.zeros(len(self.records), np.int8)
        """Graded documents of each record."""

    def __len__(self) -> int:
        """Records."""
        return len(self.records)

    def row(self, number: int) -> Ids:
        """Token ids of one text."""
        return self.ids[self.starts[number] : self.starts[number + 1]]

    def rows_of(self, record: int) -> range:
        """Rows of a record: query, positive, negatives."""
        return range(int(self.records["first"][record]), self._end(record) - int(self.graded[record]))

    def graded_of(self, record: int) -> range:
        """Rows of the graded documents of a record, the most relevant first."""
        return range(self._end(record) - int(self.graded[record]), self._end(record))

    def _end(self, record: int) -> int:
        last = record + 1 == len(self.records)
        return len(self.texts) if last else int(self.records["first"][record + 1])

    def lengths(self) -> Annotated[NDArray[np.int64], "rows"]:
        """Tokens of every row."""
        return np.diff(self.starts)

    def groups(self, by: str) -> Annotated[NDArray[np.int64], "records"]:
        """A code for each record's kind, task or source."""
        return np.asarray(self.records[by], dtype=np.int64)


def token_table(
    records: Callable[[], Iterable[Labelled]],
    content: Json,
    tokenizer: Any,
    frame: Frame,
    max_length: int,
    wording: Wording,
    cache: Path,
    progress: Callable[[int], None] = lambda size: None,
    graded: bool = False,
) -> TokenTable:
    """The table of these records; found in the cache, or made.

    Args:
        records: read only where the table has to be made.
        content: identity of the records.
        progress: called with the bytes that were read so far.
        graded: whether graded documents are among the rows.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    recipe = [LAYOUT, content, digest(backend.to_str()), list(map(list, frame)), max_length, wording.model_dump()]
    recipe += ["graded"] if graded else []
    folder = cache / "tokens" / digest(recipe)[:20]
    make_once(folder, lambda aside: _write(aside, records(), tokenizer, frame, max_length, wording, progress, graded))
    return TokenTable(folder)


def _write(
    folder: Path,
    records: Iterable[Labelled],
    tokenizer: Any,
    frame: Frame,
    max_length: int,
    wording: Wording,
    progress: Callable[[int], None],
    graded: bool,
) -> None:
    names = ["ids", "starts", "texts", "labels", "records", *(["graded"] if graded else [])]
    files = {name: (folder / f"{name}.bin").open("wb") for name in names}
    tokens = rows = read = 0
    files["starts"].write(np.zeros(1, "<i8").tobytes())
    try:
        for window in _windows(records):
            texts: list[str] = []
            hashes: list[int] = []
            labels: list[int] = []
            entries: list[tuple[int, ...]] = []
            for record in window:
                first, kind = rows + len(texts), KINDS.index(record.kind)
                entries.append((first, record.number, text_hash(record.task), record.source, kind))
                documents = (record.positive, *record.negatives, *(record.graded if graded else ()))
                texts += [query_text(record, wording.query), *(wording.document + text for text in documents)]
                hashes += [text_hash(text) for text in (record.query, *documents)]
                is_label = record.kind is Kind.CLASSIFICATION
                labels += [0, *(label_hash(text) if is_label else 0 for text in documents)]
                read += record.size
            ids = token_rows(tokenizer, texts, frame, max_length)
            files["ids"].write(np.concatenate(ids).astype("<i4").tobytes())
            files["starts"].write((tokens + np.cumsum([len(row) for row in ids])).astype("<i8").tobytes())
            files["texts"].write(np.array(hashes, "<i8").tobytes())
            files["labels"].write(np.array(labels, "<i8").tobytes())
            files["records"].write(np.array(entries, RECORD).tobytes())
            if graded:
                files["graded"].write(np.array([len(record.graded) for record in window], "<i1").tobytes())
            tokens, rows = tokens + sum(map(len, ids)), rows + len(ids)
            progress(read)
    finally:
        for file in files.values():
            file.close()


def query_text(record: Labelled, template: str) -> str:
    """The query under its instruction; alone where the template has one and the record has none."""
    if "{task}" in template and not record.task:
        return record.query
    before, _, after = template.partition("{query}")
    return before.replace("{task}", record.task) + record.query + after


def _windows(records: Iterable[Labelled]) -> Iterator[Sequence[Labelled]]:
    rest = iter(records)
    while window := list(islice(rest, WINDOW)):
        yield window


def _mapped(file: Path, dtype: Any) -> NDArray[Any]:
    return np.memmap(file, dtype=dtype, mode="r")
