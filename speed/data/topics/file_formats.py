"""Read topic paths from files: plain lists, TSV, and RDF dumps of the Open Directory Project.

The dumps are 0.3 to 2 GB of XML that no XML parser accepts: they hold invalid UTF-8, control characters and broken
entities. So they are read as blocks of bytes and searched only for tags that name a topic: `<Topic r:id="Top/Arts">`.
Lists and TSV are text files like any other, so in them every byte must be right.
"""

from __future__ import annotations

import html
import io
import re
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from speed.core.errors import UserError
from speed.data.text_files import DAMAGED, damaged, lines_of, opened, unpacked

_TOPIC = re.compile(rb"""<Topic\s[^<>]{0,200}?\br:id\s*=\s*(?:"([^"<>]{0,4000})"|'([^'<>]{0,4000})')""")
_ROOT = re.compile(rb"<(?:\w+:)?RDF[\s>]")
_END = re.compile(rb"</(?:\w+:)?RDF\s*>")
_BLOCK = 1 << 20
_LONGEST_TAG = 8192
_HEAD = 1 << 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\ufeff]")
_HEADER = {"topic", "topics", "path", "category"}
_JSON = re.compile(rb'\[\s*["{\[\]]|\{\s*["}]')
_ESCAPES = re.compile(r"(?:%(?!2[Ff])[0-9A-Fa-f]{2})+")
"""Bytes as URLs write them. A slash (`%2F`) stays as it is: it belongs to a level's name."""
_ENTITY = re.compile(r"&#?\w+;")


def paths_in(file: Path | None, form: Literal["auto", "list", "tsv", "rdf"], counts: Counter[str]) -> Iterator[str]:
    """Read the topic paths of a file in order, without `Top/`. `counts["malformed"]` counts those with broken
    characters.

    Raises:
        UserError: the file is missing, a folder, unreadable, damaged, no text in UTF-8, JSON or CSV, or no whole RDF
            although RDF was asked for.
    """
    where = f"topics.path={file}"
    name = file.name if file else ""
    raw = opened(file, where) if file else (files("speed.data.topics") / "odp_sample.txt").open("rb")
    with raw, unpacked(raw, name, where) as stream:
        try:
            head = stream.peek()[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n")
            if form == "rdf" or (form == "auto" and (".rdf" in name or head.startswith(b"<"))):
                yield from _paths_of_dump(stream, counts, where)
                return
            tab = form == "tsv" or (form == "auto" and b"\t" in head)
            _refuse_other_formats(head, name, tab, where)
            yield from _paths_of_lines(stream, counts, where, tab)
        except DAMAGED as error:
            raise damaged(where, f"{counts['read']} topics", error) from error


def _refuse_other_formats(head: bytes, name: str, tab: bool, where: str) -> None:
    remedy = "give one topic path per line, or a TSV with the path in its first column"
    if _JSON.match(head):
        raise UserError(f"{where} is JSON: {remedy}")
    first = head.splitlines()[0].decode("utf-8", "replace") if head else ""
    cells = {cell.strip(' "').lower() for cell in first.split(",")}
    if not tab and "," in first and (".csv" in name or _HEADER & cells):
        raise UserError(f"{where} is CSV: {remedy}")


def _paths_of_dump(stream: io.BufferedReader, counts: Counter[str], where: str) -> Iterator[str]:
    """The topics of an RDF dump. A tag that is cut by the end of a block is completed from the next block."""
    any_topic, rest, tail = False, stream.read(_BLOCK), b""
    root = _ROOT.search(rest) is not None
    while rest:
        end, tail = 0, rest[-_LONGEST_TAG:]
        for match in _TOPIC.finditer(rest):
            end, any_topic = match.end(), True
            raw = match[1] if match[1] is not None else match[2]
            path = _clean(html.unescape(_decoded(raw, counts)), counts)
            if path not in ("", "Top"):
                yield path.removeprefix("Top/")
        block = stream.read(_BLOCK)
        rest = rest[max(end, len(rest) - _LONGEST_TAG) :] + block if block else b""
    if not any_topic:
        raise UserError(f"{where}: no <Topic r:id=...> in it: this is no ODP RDF dump; is topics.format right?")
    if (root and not _END.search(tail)) or b">" not in tail[max(tail.rfind(b"<Topic"), 0) :]:
        raise UserError(
            f"{where} is cut off after {counts['read']} topics: the end of the dump (</RDF>) is missing; fetch it again"
        )


def _paths_of_lines(stream: io.BufferedReader, counts: Counter[str], where: str, tab: bool) -> Iterator[str]:
    first = True
    for line in lines_of(stream, where):
        text = _clean(line.text.split("\t", 1)[0] if tab else line.text, counts).strip()
        if not text or text.startswith("#") or (first and text.strip('"').lower() in _HEADER):
            continue
        first = False
        path = _clean(_unescaped(text), counts).strip("/").removeprefix("Top/").strip("/")
        if path not in ("", "Top"):
            yield path


def _unescaped(text: str) -> str:
    """A path as a person writes it: without the escapes of URLs (`%26`) and HTML (`&amp;`)."""

    def plain(match: re.Match[str]) -> str:
        try:
            return unquote(match[0], errors="strict")
        except UnicodeDecodeError:
            return match[0]

    return _ENTITY.sub(lambda match: html.unescape(match[0]), _ESCAPES.sub(plain, text))


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
