"""Manifests: what was built, from what, by which code, at what cost. A manifest carries the sha256 of itself."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from pydantic import ValidationError

from speed.core.allocation import Share
from speed.core.cache import file_sha256, write_aside
from speed.core.errors import CorruptArtifact
from speed.core.ledger import Line
from speed.core.spec import Json, Spec, digest

PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "deepspeed", "trl", "peft", "vllm", "litellm", "jinja2",
    "datasets", "xxhash", "mteb", "hydra-core", "pydantic", "numpy",
)  # fmt: skip
"""Whatever has a say in texts, weights, hashes or scores, where it is installed."""


class Output(Spec):
    """One file of a payload, relative to its folder."""

    path: str
    sha256: str
    bytes: int


class Maker(Spec):
    """Which code built it, and how it was called."""

    commit: str
    """Git commit, with `+` and a hash of uncommitted changes where there are any; the version when not a checkout."""
    python: str
    packages: dict[str, str]
    argv: tuple[str, ...]


class Manifest(Spec):
    """The record beside every artifact and every shard of a pool; written last, so its presence means complete."""

    key: str
    stage: str
    label: str
    version: int
    recipe: dict[str, Json]
    start: int | None = None
    """First row of a shard."""
    stop: int | None = None
    """Row after the last one of a shard."""
    outputs: tuple[Output, ...] = ()
    counts: dict[str, int] = {}
    rejected: dict[str, int] = {}
    cost: dict[str, int] = {}
    dollars: float | None = 0.0
    ledger: tuple[Line, ...] = ()
    """Every request to a teacher that this build made or found, by purpose, kind, model and cause."""
    metrics: dict[str, Json] = {}
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the process that built it; those of a training's processes and of a server are not known."""
    gpu_seconds: float = 0.0
    share: Share | None = None
    """What of the machine it was built with; the same share gives the same result."""
    finished: str = ""
    """UTC, ISO 8601."""
    maker: Maker | None = None
    sha256: str = ""
    """Of the canonical JSON of everything else."""

    def write(self, path: Path) -> None:
        """Write with the checksum filled in, aside and renamed."""
        body = self.model_dump(mode="json", exclude={"sha256"})
        with write_aside(path) as aside:
            aside.write_text(json.dumps({**body, "sha256": digest(body)}, indent=1), encoding="utf-8")


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path`, or None when there is none.

    Raises:
        CorruptArtifact: when it cannot be read or its sha256 does not match.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(text, path)


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """The manifest that a file at `path` holds, or is to hold.

    Raises:
        CorruptArtifact: when it cannot be read or its sha256 does not match.
    """
    try:
        body = json.loads(text)
        stated = body.pop("sha256")
        if digest(body) != stated:
            raise CorruptArtifact(path, "the manifest's sha256 does not match its content")
        return Manifest(**body, sha256=stated)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise CorruptArtifact(path, "the manifest cannot be read") from error


def outputs_of(folder: Path) -> tuple[Output, ...]:
    """Every file below a payload folder with its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        Output(path=path.relative_to(folder).as_posix(), sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in files
    )


def check(folder: Path, outputs: tuple[Output, ...]) -> None:
    """Compare every file with its recorded sha256.

    Raises:
        CorruptArtifact: for the first file that differs or is missing.
    """
    for output in outputs:
        path = folder / output.path
        if not path.is_file():
            raise CorruptArtifact(path, "the file is missing")
        if file_sha256(path) != output.sha256:
            raise CorruptArtifact(path, "its sha256 is not the one recorded when it was built")


@lru_cache(maxsize=1)
def maker() -> Maker:
    """The code and call of this process."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Maker(commit=commit(), python=platform.python_version(), packages=found, argv=tuple(sys.argv))


@lru_cache(maxsize=1)
def commit() -> str:
    """Git commit of this code; `+hash` is appended when files of the checkout differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        try:
            return metadata.version("speed-embedding")
        except metadata.PackageNotFoundError:  # files that were copied to a machine without a network
            return "unknown"

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True, timeout=20).stdout

    try:
        head = git("rev-parse", "--short=12", "HEAD").decode().strip()
        difference = git("diff", "HEAD", "--", "speed", "conf")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + (f"+{digest(difference.decode(errors='replace'))[:8]}" if difference else "")


def now() -> str:
    """UTC time for manifests."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
