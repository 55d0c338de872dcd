"""Generators that are closed by whoever reads them, at once.

An error's traceback keeps alive every generator that a failed function still names: one that asks a teacher would go
on asking, and paying, until somebody drops the traceback.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def closing(rows: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same rows, to be read within a `with`; whatever ends it closes them, where they are a generator's."""
    try:
        yield rows
    finally:
        if isinstance(rows, Generator):
            rows.close()
