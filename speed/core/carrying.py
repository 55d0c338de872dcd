"""Carrying between the store of a run and the depots of machines that do not see it: what is read goes there, shards
of rows come back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speed.core.cache import file_sha256
from speed.core.depot import Bundle, Depot
from speed.core.errors import CorruptArtifact, StoreError, explained
from speed.core.manifest import Output, check, parse_manifest
from speed.core.stage import Node, Pool, Stage
from speed.core.store import Span, Store

PIECE = 32 * 1024**2
"""Bytes of a message: what memory holds of a model that is carried, here and there."""


def bundles_of(store: Store, node: Node, rows: int) -> list[Bundle]:
    """What a machine must have of a built node.

    Args:
        rows: of a pool, that are read.

    Raises:
        CorruptArtifact: where it is not there, or damaged.
    """
    folder = store.folder(node)
    below = folder.relative_to(store.home).as_posix()
    if isinstance(node, Pool):
        found = []
        for span in store.shards(node):
            if span.start < rows:
                record = store.shard_files(node, span)[0]
                manifest = store.shard_manifest(node, span)
                if manifest is None or not manifest.outputs:
                    raise CorruptArtifact(record, "its manifest is missing")
                found.append(Bundle(below, (manifest.outputs[0], _measured(record)), whole=False))
        return found
    assert isinstance(node, Stage)
    manifest = store.manifest(node)
    if manifest is None:
        raise CorruptArtifact(folder / "manifest.json", "the file is missing")
    return [Bundle(below, (*manifest.outputs, _measured(folder / "manifest.json")), whole=True)]


def _measured(file: Path) -> Output:
    return Output(path=file.name, sha256=file_sha256(file), bytes=file.stat().st_size)


def carry(bundle: Bundle, source: Path, depot: Depot) -> None:
    """Bring a bundle into a depot, unless it is there.

    Args:
        source: the folder that has its files.

    Raises:
        CorruptArtifact: where a file of the source is damaged.
    """
    names = depot.begin(bundle)
    if not names:
        return
    files = [file for file in bundle.files if file.path in names]
    for message in _messages(source, files):
        damaged = set(depot.add(message))
        if damaged:
            check(source, tuple(file for file in files if file.path in damaged))
            raise OSError(f"{source}: {', '.join(sorted(damaged))} was damaged on the way")
    depot.end()


def _messages(source: Path, files: Sequence[Output]) -> Iterator[list[tuple[str, bytes]]]:
    """Pieces of files one after the other, in messages of at most `PIECE` bytes."""
    message, room = list[tuple[str, bytes]](), PIECE
    for output in files:
        left = output.bytes
        try:
            with (source / output.path).open("rb") as file:
                while True:
                    piece = file.read(min(room, left))
                    if left and not piece:
                        raise CorruptArtifact(source / output.path, "it is shorter than when it was built")
                    message.append((output.path, piece))
                    left, room = left - len(piece), room - len(piece)
                    if not room:
                        yield message
                        message, room = [], PIECE
                    if not left:
                        break
        except FileNotFoundError as error:
            raise CorruptArtifact(source / output.path, "the file is missing") from error
    if message:
        yield message


def fetch_shard(depot: Depot, store: Store, pool: Pool[Any], span: Span) -> None:
    """Put a finished shard of a depot into the store, as its builder would have put it there; the first one counts.

    Raises:
        OSError: where it came damaged; the depot has it no more. StoreError: where the store cannot take it.
    """
    record, rows = store.shard_files(pool, span)
    below = record.parent.relative_to(store.home)
    try:
        manifest = parse_manifest(_read(depot, below / record.name), record)
        packed = _read(depot, below / rows.name)
        found = (manifest.key, manifest.start, manifest.stop, *(file.sha256 for file in manifest.outputs))
        if found != (pool.key, *span, hashlib.sha256(packed).hexdigest()):
            raise CorruptArtifact(record, "its rows are not those of its manifest")
    except CorruptArtifact as error:
        depot.drop((below / record.name).as_posix())
        raise OSError(f"rows {span.start:,} to {span.stop - 1:,} came damaged: {error.why}") from error
    try:
        store.put_shard(pool, span, packed, manifest)
    except OSError as error:
        raise explained(error, f"carrying back {pool.label}", rows) or StoreError(
            f"{rows} cannot be written: {error.strerror or error}\n  see to the disk and run the same command again"
        ) from error


def _read(depot: Depot, path: Path) -> bytes:
    found = bytearray()
    while piece := depot.read(path.as_posix(), len(found), PIECE):
        found += piece
    return bytes(found)
