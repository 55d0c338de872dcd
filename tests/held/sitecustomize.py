"""Put on PYTHONPATH, this keeps the stages that HELD names from ending: each waits where it would publish its result.

So a kill that is meant for a stage falls into it, however fast the machine is. Each that waits is written into the file
that HELD_LOG names. It waits until there is a file that HELD_UNTIL names, where that is set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

HANG = 3600.0
"""Seconds after which it goes on, should nobody kill it."""


def _held(publish: Callable[..., Any]) -> Callable[..., Any]:
    def wait(self: Any, node: Any, *rest: Any) -> Any:
        if node.label in os.environ["HELD"].split(","):
            with open(os.environ["HELD_LOG"], "a", encoding="utf-8") as log:
                log.write(f"{node.label}\n")
            begun, until = time.monotonic(), os.environ.get("HELD_UNTIL", "")
            while time.monotonic() - begun < HANG and not os.path.exists(until):
                time.sleep(0.1)
        return publish(self, node, *rest)

    return wait


if "HELD" in os.environ:
    from speed.core.store import Store

    for _name in ("publish", "write_shard"):
        setattr(Store, _name, _held(getattr(Store, _name)))
