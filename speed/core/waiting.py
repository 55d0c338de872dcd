"""Why a build waits, in words for the log: what it needs, and who has that now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from speed.core.allocation import Ready
from speed.core.worker import Worker


def why_waiting(
    wish: Ready, here: Sequence[Worker], memory: Mapping[str, float], most: float | None, side_by_side: int
) -> str:
    """One line; empty where it waits for nothing but its turn.

    Args:
        here: the workers of this machine.
        memory: GB that a worker on cores takes, by key.
        most: GB that there are, where that is known.
    """
    if wish.devices:
        others = "; ".join(
            f"{worker.goal.label} has GPU {', '.join(map(str, worker.grant.devices))}"
            for worker in here
            if worker.grant.devices
        )
        return f"waits for {wish.devices} GPU{'s' * (wish.devices > 1)}: {others}"
    on_cores = [worker for worker in here if not worker.grant.devices and memory[worker.goal.key]]
    held = sum(memory[worker.goal.key] for worker in on_cores)
    if len(on_cores) >= side_by_side or most is None or held + wish.gigabytes <= most:
        return ""
    others = ", ".join(f"{worker.goal.label} {memory[worker.goal.key]:.0f}" for worker in on_cores)
    return f"waits for memory: it takes about {wish.gigabytes:.0f} of {most:.0f} GB ({others})"
