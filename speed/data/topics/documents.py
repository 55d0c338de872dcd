"""The user's own documents as topics and passages (ours): read, cut by headings and paragraphs, held out by document.

Markdown, plain text, JSON lines (`text`, and where there is one `title`) and Parquet with the same columns. A section
becomes a topic, `guide/Installation/Linux`, and its text passages of so many words at most. The same files give the
same passages in the same order on every machine, and a document is held out or not as a whole, by its name and content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.core.spec import Spec, digest
from speed.data.draws import generator, shuffled_order, weighted_choice
from speed.data.records import Ground, Passage
from speed.data.text_files import text_lines

MARKDOWN = (".md", ".markdown")
RECORDS = (".jsonl", ".parquet")
ENDINGS = (*MARKDOWN, ".txt", *RECORDS)
"""Files that are read; others in a folder are passed over."""
PASSAGES_A_TOPIC = 8
"""A longer section becomes several topics, so that topics are drawn about as often as there is text on them."""
_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t#]*")
_FENCE = re.compile(r"\s*(```|~~~)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_SPACE = re.compile(r"[\s/]+")


class Documents(Spec):
    """How documents are cut, and what of them is held out for a test."""

    words: int = Field(120, ge=20)
    """Most words of a passage; one with fewer than eight is left out."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of the documents that nothing is generated from: the test split. At least one."""
    queries: int = Field(100, ge=1)
    """Most queries of the test split, each written for another held-out passage."""
    seed: int = 0
    """Of the split, and of which passages are drawn."""


PASSAGES = "passages.jsonl"
"""File of all passages, beside that of the topics."""
NAMING = 8
"""First words of a record without a title, by which it is called."""
NAMED = 80
"""Characters of that name at most: not all scripts have words."""
FEWEST = 8
"""Words of the shortest passage."""


class Document(NamedTuple):
    """One document before it is cut."""

    name: str
    """File below the path, and for files of records the line: `guide/install.md`, `faq.jsonl:12`."""
    title: str
    text: str
    markdown: bool


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a file, or of all files below a folder, in the order of their names. Hidden files and folders
    (`.git`, `.venv`) are passed over.

    Raises:
        UserError: for a path that is not there, a file that cannot be read, or a record without a text.
    """
    where = f"topics.path={path}"
    if not path.exists():
        raise UserError(f"{where} is not there\n  give a folder of documents, or a file: {', '.join(ENDINGS)}")
    known = _files_of(path)
    if not known:
        raise UserError(f"{where} holds no document that can be read\n  known are {', '.join(ENDINGS)}")
    for name, file in known.items():
        yield from _documents_in(file, name)


def _files_of(path: Path) -> dict[str, Path]:
    """The files that are read, by their names below the path, in order."""
    root = path if path.is_dir() else path.parent
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {
        file.relative_to(root).as_posix(): file
        for file in files
        if file.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in file.relative_to(root).parts)
    }


def content_of(path: Path) -> str:
    """sha256 of the names and contents of what is read: nothing else beside it changes a key."""
    files = {name: sha256_of(file) for name, file in _files_of(path.expanduser()).items()}
    if any(name.lower().endswith(RECORDS) for name in files):  # all without a title were one topic once
        files["records"] = "by their beginning"
    return digest(files)


def _documents_in(file: Path, name: str) -> Iterator[Document]:
    ending = file.suffix.lower()
    if ending in (".jsonl", ".parquet"):
        for number, record in _records(file):
            text, title = record.get("text"), record.get("title")
            if not isinstance(text, str):
                raise UserError(
                    f"{file}, record {number} has no text\n  each needs a column text, and may have a title"
                )
            yield Document(f"{name}:{number}", title if isinstance(title, str) else "", text, False)
        return
    text = "\n".join(line.text for line in text_lines(file))
    yield Document(name, file.stem if ending not in MARKDOWN else "", text, ending in MARKDOWN)


def _records(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.ParquetFile(file)
            columns = [name for name in ("text", "title") if name in rows.schema_arrow.names]
            found = (row for batch in rows.iter_batches(columns=columns) for row in batch.to_pylist())
            yield from enumerate(found, 1)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UserError(
                f"{file} cannot be read as Parquet: {error}\n  write it again, or give JSON lines"
            ) from error
        return
    for line in text_lines(file):
        if not line.text.strip():
            continue
        try:
            record = json.loads(line.text)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise UserError(
                f"{file}, line {line.number} is no document\n  give JSON lines with text, and title if known"
            )
        yield line.number, record


def sections(document: Document) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(headings, paragraphs) of each part between two headings; plain texts are one part. Code stays in one piece."""
    levels: list[tuple[int, str]] = []
    paragraphs: list[str] = []
    lines: list[str] = []
    fenced = False

    def end_paragraph() -> None:
        if text := "\n".join(lines).strip():
            paragraphs.append(text)
        lines.clear()

    for line in document.text.splitlines():
        if document.markdown and _FENCE.match(line):
            fenced = not fenced
        heading = _HEADING.fullmatch(line) if document.markdown and not fenced else None
        if heading is None:
            lines.append(line)
            if not fenced and not line.strip():
                end_paragraph()
            continue
        end_paragraph()
        if paragraphs:
            yield tuple(title for _, title in levels), paragraphs
            paragraphs = []
        depth = len(heading[1])
        levels = [(above, title) for above, title in levels if above < depth] + [(depth, heading[2].strip())]
    end_paragraph()
    if paragraphs:
        yield tuple(title for _, title in levels), paragraphs


