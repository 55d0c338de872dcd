"""Deaths of workers: their block is done again, and a GPU, or another machine, on which they die in a row is not used
any more in a run."""

from __future__ import annotations

from collections import Counter

from speed.core.devices import Devices, named
from speed.core.elsewhere import Elsewhere
from speed.core.spec import Json
from speed.core.worker import Blocks, Worker

TRIES = 3
"""Deaths of workers on one block after which the pool has failed."""
IN_A_ROW = 2
"""Deaths without a block done between them, after which a place is lost."""


def too_few_left(wanted: int, left: int) -> str:
    """What is said where a stage cannot begin, or go on, since GPUs have been lost."""
    needed = "1 GPU is needed" if wanted == 1 else f"{wanted} GPUs are needed"
    return (
        f"{needed}, and {left or 'none'} {'is' if left < 2 else 'are'} left\n"
        "  look at those that failed (nvidia-smi), then run the same command again, which begins with all of them"
    )


class Deaths:
    """By the place that they happened on: a GPU of this machine by number, another machine by its id."""

    def __init__(self, devices: Devices, elsewhere: Elsewhere | None) -> None:
        self.devices, self.elsewhere = devices, elsewhere
        self.in_a_row: Counter[int | str] = Counter()

    def forget(self, worker: Worker) -> None:
        """It has done a block: its places are sound."""
        for place in _places(worker):
            self.in_a_row.pop(place, None)

    def outlived(self, worker: Worker, blocks: Blocks, event: dict[str, Json]) -> str:
        """Count the death of a worker. What is to be said where the pool goes on after it: its block is done again,
        elsewhere where a device has been lost. Empty where the pool has failed, of which the event then says why."""
        if worker.block is not None:
            blocks.deaths[worker.block] += 1
            if blocks.deaths[worker.block] >= TRIES:
                event["message"] += f", the third time at rows {worker.block.start:,} to {worker.block.stop - 1:,}"
                return ""
        lost = self._lost(worker)
        rest = f"; {lost} {'are' if ',' in lost else 'is'} not used any more in this run" if lost else ""
        left = len(self.devices.working)
        if not worker.machine and left < len(worker.grant.devices):
            event["message"] += f"{rest}: {too_few_left(len(worker.grant.devices), left)}"
            return ""
        again = "; its block is done again" if worker.block is not None else ""
        return f"a worker died ({event['message']}; log: {worker.log}){again}{rest}"

    def _lost(self, worker: Worker) -> str:
        """What is lost by the death of a worker, in words."""
        lost: list[int] = []
        for place in _places(worker):
            self.in_a_row[place] += 1
            if self.in_a_row[place] < IN_A_ROW:
                continue
            if isinstance(place, str):
                assert self.elsewhere is not None
                self.elsewhere.left_out.add(place)
                return "its machine"
            if place in self.devices.working:
                self.devices.working.remove(place)
                lost.append(place)
        return named(lost) if lost else ""


def _places(worker: Worker) -> tuple[int | str, ...]:
    return (worker.machine,) if worker.machine else worker.grant.devices
