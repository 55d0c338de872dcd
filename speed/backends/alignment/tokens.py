"""Prompts and answers as token ids: made once, kept by content, shared by all trainings on the same texts.

    <home>/cache/tokens/<key>.npz    ids (all texts one after the other), starts (of each text, and the end)

Ids depend on the texts, their layout and the tokenizer, and on nothing that a training varies: the points of a sweep
over beta, loss, learning rate, length or seed read what the first one made, and of several ranks one makes it. A file
is written aside and renamed; one that is damaged (it carries check sums) is made again. The folder may be deleted.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from speed.backends.generator.prompt_format import FormatName, completion_ids, prompt_format, prompt_ids
from speed.core.spec import Json, digest
from speed.ports import Completion, Preference
from speed.runtime import Context

LAYOUT = 1
Ids = list[int]


def token_ids(
    rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any, ctx: Context
) -> Iterator[list[Ids]]:
    """Ids of each row: its prompt with what both answers begin with, then its answers, each with its one EOS."""
    if not rows:
        return
    answers = 1 if isinstance(rows[0], Completion) else 2
    fast = getattr(tokenizer, "backend_tokenizer", None) is not None  # others are code, which no key could stand for
    ids, starts = (array.tolist() for array in (_kept if fast else _made)(rows, name, tokenizer, ctx))
    for first in range(0, len(starts) - 1, answers + 1):
        yield [ids[starts[text] : starts[text + 1]] for text in range(first, first + answers + 1)]


def _kept(
    rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any, ctx: Context
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    file = ctx.store.home / "cache" / "tokens" / f"{digest(recipe(rows, name, tokenizer))[:20]}.npz"
    kept = _read(file)
    if kept is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            kept = _read(file)  # another process may have made it meanwhile
            if kept is None:
                kept = _made(rows, name, tokenizer, ctx)
                _write(file, *kept)
    return kept


def recipe(rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any) -> list[Json]:
    """All that the ids depend on."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    template = str(tokenizer.chat_template) if name == "chat" else ""
    layout = [prompt_format(name, tokenizer).model_dump(), template]
    makers = [version("tokenizers"), version("transformers")]
    texts = digest([row.model_dump() for row in rows])
    return [LAYOUT, makers, digest(backend.to_str()), layout, texts]


def _made(
    rows: Sequence[Completion | Preference], name: FormatName, tokenizer: Any, ctx: Context
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    texts: list[NDArray[np.int32]] = []
    for done, row in enumerate(rows, 1):
        begun, answers = (
            ("", [row.completion]) if isinstance(row, Completion) else (row.begun, [row.chosen, row.rejected])
        )
        found = [prompt_ids(row.prompt, name, tokenizer, begun), *(completion_ids(text, tokenizer) for text in answers)]
        texts += [np.array(ids, np.int32) for ids in found]
        ctx.progress(done, len(rows), "rows read")
    return np.concatenate(texts), np.cumsum([0, *map(len, texts)])


def _read(file: Path) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """What stands in the file, as far as it is whole."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            return kept["ids"], kept["starts"]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        return None


def _write(file: Path, ids: NDArray[np.int32], starts: NDArray[np.int64]) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("wb") as out:
        np.savez(out, ids=ids, starts=starts)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)
