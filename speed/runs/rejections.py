"""Stop a run behind a stage of which nearly all rows were rejected: what is left teaches no model."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from speed.core.errors import UserError
from speed.core.graph import Goal
from speed.core.rejections import EXAMPLES, causes_of_nearly_all, named, shown
from speed.core.stage import Pool
from speed.core.store import Store
from speed.data.answers.parse import CAUSES
from speed.data.quality.guidelines import CAUSES as GUIDELINES
from speed.runs.stage_lines import stage_line

PROVIDER = ("empty", "refusal", "content_filter", "unfinished_reasoning")
"""Causes that lie with the provider of a teacher, and may have gone when it is asked again."""
LIMITS = {"brainstorm": "limits.tasks", "judge": "limits.judgement", "revise": "limits.revision"}
"""The setting of a teacher's longest answer, by purpose; others write examples."""


class NearlyAllRejected(UserError):
    """Nearly all rows of a stage were rejected."""


def refuse_nearly_all_rejected(goal: Goal, store: Store) -> None:
    """Look at a pool that is built.

    Raises:
        NearlyAllRejected: with the causes, two examples, and the setting that helps.
    """
    pool = goal.node
    if not isinstance(pool, Pool) or not goal.rows:
        return
    line = stage_line(goal, store, built_now=False)
    causes = causes_of_nearly_all(line.rows_in or 0, line.rejected, pool.choices)
    if not causes:
        return
    rejected = (row for row in store.rows(pool.take(goal.rows)) if row.rejected is not None)
    examples = "\n".join(map(shown, islice((row for row in rejected if row.rejected in causes), EXAMPLES)))
    remedies = "\n".join(f"  {remedy}" for remedy in _remedies(pool.purpose, causes))
    raise NearlyAllRejected(
        f"{goal.label}: {causes.total():,} of {line.rows_in:,} rows are rejected, and the run stops here: "
        f"{named(causes)}, for example\n{examples}\n{remedies}\n  all rows: {store.folder(pool)}"
    )


def _remedies(purpose: str, causes: Counter[str]) -> list[str]:
    """What may help, by the causes; each names a setting."""
    found = []
    if purpose and (asked := [cause for cause in PROVIDER if cause in causes]):
        found.append(
            "once the cause is mended at the provider (or by teacher.model, teacher.system), ask these rows again: "
            f"teacher.ask_again=[{','.join(asked)}]"
        )
    if causes.keys() & {"truncated", "unfinished_reasoning"}:
        found.append(f"answers were cut short: raise {LIMITS.get(purpose, 'limits.example')}")
    if unread := [cause for cause in causes if cause in CAUSES and cause not in (*PROVIDER, "truncated")]:
        remedy = (
            "teacher.structured=json_schema where the provider has it, teacher.examples=3, or another teacher.model"
            if purpose
            else "more examples to learn from (counts.sft), or a larger generator.base"
        )
        found.append(f"answers could not be read ({', '.join(unread)}): {remedy}")
    if broken := [cause for cause in causes if cause in GUIDELINES]:
        found.append(f"examples break their guidelines ({', '.join(broken)}): guidelines=keep drops none for that")
    return found or ["look at the rows, and change what made them"]
