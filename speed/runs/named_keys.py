"""Which key of the config a message about a file or a model means: a user types keys, and parts know only values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from speed.config import Config
from speed.core.content import Content, ModelReference


def with_key(config: Config, message: str) -> str:
    """The message, with the key in front whose file or model it is about, unless it names that key itself."""
    for key, value in _references("", config):
        about = message.startswith(f"{value} ") or f" {value!r}" in message
        if about and key not in message:
            return f"{key}: {message}"
    return message


def _references(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Keys and values of all files, folders and models of a config."""
    if isinstance(value, (Content, ModelReference)):
        yield key, str(value.path if isinstance(value, Content) else value.name)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _references(f"{key}.{name}".removeprefix("."), getattr(value, name))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _references(f"{key}.{name}", inner)
    elif isinstance(value, tuple):
        for place, inner in enumerate(value):
            yield from _references(f"{key}.{place}", inner)
