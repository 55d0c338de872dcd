"""How often a run uses each topic: too few topics make the corpus less varied than the paper's (Table 3)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from speed.core.errors import UserError
from speed.core.graph import StageStatus
from speed.core.store import Store
from speed.data.records import Kind
from speed.stages.base import AssignedPool
from speed.stages.tasks import Tasks
from speed.stages.topics import Topics

MOST_USES = 5
"""Uses of a topic in one kind above which answers are bought only on request (ours)."""


class TopicUse(NamedTuple):
    """How many topics there are, and the draw that uses each most often."""

    topics: int
    draws: int
    """Topics drawn for one kind of one role: its brainstorm calls, or its STS examples, which have no other task."""
    role: str
    kind: Kind
    brainstorming: int
    """Brainstorm calls of all roles and kinds together."""

    @property
    def times(self) -> float:
        """Uses of each topic."""
        return self.draws / self.topics

    def __str__(self) -> str:
        what = "examples" if self.kind is Kind.STS else "brainstorm calls"
        return (
            f"{self.topics:,} topics recur: each is used {self.times:,.1f} times for the {self.draws:,} {what} of "
            f"{self.kind} in {self.role}; brainstorm calls for each in all: {self.brainstorming / self.topics:,.1f}"
        )


def recurring_topics(found: Iterable[StageStatus], store: Store) -> TopicUse | None:
    """The draw that uses topics most often; None where no topic comes a second time within a kind.

    A file is read only as far as its topics suffice for the largest draw.

    Raises:
        UserError: for topics that cannot be read.
    """
    draws: dict[tuple[str, Kind], int] = {}
    brainstorming, source = 0, None
    for goal in (status.goal for status in found):
        node = goal.node
        if isinstance(node, Topics):
            source = node
        elif isinstance(node, Tasks):
            brainstorming += goal.rows
            draws.update(((node.plan.role, kind), rows) for kind, rows in node.plan.asked.counts(goal.rows).items())
        elif isinstance(node, AssignedPool):
            draws[node.assignment.role, Kind.STS] = node.assignment.mix.counts(goal.rows)[Kind.STS]
    if source is None or not draws:
        return None
    (role, kind), most = max(draws.items(), key=lambda draw: draw[1])
    manifest = store.manifest(source)
    topics = manifest.counts["out"] if manifest else sum(1 for _ in islice(source.topics(), most))
    return TopicUse(topics, most, role, kind, brainstorming) if topics < most else None


def tell_recurring_topics(found: Iterable[StageStatus], store: Store) -> None:
    """A note of how often topics are used, where they recur. Topics that cannot be read are told elsewhere."""
    with suppress(UserError):
        if (use := recurring_topics(found, store)) is not None:
            print(f"note: {use}", file=sys.stderr)


def refuse_recurring_topics(use: TopicUse | None) -> None:
    """Do not pay for a corpus whose topics come again and again.

    Raises:
        UserError: where each topic is used more than `MOST_USES` times.
    """
    if use is not None and use.times > MOST_USES:
        raise UserError(
            f"the topics are too few to pay for: {use}\n"
            f"  give more (topics=odp topics.path=structure.rdf.u8.gz; docs/topics_and_data.md says where there are "
            f"some), at least {-(-use.draws // MOST_USES):,};\n"
            "  or take fewer examples (scale.examples), or set topics.recur=true"
        )
