"""Why a build waits, in words for the log: what it needs, and who has that now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from speed.core.allocation import Ready
from speed.core.devices import named
from speed.core.graph import Goal
from speed.core.spec import Json
from speed.core.worker import Worker

Listener = Callable[[str, dict[str, Json]], None]
"""Receives (label of the goal, event)."""


class Reasons:
    """Why goals wait, each reason said once."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        """By key and where."""

    def tell(self, goal: Goal, why: str, listen: Listener, where: str = "", alike: str = "") -> None:
        """Say why a goal waits, here or `where` else; nothing where the reason is empty.

        Args:
            alike: what the reason has in common with others that are not said after it.
        """
        if why and self._told.get(goal.key + where) != (alike or why):
            self._told[goal.key + where] = alike or why
            listen(goal.label, {"event": "say", "message": why})


def why_waiting(
    wish: Ready,
    here: Sequence[Worker],
    taken: Sequence[int],
    memory: Mapping[str, float],
    most: float | None,
    side_by_side: int,
) -> str:
    """One line; empty where it waits for nothing but its turn.

    Args:
        here: the workers of this machine.
        taken: GPUs that other commands have.
        memory: GB that a worker on cores takes, by key.
        most: GB that there are, where that is known.
    """
    if wish.devices:
        holders = [f"{worker.goal.label} has {named(worker.grant.devices)}" for worker in here if worker.grant.devices]
        if taken and not holders:
            return f"waits for {named(taken)}, which another command uses"
        if taken:
            holders.append(f"another command uses {named(taken)}")
        return f"waits for {wish.devices} GPU{'s' * (wish.devices > 1)}: {'; '.join(holders)}"
    on_cores = [worker for worker in here if not worker.grant.devices and memory[worker.goal.key]]
    held = sum(memory[worker.goal.key] for worker in on_cores)
    if len(on_cores) >= side_by_side or most is None or held + wish.gigabytes <= most:
        return ""
    others = ", ".join(f"{worker.goal.label} {memory[worker.goal.key]:.0f}" for worker in on_cores)
    return f"waits for memory: it takes about {wish.gigabytes:.0f} of {most:.0f} GB ({others})"
