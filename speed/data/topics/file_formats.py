"""Read topic paths from files: plain lists, TSV, and RDF dumps of the Open Directory Project.

The dumps are 0.3 to 2 GB of XML that no XML parser accepts: they hold invalid UTF-8, control characters and broken
entities. So they are read as blocks of bytes and searched only for tags that name a topic: `<Topic r:id="Top/Arts">`.
"""

from __future__ import annotations

import gzip
import html
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import IO, Literal

from speed.core.errors import UserError

_TOPIC = re.compile(rb"""<Topic\s[^<>]{0,200}?\br:id\s*=\s*(?:"([^"<>]{0,4000})"|'([^'<>]{0,4000})')""")
_BLOCK = 1 << 20
_LONGEST_TAG = 8192
_LONGEST_LINE = 1 << 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\ufeff]")
_HEADER = {"topic", "topics", "path", "category"}


def paths_in(file: Path | None, form: Literal["auto", "list", "tsv", "rdf"], counts: Counter[str]) -> Iterator[str]:
    """Read the topic paths of a file in order, without `Top/`. `counts["malformed"]` counts those with broken
    characters.

    Raises:
        UserError: the file is missing, a folder, unreadable, a damaged archive, or no RDF although RDF was asked for.
    """
    where = f"topics.path={file}"
    if file is None:
        raw: IO[bytes] = (files("speed.data.topics") / "odp_sample.txt").open("rb")
    else:
        raw = _opened(file.expanduser(), where)
    name = file.name if file else ""
    with raw, _unpacked(raw, name, where) as stream:
        try:
            dump = form == "auto" and ".rdf" in name
            yield from _paths(stream, "rdf" if dump else form, counts, where)
        except (OSError, EOFError, zlib.error) as error:
            remedy = "fetch the file again"
            raise UserError(f"{where}: damaged after {counts['read']} topics ({error}): {remedy}") from error


def _opened(file: Path, where: str) -> IO[bytes]:
    if not file.exists():
        raise UserError(f"{where} does not exist: give the path of a list, a TSV or an ODP RDF dump")
    if file.is_dir():
        raise UserError(f"{where} is a folder: give the file in it")
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}") from error


def _unpacked(raw: IO[bytes], name: str, where: str) -> io.BufferedIOBase:
    buffered = io.BufferedReader(raw, _BLOCK)  # type: ignore[type-var]
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=buffered)
    if name.endswith(".gz"):
        raise UserError(f"{where} is not a gzip archive, as its name says: fetch it again, or take .gz off its name")
    return buffered


def _paths(stream: io.BufferedIOBase, form: str, counts: Counter[str], where: str) -> Iterator[str]:
    head = stream.read(_BLOCK)
    if form == "auto":
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
        form = "rdf" if start.startswith(b"<") else "tsv" if b"\t" in head[:_LONGEST_LINE] else "list"
    if form != "rdf":
        if b"\0" in head:
            raise UserError(f"{where} is no text file in UTF-8: give a list, a TSV or an ODP RDF dump (plain or .gz)")
        yield from _lines(head, stream, counts, tab=form == "tsv")
        return
    any_topic = False
    for raw_path in _topics(head, stream):
        any_topic = True
        path = _clean(html.unescape(_decoded(raw_path, counts)), counts)
        if path not in ("", "Top"):
            yield path.removeprefix("Top/")
    if not any_topic:
        raise UserError(f"{where}: no <Topic r:id=...> in it: this is no ODP RDF dump; is topics.format right?")


def _topics(head: bytes, stream: io.BufferedIOBase) -> Iterator[bytes]:
    """Read the ids of topics. A tag that is cut by the end of a block is completed from the next block."""
    rest = head
    while rest:
        end = 0
        for match in _TOPIC.finditer(rest):
            end = match.end()
            yield match[1] if match[1] is not None else match[2]
        block = stream.read(_BLOCK)
        rest = rest[max(end, len(rest) - _LONGEST_TAG) :] + block if block else b""


def _lines(head: bytes, stream: io.BufferedIOBase, counts: Counter[str], tab: bool) -> Iterator[str]:
    first, rest = True, head
    while rest:
        block = stream.read(_BLOCK)
        whole, newline, rest = rest.rpartition(b"\n") if block else (rest, b"", b"")
        if not newline and block:
            whole, rest = b"", rest[-_LONGEST_LINE:]
        for line in whole.split(b"\n"):
            cell = line.split(b"\t", 1)[0] if tab else line
            text = _clean(_decoded(cell, counts), counts).strip()
            if text in ("", "Top") or text.startswith("#") or (first and tab and text.lower() in _HEADER):
                continue
            first = False
            yield text.removeprefix("Top/").strip("/")
        rest += block


def _decoded(raw: bytes, counts: Counter[str]) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        counts["malformed"] += 1
        return raw.decode("utf-8", "ignore")


def _clean(text: str, counts: Counter[str]) -> str:
    """Remove control characters. A carriage return or a byte order mark at an end does not make a topic malformed."""
    if not _CONTROL.search(text):
        return text
    if _CONTROL.search(text.strip("\r\ufeff")):
        counts["malformed"] += 1
    return _CONTROL.sub("", text)