def pieces(paragraphs: Sequence[str], words: int) -> list[str]:
    """Paragraphs put together to texts of at most so many words; a longer one is cut at sentences, then at words."""
    out: list[str] = []
    held = 0
    for part in (part for paragraph in paragraphs for part in _bounded(paragraph, words)):
        count = len(part.split())
        if out and held + count <= words:
            out[-1], held = f"{out[-1]}\n\n{part}", held + count
        else:
            out.append(part)
            held = count
    return out


def _bounded(paragraph: str, words: int) -> Iterator[str]:
    if len(paragraph.split()) <= words:
        yield paragraph
        return
    held: list[str] = []
    for sentence in _SENTENCE.split(paragraph):
        parts = sentence.split()
        if held and len(held) + len(parts) > words:
            yield " ".join(held)
            held = []
        held += parts
        while len(held) > words:
            yield " ".join(held[:words])
            held = held[words:]
    if held:
        yield " ".join(held)


def _beginning(text: str) -> str:
    """What a record without a title is called, so that not all of a file are one topic."""
    return " ".join(text.replace("/", " ").split()[:NAMING])[:NAMED]


def passages_of(document: Document, words: int) -> list[tuple[str, str]]:
    """(topic, text) of each passage of a document; the title or last heading stands in front of its text."""
    folder = [level for level in Path(document.name.partition(":")[0]).with_suffix("").as_posix().split("/") if level]
    out = []
    for headings, paragraphs in sections(document):
        title = headings[-1] if headings else document.title if ":" in document.name else ""
        named = [document.title.strip() or _beginning(document.text)] if ":" in document.name else []
        above = [*folder, *named, *headings]
        topic = "/".join(dict.fromkeys(_SPACE.sub(" ", level).strip() for level in above if level.strip()))
        found = [text for text in pieces(paragraphs, words) if len(text.split()) >= FEWEST]
        for place, text in enumerate(found):
            part = f"/part {place // PASSAGES_A_TOPIC + 1}" if len(found) > PASSAGES_A_TOPIC else ""
            out.append((topic + part, f"{title}\n\n{text}" if title else text))
    return out


def passages(path: Path, how: Documents) -> list[Passage]:
    """All passages in order, those of held-out documents marked. Documents with the same text go the same way, and a
    passage of a held-out document that stands in another one too, such as a licence, is left out.

    Raises:
        UserError: for fewer than two documents with a passage, held-out documents without one of their own, and as
            `read_documents` does.
    """
    cut = [(document, passages_of(document, how.words)) for document in read_documents(path)]
    cut = [(document, found) for document, found in cut if found]
    texts = sorted({digest(document.text) for document, _ in cut})
    if len(texts) < 2:
        raise UserError(
            f"topics.path={path}: {len(texts)} documents hold a passage of {FEWEST} words or more, and two are needed, "
            "one of them for the test\n  give more documents, or cut the one into files"
        )
    wanted = min(max(1, round(how.held_out * len(texts))), len(texts) - 1)
    held_out = {texts[place] for place in shuffled_order(len(texts), how.seed, "documents held out")[:wanted]}
    learnt = {text for document, found in cut if digest(document.text) not in held_out for _, text in found}
    out: list[Passage] = []
    for document, found in cut:
        apart = digest(document.text) in held_out
        for topic, text in found:
            if not apart or text not in learnt:
                out.append(Passage(row=len(out), document=document.name, topic=topic, text=text, held_out=apart))
    if not any(passage.held_out for passage in out):
        raise UserError(
            f"topics.path={path}: all that the held-out documents say stands in others too, so nothing is left to test "
            "with\n  hold more of them out (topics.documents.held_out), or others (topics.documents.seed)"
        )
    return out


def test_size(path: Path, how: Documents) -> int:
    """Queries of the test: one a held-out passage, and at most those wanted; those wanted where nothing can be read,
    which `passages` tells."""
    path = path.expanduser()
    try:
        return min(how.queries, _held_out(path, how, content_of(path)))
    except UserError:
        return how.queries


@lru_cache(maxsize=4)
def _held_out(path: Path, how: Documents, content: str) -> int:
    return sum(passage.held_out for passage in passages(path, how))


class Library:
    """The passages that queries are written for, by topic and document."""

    def __init__(self, found: Sequence[Passage]) -> None:
        self._by_topic: dict[str, list[Passage]] = {}
        for passage in found:
            self._by_topic.setdefault(passage.topic, []).append(passage)
        self._by_document = {name: list(group) for name, group in groupby(found, lambda passage: passage.document)}

    def ground(self, topic: str, seed: int, role: str, index: int) -> Ground | None:
        """The passage of example `index` of a role, drawn from those of its topic; None for a topic without any."""
        there = self._by_topic.get(topic)
        if not there:
            return None
        return self.with_negative(weighted_choice(generator(seed, "passage", role, index), there), seed)

    def with_negative(self, passage: Passage, seed: int) -> Ground:
        """A passage, and another of its document: of another section where there is one, so that it rarely answers the
        same query."""
        others = [other for other in self._by_document[passage.document] if other.text != passage.text]
        apart = [other for other in others if other.topic != passage.topic] or others
        negative = weighted_choice(generator(seed, "negative", passage.row), apart).text if apart else None
        return Ground(document=passage.document, text=passage.text, negative=negative)
