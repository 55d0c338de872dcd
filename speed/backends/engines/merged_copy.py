"""A generator whose adapter is merged, for engines that load whole models: one copy for all that load it at a time."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from speed.backends.engines.weights import read_card, save_merged
from speed.backends.runtime.precision import Precision
from speed.core.cache import aside_name, this_machine, write_aside
from speed.core.content import sha256_of
from speed.core.spec import Json, digest


@contextmanager
def merged_copy(weights: Path, precision: Precision, cache: Path) -> Iterator[Path]:
    """A folder with the whole model, made by the first that asks for it, and removed by the last that has loaded it.

    So the workers of a stage, each of which loads the model, take the disk and the memory of one merge together.

    Args:
        weights: payload of a training whose `model/` is an adapter.
        cache: folder under which the copy lies.

    Raises:
        UserError: see `weights.load`.
    """
    cache.mkdir(parents=True, exist_ok=True)
    # of each machine its own: a share may know the locks of one machine alone
    folder = cache / f"merged-{digest([*_content(weights), precision])[:16]}-{this_machine()}"
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    with lock:
        used_by = folder.with_name(folder.name + ".users")
        users = os.open(used_by, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(users, fcntl.LOCK_SH)  # goes with the process, however it ends
        try:
            if not folder.is_dir():
                with write_aside(folder) as aside:
                    save_merged(weights, aside, precision)
                gc.collect()
        except BaseException:
            os.close(users)
            raise
    try:
        yield folder
    finally:
        with lock:
            with suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                aside = aside_name(folder)  # a name that nobody loads, whatever interrupts the removal
                folder.replace(aside)
                shutil.rmtree(aside, ignore_errors=True)
                used_by.unlink(missing_ok=True)
            fcntl.flock(users, fcntl.LOCK_UN)  # also where a process that vLLM started has inherited it
            os.close(users)


def _content(weights: Path) -> list[Json]:
    """All that the merged model depends on but the arithmetic."""
    card = read_card(weights)
    assert card is not None, weights
    found: list[Json] = [card.base, card.base_sha256, sha256_of(weights / "model") if card.trained else ""]
    if card.base.startswith("relative:"):
        found += _content((weights / card.base.removeprefix("relative:")).resolve())
    return found
