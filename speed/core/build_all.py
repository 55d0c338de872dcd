"""Build what is missing of a run, and mend what is found damaged on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from speed.core.build_settings import BuildSettings
from speed.core.elsewhere import Elsewhere
from speed.core.errors import Later, StoreError, UserError
from speed.core.fork_servers import ForkServers
from speed.core.graph import Goal, stage_statuses
from speed.core.scheduler import Scheduler
from speed.core.stage import Pool
from speed.core.store import Store
from speed.core.waiting import Listener


class StageFailed(Exception):
    """A stage ended in a way that is not the user's mistake; its log has the traceback."""


def build_all(
    order: list[Goal],
    store: Store,
    runtime: BuildSettings,
    listen: Listener,
    logs: Path,
    preload: tuple[str, ...] = (),
    join: Callable[[], Elsewhere] | None = None,
) -> None:
    """Build the missing goals, independent ones side by side.

    Args:
        preload: names of modules worth importing once.
        join: connects to other machines, which work for stages that several workers can share.

    Raises:
        UserError: a mistake that a stage met. Later: some stages wait for what is under way elsewhere, and everything
            else is built. StageFailed: a crash. KeyboardInterrupt: passed on, workers ended.
    """
    built = _built(order, store)
    todo = [goal for goal in order if goal.key not in built]
    needs = [goal.node.heavy for goal in todo for _ in range(2 if isinstance(goal.node, Pool) else 1)]
    shared = any(isinstance(goal.node, Pool) and goal.node.demand(runtime).workers for goal in todo)
    elsewhere = join() if shared and join is not None else None
    servers = ForkServers(needs, ("speed.core.scheduler", *preload))
    scheduler = Scheduler(order, store, runtime, logs, servers, elsewhere)
    repairs = 0
    later: dict[str, str] = {}
    try:
        while len(built) < len(order) or scheduler.running:
            waiting = [goal for goal in order if goal.key not in built and goal.key not in later]
            ready = [goal for goal in waiting if all(key in built for key in goal.after)]
            if later and not ready and not scheduler.running:
                raise Later("\n".join(later[goal.key] for goal in order if goal.key in later))
            scheduler.start(ready, listen)
            for goal, event in scheduler.events():
                listen(goal.label, event)
                if event["event"] == "done":
                    built.add(goal.key)
                    later.pop(goal.key, None)
                elif event["event"] == "later":
                    later[goal.key] = f"{goal.label}: {event['message']}"
                elif event["event"] == "user_error":
                    kind = StoreError if event.get("store") else UserError
                    raise kind(f"{goal.label}: {event['message']}")
                elif event["event"] == "crash":
                    where = f"\n  log: {event['log']}" if "log" in event else ""
                    raise StageFailed(f"{goal.label} failed: {event['message']}{where}")
                elif event["event"] == "corrupt":
                    repairs += 1
                    if repairs > 100:
                        raise StageFailed(f"the store is damaged again and again: {event['message']}")
                    if Path(event["path"]).exists():
                        store.set_aside(Path(event["path"]))
                    built = _built(order, store)
    finally:
        scheduler.close()


def _built(order: list[Goal], store: Store) -> set[str]:
    return {status.goal.key for status in stage_statuses(order, store) if status.state == "hit"}
