"""Specs: frozen, closed, typed values. Configs, records and manifests are all written as specs.

`recipe` turns a value into the canonical JSON that keys are hashed from. Literals go in, context stays out, and
whatever has no stable identity raises instead of being hashed by accident.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, or lists and string-keyed dicts of these."""


class Spec(BaseModel):
    """A frozen value that refuses unknown fields; every field is part of its identity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        arbitrary_types_allowed=False,
    )


class Backend(Spec):
    """A swappable part, named in conf/ by `_target_`. Its class and its fields are identity; its devices are not."""

    version: ClassVar[int] = 1
    """Raised by hand when the same fields begin to give other results."""
    heavy: ClassVar[tuple[str, ...]] = ()
    """Modules that are slow to import: worth importing once for all the stages that use this part."""

    def recipe(self) -> Json:
        """Identity of the part: its class, its version and its fields."""
        return {"class": type(self).__name__, "version": self.version, **fields_of(self)}


def part_named(target: str) -> type[Backend] | None:
    """The part that a `_target_` names; None for whatever else it is: a function, another class, or what a module of
    this package has only imported (`speed.run.os.system` would be a shell).

    Raises:
        ImportError: of a part whose packages are not installed.
    """
    module, _, name = target.rpartition(".")
    package = __name__.partition(".")[0]
    if not re.fullmatch(rf"{package}(\.\w+)+", module):
        return None
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == package:
            return None
        raise
    own = isinstance(found, type) and issubclass(found, Backend) and found.__module__.startswith(f"{package}.")
    return found if own else None


@runtime_checkable
class HasRecipe(Protocol):
    """Whatever states its own identity."""

    def recipe(self) -> Json: ...


def fields_of(spec: BaseModel) -> dict[str, Json]:
    """The fields of a spec, each as its recipe."""
    return {name: recipe(getattr(spec, name)) for name in type(spec).model_fields}


def recipe(value: object) -> Json:
    """Canonical JSON identity of a value.

    Raises:
        TypeError: for anything without a stable identity: objects, sets, open files, bare paths (whose meaning
            depends on the machine; see `speed.core.content`), NaN and infinities.
    """
    if value is None or type(value) in (bool, int, str):  # most are: a protocol takes ten times as long to look for
        return value
    if isinstance(value, HasRecipe):
        return value.recipe()
    if isinstance(value, Enum):
        return recipe(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value!r} cannot be part of a key")
        return value
    if isinstance(value, BaseModel):
        return fields_of(value)
    if isinstance(value, (list, tuple)):
        return [recipe(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("only string keys can be part of a key")
        return {key: recipe(value[key]) for key in sorted(value)}
    if isinstance(value, Path):
        raise TypeError(f"the path {value} has no stable identity: declare the field as Content")
    raise TypeError(f"{type(value).__name__} has no stable identity and cannot be part of a key")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False)
"""Looking for circles would take a third of the time; a value that holds itself is a RecursionError."""


def canonical(value: Json) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, UTF-8 (lone surrogates survive as escapes)."""
    return _CANONICAL.encode(value).encode("ascii")


def digest(value: Json) -> str:
    """sha256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value)).hexdigest()
