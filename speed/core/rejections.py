"""Notice, while a pool is built, that nearly all of its rows are rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

from speed.core.escape import on_one_line
from speed.core.row import Row
from speed.core.stage import Context, Pool

LOOK = 50
"""Rows after which a pool is looked at; all of them where there are fewer."""
NEARLY_ALL = 0.95
"""Share of rejected rows from which on something is wrong with the answers, and not with single ones."""
EXAMPLES = 2


def causes_of_nearly_all(rows: int, rejected: Mapping[str, int], choices: Set[str]) -> Counter[str]:
    """Why nearly all of some rows are rejected, by cause; empty where enough of them are of use.

    Args:
        choices: causes that do not count, see `Pool.choices`.
    """
    causes = Counter({cause: count for cause, count in rejected.items() if cause not in choices})
    return causes if rows and causes.total() >= NEARLY_ALL * rows else Counter()


def named(causes: Counter[str]) -> str:
    """Causes with their numbers, the most frequent first."""
    return ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common())


def shown(row: Row) -> str:
    """A rejected row, as an example on a line of its own."""
    return f"  row {row.row}, {row.rejected}: {on_one_line(row.evidence, 160) or '(no text)'}"


class Watch:
    """Looks at the first rows of a pool, and says once if nearly all of them are rejected."""

    def __init__(self, pool: Pool[Any], rows: int, ctx: Context[Any]) -> None:
        self._pool, self._ctx, self._look = pool, ctx, min(LOOK, rows)
        self._seen = 0
        self._rejected: Counter[str] = Counter()
        self._examples: list[Row] = []

    def see(self, row: Row) -> None:
        """Look at the next row."""
        if self._seen == self._look:
            return
        self._seen += 1
        if row.rejected is not None:
            self._rejected[row.rejected] += 1
            if row.rejected not in self._pool.choices and len(self._examples) < EXAMPLES:
                self._examples.append(row)
        if self._seen == self._look:
            causes = causes_of_nearly_all(self._seen, self._rejected, self._pool.choices)
            if causes:
                examples = "\n".join(map(shown, self._examples))
                self._ctx.say(
                    f"{causes.total()} of the first {self._seen} rows are rejected: {named(causes)}, for example\n"
                    f"{examples}\n  if it goes on like this, the run stops behind this stage; Ctrl-C ends it now, and "
                    "all answers are kept"
                )
