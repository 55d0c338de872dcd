"""One row of a pool."""

from __future__ import annotations

from typing import Self

from speed.core.spec import Spec


class Row(Spec):
    """One row of a pool. A rejected row is data too: it stays in its place and says why."""

    row: int
    """Position in the pool, from 0."""
    rejected: str | None = None
    """Cause of the rejection, from a closed set per pool; None for an accepted row."""
    detail: str = ""
    """What the cause was seen on, or a remark of the teacher on its own answer, for a reader."""

    @property
    def evidence(self) -> str:
        """What a reader wants to see of a rejected row."""
        return self.detail

    def with_remark(self, detail: str) -> Self:
        """This row with a remark of whoever made it, where there is one."""
        return self.model_copy(update={"detail": "; ".join(filter(None, (self.detail, detail)))}) if detail else self

    def reject(self, cause: str, detail: str = "") -> Self:
        """This row, rejected."""
        return self.model_copy(update={"rejected": cause, "detail": detail})
