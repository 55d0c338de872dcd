"""Files, folders and base models that the config names: they enter keys by their content, never by their path."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from speed.core.cache import file_sha256, write_aside
from speed.core.errors import UserError
from speed.core.spec import Json

HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?$")


MERGED_FROM = "merged_from.json"
"""File of a merged model: the sha256 of every file of weights that went into it."""


def digests_of_weights(folder: Path) -> list[str]:
    """sha256 of a model's files of weights, and of those that it was merged from.

    Raises:
        UserError: for a damaged list of the latter.
    """
    origins = folder / MERGED_FROM
    try:
        named = json.loads(origins.read_text(encoding="utf-8"))["sha256"] if origins.is_file() else []
        digests = {str(digest) for digest in named}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{origins} is damaged ({error!r:.80}): merge or fetch the model again") from error
    return sorted({*digests, *(sha256_of(file) for file in folder.glob("*.safetensors"))})


class Content(BaseModel):
    """A file or folder of the config: read at `path`, identified by its sha256.

    `package:miniature/topics.txt` is a file of this package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith("package:"):
            return {"path": package_folder(value)}
        return {"path": value} if isinstance(value, (str, Path)) else value

    @model_serializer
    def _to_text(self) -> str:
        return str(self.path)

    def recipe(self) -> Json:
        """Identity: the content's sha256.

        Raises:
            UserError: when the file or folder does not exist.
        """
        try:
            return {"sha256": sha256_of(self.path)}
        except UserError as absence:
            return identity_of_absent(self.path, absence)


class ModelReference(BaseModel):
    """A base model: a hub name (`org/name` or `org/name@revision`), a folder, or `package:` and one of this package."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"name": str(value)} if isinstance(value, (str, Path)) else value

    @model_serializer
    def _to_text(self) -> str:
        return self.name

    def recipe(self) -> Json:
        """Identity: the content of a folder, or the name (and revision) on the hub.

        Raises:
            UserError: when it is neither a folder that exists nor the form of a hub name.
        """
        if self.name.startswith("package:"):
            return {"sha256": sha256_of(package_folder(self.name))}
        folder = Path(self.name).expanduser()
        if folder.is_dir():
            return {"sha256": sha256_of(folder)}
        refuse_no_hub_name(self.name)
        return {"hub": self.name}


class HubRepository(NamedTuple):
    """A model or data set of the hub."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None = None

    @property
    def title(self) -> str:
        """Name, and revision where a model's is not the newest."""
        return f"{self.name}@{self.revision}" if self.revision and self.kind == "model" else self.name

    @property
    def download(self) -> str:
        """The command that fetches it into the local cache."""
        kind = "--repo-type dataset " if self.kind == "dataset" else ""
        return f"hf download {kind}{self.name}" + (f" --revision {self.revision}" if self.revision else "")


def hub_model(reference: str) -> tuple[HubRepository, ...]:
    """The model that a base's reference names on the hub; none for a folder or a model of this package."""
    if reference.startswith("package:") or Path(reference).expanduser().is_dir() or not HUB_NAME.match(reference):
        return ()
    name, _, revision = reference.partition("@")
    return (HubRepository("model", name, revision or None),)


_absent: ContextVar[list[str] | None] = ContextVar("absent", default=None)


@contextmanager
def noted_absence(noted: bool = True) -> Iterator[list[str]]:
    """Note what is missing instead of refusing it, so that a plan can be made without it.

    Args:
        noted: False changes nothing.
    """
    absent: list[str] = []
    token = _absent.set(absent if noted else None)
    try:
        yield absent
    finally:
        _absent.reset(token)


def identity_of_absent(path: Path, absence: UserError) -> Json:
    """A stand-in for the identity of a file or folder that is not there; its absence is noted.

    Raises:
        UserError: the absence, outside of `noted_absence`.
    """
    absent = _absent.get()
    if absent is None:
        raise absence
    absent.append(str(absence))
    return {"absent": str(path)}


def locate_model(reference: Path | str) -> tuple[str, str | None]:
    """(folder or hub name, revision) of a base model's reference.

    Raises:
        UserError: when it is neither an existing folder nor the form of a hub name.
    """
    text = str(reference)
    if text.startswith("package:"):
        folder = package_folder(text)
        if not folder.is_dir():
            raise UserError(f"the base model {text} is not part of this installation: {folder} does not exist")
        return str(folder), None
    folder = Path(text).expanduser()
    if folder.is_dir():
        return str(folder), None
    refuse_no_hub_name(text)
    name, _, revision = text.partition("@")
    return name, revision or None


def refuse_no_hub_name(name: str) -> None:
    """Refuse what cannot be the name of a model on the hub.

    Raises:
        UserError: with the forms that a base model may have.
    """
    if not HUB_NAME.match(name):
        raise UserError(
            f"there is no base model {name!r}: give an existing folder, a hub name such as meta-llama/Meta-Llama-3-8B, "
            "or package:miniature/bases/NAME"
        )


def package_folder(reference: str) -> Path:
    """The folder or file that `package:miniature/bases/llama` means."""
    return Path(__file__).resolve().parents[1] / reference.removeprefix("package:")


def sha256_of(path: Path) -> str:
    """sha256 of a file, or of a folder's file names and contents; a file of the same size and mtime is read once."""
    path = path.expanduser()
    if path.is_dir():
        whole = hashlib.sha256()
        for file in _files_below(path):
            whole.update(f"{file.relative_to(path).as_posix()}\0{_sha256_of_file(file)}\n".encode())
        return whole.hexdigest()
    if path.is_file():
        return _sha256_of_file(path)
    raise UserError(f"{path} does not exist: give the path of an existing file or folder")


def _files_below(folder: Path) -> Iterator[Path]:
    return iter(sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")))


def _sha256_of_file(path: Path) -> str:
    stat = path.stat()
    return _remembered(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _remembered(path: str, size: int, mtime: int) -> str:
    known = _memory.get(path)
    if known and known[:2] == [size, mtime]:
        return str(known[2])
    sha256 = file_sha256(Path(path))
    _memory[path] = [size, mtime, sha256]
    _memory.changed = True
    return sha256


class _Memory(dict[str, list[object]]):
    """Hashes of input files that were read before, so that planning over a dump of 2 GB takes no time."""

    changed = False


_memory = _Memory()


def load_memory(file: Path) -> None:
    """Load the hashes that earlier processes have saved; without a file, or from a damaged one, none."""
    _memory.update(_saved(file))


def save_memory(file: Path) -> None:
    """Save the hashes of this process with those that others have saved meanwhile."""
    if _memory.changed:
        with write_aside(file) as aside:
            aside.write_text(json.dumps(_saved(file) | _memory))


def _saved(file: Path) -> dict[str, list[object]]:
    try:
        saved = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    items = saved.items() if isinstance(saved, dict) else ()
    return {path: entry for path, entry in items if isinstance(entry, list) and len(entry) == 3}
