"""The store: everything that was ever built, addressed by key, under one root that may be moved, shared and deleted.

    <home>/format.json            version of this layout
    <home>/store/<stage>/<key>/   an artifact: payload and manifest.json; or a pool: shards of rows, JSON
                                  lines that `datasets` reads as they are, each with its manifest
    <home>/locks/                 one file lock per key, so that two processes build a shared stage once
    <home>/journal/               every answer that was ever paid for (speed.teaching.journal)
    <home>/runs/                  for people: reports and links into the store

A folder that has its name is complete: a build happens in `<key>.partial/`, the manifest is written last, then the
folder gets its name. A shard is written aside and renamed, its manifest after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import BaseFileLock, FileLock, Timeout
from pydantic import ValidationError
from zstandard import ZstdCompressor, ZstdDecompressor

from speed.core.cache import write_aside
from speed.core.errors import CorruptArtifact, StoreError, UserError, explained
from speed.core.manifest import Manifest, Output, check, read_manifest
from speed.core.row import Row
from speed.core.stage import Node, Pool, Stage, Take

FORMAT = 2
"""Raised when the layout changes so that older code would misread it. 2: rows are compressed."""

PACKED, PLAIN = ".jsonl.zst", ".jsonl"
"""How the rows of a shard are kept, and how format 1 kept them."""

R = TypeVar("R", bound=Row)
_SHARD = re.compile(r"rows-(\d{9})-(\d{9})\.json$")


class Span(NamedTuple):
    """Rows start..stop-1 of a pool."""

    start: int
    stop: int


class Store:
    """Files below `home`. Opening creates the root and refuses one that newer code has written."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def open(self) -> Store:
        """Create the root where it is missing.

        Raises:
            UserError: when the root cannot be written, or was written by a newer version.
        """
        marker = self.home / "format.json"
        try:
            if marker.is_file() and self._format(marker) == FORMAT:
                return self
            for folder in ("store", "locks", "journal", "runs", "cache"):
                (self.home / folder).mkdir(parents=True, exist_ok=True)
            with write_aside(marker) as aside:
                aside.write_text(json.dumps({"format": FORMAT}))
        except OSError as error:
            if marker.is_file():  # of an older version, in a place that can only be read
                return self
            raise explained(error, f"opening the store {self.home}") or StoreError(
                f"{self.home} cannot be the store ({error.strerror}): take a folder"
            ) from error
        return self

    def _format(self, marker: Path) -> int:
        try:
            found = int(json.loads(marker.read_text())["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{marker} is damaged: write {{"format": {FORMAT}}} into it if the store is yours'
            ) from error
        if found > FORMAT:
            raise StoreError(
                f"{self.home} was written by a newer version of speed (format {found}, this code reads {FORMAT}):\n"
                "  update speed, or take another folder"
            )
        return found

    def folder(self, node: Node) -> Path:
        """Where a node's artifact lies, built or not."""
        return self.home / "store" / node.name / node.key[:20]

    @contextmanager
    def lock(self, node: Node) -> Iterator[None]:
        """Only one process builds a key at a time; others wait and then find it built."""
        with self._lock(node):
            yield

    def try_lock(self, node: Node) -> BaseFileLock | None:
        """The lock, if nobody else has it now; to be released by the caller."""
        lock = self._lock(node)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _lock(self, node: Node) -> BaseFileLock:
        return FileLock(self.home / "locks" / f"{node.name}-{node.key[:20]}.lock", thread_local=False)

    # -- artifacts -------------------------------------------------------------------------------------------------

    def manifest(self, stage: Stage[Any]) -> Manifest | None:
        """The manifest of a built stage, or None.

        Raises:
            CorruptArtifact: when its own sha256 does not match.
        """
        found = read_manifest(self.folder(stage) / "manifest.json")
        if found is not None and found.key != stage.key:
            raise CorruptArtifact(self.folder(stage) / "manifest.json", "the manifest belongs to another key")
        return found

    def partial(self, stage: Stage[Any]) -> Path:
        """The folder in which a stage is built; holds the checkpoint of an interrupted build."""
        partial = self.unfinished(stage)
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def unfinished(self, stage: Stage[Any]) -> Path:
        """The same folder, which may not be there."""
        folder = self.folder(stage)
        return folder.with_name(folder.name + ".partial")

    def publish(self, stage: Stage[Any], manifest: Manifest) -> None:
        """Write the manifest into the partial folder and give the folder its name."""
        partial = self.partial(stage)
        manifest.write(partial / "manifest.json")
        partial.replace(self.folder(stage))

    def payload(self, stage: Stage[Any]) -> Path:
        """The folder of a built stage, every file checked against its sha256 now.

        Raises:
            CorruptArtifact: when a file differs; the builder sets the artifact aside and builds it again.
            FileNotFoundError: when the stage is not built.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            raise FileNotFoundError(f"{stage.label} is not built")
        check(self.folder(stage), manifest.outputs)
        return self.folder(stage)

    # -- pools -----------------------------------------------------------------------------------------------------

    def shards(self, pool: Pool[R]) -> list[Span]:
        """The built spans of a pool, by file name; in order."""
        folder = self.folder(pool)
        found = (_SHARD.match(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(Span(int(match[1]), int(match[2])) for match in found if match)

    def missing(self, pool: Pool[R], rows: int) -> list[Span]:
        """The spans that a take of `rows` rows still lacks; whole blocks where the pool wants them."""
        wanted = pool.built_for(rows)
        gaps, position = [], 0
        for span in self.shards(pool):
            if span.start > position:
                gaps.append(Span(position, min(span.start, wanted)))
            position = max(position, span.stop)
        gaps.append(Span(position, wanted))
        return [gap for gap in gaps if gap.start < gap.stop]

    def shard_manifest(self, pool: Pool[R], span: Span) -> Manifest | None:
        """The manifest of one shard.

        Raises:
            CorruptArtifact: when its own sha256 does not match.
        """
        return read_manifest(self._shard(pool, span, ".json"))

    def write_shard(self, pool: Pool[R], span: Span, rows: Iterable[R], manifest: Manifest) -> None:
        """Write rows and then their manifest, each aside and renamed."""
        lines = "".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in rows).encode("utf-8")
        packed = ZstdCompressor().compress(lines)
        name = self._shard(pool, span, PACKED).name
        output = Output(path=name, sha256=hashlib.sha256(packed).hexdigest(), bytes=len(packed))
        self.put_shard(pool, span, packed, manifest.model_copy(update={"outputs": (output,)}))

    def put_shard(self, pool: Pool[R], span: Span, packed: bytes, manifest: Manifest) -> None:
        """Write compressed rows and then their manifest, which names them, each aside and renamed.

        Where two processes build the same shard, such as one on a machine that counted as lost, the first one counts:
        rows of one are never found beside the manifest of the other.
        """
        path = self._shard(pool, span, PACKED)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.home / "locks" / f"{pool.name}-{pool.key[:20]}.shards.lock"):
            if self.is_shard(pool, span):
                return
            with write_aside(path) as aside:
                aside.write_bytes(packed)
            manifest.write(self._shard(pool, span, ".json"))

    def shard_files(self, pool: Pool[R], span: Span) -> tuple[Path, Path]:
        """Where the manifest of a shard lies, and its rows; built or not."""
        return self._shard(pool, span, ".json"), self._shard(pool, span, PACKED)

    def is_shard(self, pool: Pool[R], span: Span) -> bool:
        """Whether exactly these rows are a built shard, by its manifest."""
        try:
            return self.shard_manifest(pool, span) is not None
        except CorruptArtifact:
            return False

    def rows(self, take: Take[R], start: int = 0) -> Iterator[R]:
        """The rows of a take from `start` on, in order; each shard is checked before its first row is handed out.

        Raises:
            CorruptArtifact: when a shard's bytes differ from its sha256.
        """
        position = 0
        for span in self.shards(take.pool):
            if span.start >= take.rows:
                break
            if span.start != position:
                break
            for row in self.shard_rows(take.pool, span) if span.stop > start else ():
                if start <= row.row < take.rows:
                    yield row
            position = span.stop
        if position < take.rows:
            raise FileNotFoundError(f"{take.pool.label} holds {position} of {take.rows} rows")

    def shard_rows(self, pool: Pool[R], span: Span) -> Iterator[R]:
        """The rows of one shard, which is checked before its first row is handed out.

        Raises:
            CorruptArtifact: when its bytes differ from its sha256.
        """
        path = self._shard(pool, span, ".json")
        manifest = self.shard_manifest(pool, span)
        if manifest is None or not manifest.outputs:
            raise CorruptArtifact(path, "its manifest is missing")
        path = path.with_name(manifest.outputs[0].path)
        try:
            stored = path.read_bytes()
        except FileNotFoundError as error:
            raise CorruptArtifact(path, "the file is missing") from error
        if hashlib.sha256(stored).hexdigest() != manifest.outputs[0].sha256:
            raise CorruptArtifact(path, "its sha256 is not the one recorded when it was built")
        lines = ZstdDecompressor().decompress(stored) if path.name.endswith(PACKED) else stored
        try:
            for line in lines.splitlines():
                yield pool.row.model_validate_json(line)  # type: ignore[misc]
        except ValidationError as error:
            raise CorruptArtifact(path, "a row cannot be read by this version of speed") from error

    def _shard(self, pool: Pool[R], span: Span, suffix: str) -> Path:
        return self.folder(pool) / f"rows-{span.start:09d}-{span.stop:09d}{suffix}"

    # -- damage ----------------------------------------------------------------------------------------------------

    def set_aside(self, path: Path) -> Path:
        """Move the damaged artifact or shard that `path` belongs to out of the way; it is kept, never read again."""
        stamp = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
        if path.name.startswith("rows-"):
            for suffix in (".json", PLAIN, PACKED):
                part = path.with_name(path.name.partition(".")[0] + suffix)
                if part.exists():
                    part.replace(part.with_name(f"corrupt-{stamp}-{part.name}"))
            return path
        artifact = path
        while artifact.parent.parent != self.home / "store":
            artifact = artifact.parent
        aside = artifact.with_name(f"{artifact.name}.corrupt-{stamp}")
        artifact.replace(aside)
        return aside

    def siblings(self, node: Node) -> Iterator[Manifest]:
        """Manifests of other builds of the same stage: what `plan` compares a miss with."""
        folder = self.home / "store" / node.name
        for path in sorted(folder.glob("*/manifest.json")) + sorted(folder.glob("*/rows-000000000-*.json")):
            try:
                found = read_manifest(path)
            except CorruptArtifact:
                continue
            if found is not None and found.key != node.key:
                yield found

    def remove(self, folder: Path) -> None:
        """Delete a folder of the store."""
        shutil.rmtree(folder, ignore_errors=True)
