"""Where a multirun began, so that it can end with a table of its points (`speed.studies.sweep_table`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Multirun:
    """A multirun of this process."""

    home: Path
    sweep: str
    """The name that its runs have in the ledger."""
    start: int
    """Bytes of the ledger when it began."""
    jobs: tuple[tuple[str, ...], ...]
    """The overrides of each of its runs; empty where its sweeper chooses them as it goes."""


BEGUN: list[Multirun] = []
"""The multirun that has begun in this process, if there is one. At module level, since Hydra makes the callback that
notes it, and keeps it from whoever prints the table."""


def begin(home: Path, sweep: str, jobs: tuple[tuple[str, ...], ...]) -> None:
    """Note that one begins."""
    home = home.expanduser().resolve()
    ledger = home / "runs" / "ledger.jsonl"
    BEGUN[:] = [Multirun(home, sweep, ledger.stat().st_size if ledger.is_file() else 0, jobs)]
