"""The numbers of the paper's tables and figures, by row; those of Table 1 stand in `published_scores.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

from speed.core.spec import Spec
from speed.data.published_scores import published


class PaperTable(Spec):
    """One table or figure of the paper."""

    source: str
    """Which one, and what its numbers are of."""
    rows: dict[str, dict[str, float]]
    """The numbers of each row, by name."""


@lru_cache(maxsize=1)
def paper_tables() -> dict[str, PaperTable]:
    """All of them, by the names of the studies."""
    text = (files("speed.data") / "paper_results.json").read_text(encoding="utf-8")
    table_1 = published().table_1
    first = PaperTable(
        source=table_1.source.removeprefix("paper's: "),
        rows={f"{row.name}, {row.examples}": {"mean": row.mean, **row.types} for row in table_1.rows},
    )
    return {"table1": first} | {name: PaperTable.model_validate(table) for name, table in json.loads(text).items()}
