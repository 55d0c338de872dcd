"""Stream rows through an engine, keeping their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

from speed.core.closing import closing
from speed.data.draws import generator
from speed.ports import Engine, Generate, Generated, Sampling
from speed.runtime import Context

T = TypeVar("T")
Write: TypeAlias = Callable[[Sequence[Generate]], list[Generated]]
"""Writes the texts of one block of requests, ordered by (request, index)."""


@contextmanager
def writing(engine: Engine, weights: Path, sampling: Sampling, ctx: Context) -> Iterator[Write]:
    """A function that writes one block of requests after another; the model is loaded once, with the first of them."""
    with ctx.keep_open("writer", lambda: _loaded(engine, weights, sampling, ctx)) as write:
        yield write


@contextmanager
def _loaded(engine: Engine, weights: Path, sampling: Sampling, ctx: Context) -> Iterator[Write]:
    blocks: deque[Sequence[Generate]] = deque()
    with closing(engine.generate(weights, iter(blocks.popleft, None), sampling, ctx)) as answers:

        def write(requests: Sequence[Generate]) -> list[Generated]:
            blocks.append(requests)  # an engine reads a block when the texts of the one before have been handed out
            texts = next(answers)
            ctx.tally.cost["generated_tokens"] += sum(text.tokens for text in texts)
            return texts

        yield write


def generate_in_order(
    engine: Engine, weights: Path, items: Iterable[tuple[T, Generate | None]], sampling: Sampling, ctx: Context
) -> Iterator[tuple[T, list[Generated]]]:
    """Each item with the texts of its request, in order; none where there was nothing to ask.

    Items are read, and their tokens counted in `ctx.tally`, a block of the engine's at a time.
    """
    source = iter(items)
    with writing(engine, weights, sampling, ctx) as write:
        while block := list(islice(source, engine.block)):
            found: dict[str, list[Generated]] = {}
            for text in write([request for _, request in block if request is not None]):
                found.setdefault(text.key, []).append(text)
            for item, request in block:
                yield item, [] if request is None else found[request.key]


def request_seed(seed: int, stage: str, row: int, attempt: int = 0) -> int:
    """The seed of one row's generation: 0..2^53, a function of (seed, stage, row, attempt) alone."""
    further = (attempt,) if attempt else ()
    return int(generator(seed, "generate", stage, row, *further).random() * 2**53)
