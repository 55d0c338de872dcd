"""What several stages share."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from speed.core.errors import UserError
from speed.core.stage import Row, Take
from speed.runtime import Context

R = TypeVar("R", bound=Row)


def training_rows(take: Take[R], ctx: Context, count: str) -> list[R]:
    """The rows of a take that were not rejected, for a training, which needs two.

    Args:
        count: the key of the config that says how many rows the take has.

    Raises:
        UserError: when there are fewer, with what became of the others.
    """
    rows = list(ctx.rows(take))
    accepted = [row for row in rows if row.rejected is None]
    if len(accepted) < 2:
        lost = Counter(row.rejected for row in rows if row.rejected is not None)
        causes = ", ".join(f"{number} {cause}" for cause, number in sorted(lost.items())) or "none rejected"
        raise UserError(
            f"a training needs at least two rows; of the {len(rows)} rows in '{take.pool.label}' only {len(accepted)} "
            f"can be learned from ({causes})\n  raise {count}, or look at the rows: {ctx.store.folder(take.pool)}"
        )
    return accepted
