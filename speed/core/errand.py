"""Errands of workers on machines that do not see the store: what their goal reads is carried there, their shards back.

A shard lies in the store before the scheduler hears of it, so whatever dies whenever, the store holds what counts.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from speed.core.cache import aside_name
from speed.core.carrying import bundles_of, carry, fetch_shard
from speed.core.depot import Bundle, Depot
from speed.core.elsewhere import NotCarried
from speed.core.errors import CorruptArtifact, StoreError, UserError, explained
from speed.core.graph import Goal, read_by
from speed.core.machine import GIGABYTE
from speed.core.spec import digest
from speed.core.stage import Pool
from speed.core.store import Span, Store

LOG = 1024**2
"""Bytes at the end of a worker's log that are carried back."""


class Carrier:
    """What the errands of one process of a run share: until `close`, a mark by which machines tell whether they see the
    store, and what has been said of those that do not."""

    def __init__(self, store: Store, purpose: str = "") -> None:
        """Prepare for the workers of one process of a run; nothing is written yet.

        Args:
            purpose: what is carried, where that has a depot of its own, which is cleared by itself.
        """
        self.store = store
        self.depot = digest([socket.gethostname(), str(store.home), purpose])[:16]
        self.keeps = False
        """Whether the store could not take what was made, so that it waits in the depots for the next run."""
        self._mark = aside_name(store.home / "cache" / "seen")  # what a killed run leaves goes as other such files do
        self._told = set[str]()
        self._one_at_a_time = defaultdict[str, threading.Lock](threading.Lock)

    def mark(self) -> str:
        """A file of the store, written now: one that is a day old may be taken for left."""
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        self._mark.touch()
        return str(self._mark)

    def bring(
        self,
        bundles: list[tuple[str, Bundle, Path]],
        depot: Depot,
        machine: str,
        say: Callable[[str], None],
        shards: Sequence[tuple[str, Sequence[str], int]] = (),
    ) -> Path:
        """Carry what a machine lacks of some bundles; the root of its depot. It is said before, and once that the
        machine does not see the store.

        Args:
            bundles: each with the name of what it is a part of, and the folder that has its files.
            shards: of each pool among them its folder, files and rows, as `Depot.keep_shards` takes them.

        Raises:
            UserError: where the machine cannot take it. CorruptArtifact: where the source is damaged.
        """
        root = depot.open()
        with self._one_at_a_time[machine]:  # the second of two workers there finds what the first was brought
            for pool in shards:
                depot.keep_shards(*pool)
            lacking = [each for each in bundles if depot.lacks(each[1])]
            names = ", ".join(dict.fromkeys(name for name, _, _ in lacking))
            size = sum(bundle.bytes for _, bundle, _ in lacking) / GIGABYTE
            what = f"{f'{size:.1f}' if size >= 0.05 else 'under 0.1'} GB are carried there ({names})"
            if machine not in self._told:
                self._told.add(machine)
                say(
                    f"{machine} does not see runtime.home={self.store.home}: it works in {root}, and what it makes is "
                    f"carried back; {what if lacking else 'what it reads is there'}"
                )
            elif lacking:
                say(f"{machine}: {what}")
            for _, bundle, source in lacking:
                carry(bundle, source, depot)
        return Path(root)

    def close(self) -> None:
        """Remove the mark."""
        self._mark.unlink(missing_ok=True)


class PoolErrand:
    """Of a worker that writes blocks of a pool (`speed.core.worker.run_worker`)."""

    def __init__(self, carrier: Carrier, goal: Goal, log: Path, args: tuple[Any, ...]) -> None:
        """Take a goal and the arguments of its worker.

        Args:
            log: of the worker, on this machine.
            args: with which it is called where the store is seen; store and log are among them.
        """
        self.carrier, self.goal, self.log, self.args = carrier, goal, log, args
        self.mark, self.depot = carrier.mark(), carrier.depot

    @property
    def keeps(self) -> bool:
        """Whether depots stay: also those of other machines, whose blocks the store could not take either."""
        return self.carrier.keeps

    def prepare(self, depot: Depot, machine: str, tell: Callable[[bytes], None]) -> tuple[Any, ...]:
        """Carry the finished shards and folders that the goal reads."""
        store = self.carrier.store

        def say(message: str) -> None:
            tell(_packed(event="say", message=message))

        with self._telling():
            bundles, shards = list[tuple[str, Bundle, Path]](), list[tuple[str, list[str], int]]()
            for node, rows in read_by(self.goal):
                found = bundles_of(store, node, rows)
                bundles += [(node.label, bundle, store.folder(node)) for bundle in found]
                if isinstance(node, Pool):
                    names = [file.path for bundle in found for file in bundle.files]
                    shards.append((store.folder(node).relative_to(store.home).as_posix(), names, rows))
            root = self.carrier.bring(bundles, depot, machine, say, shards)
        own = {id(store): Store(root), id(self.log): root / "logs" / self.log.name}
        return tuple(own.get(id(value), value) for value in self.args)

    def pass_on(self, depot: Depot, message: bytes) -> bytes:
        """Carry a shard back before its end is heard; what was carried there and is damaged now is removed there, so
        that the next worker is brought it again."""
        event = json.loads(message)
        if event["event"] == "shard":
            assert isinstance(self.goal.node, Pool)
            with self._telling():
                fetch_shard(depot, self.carrier.store, self.goal.node, Span(event["start"], event["stop"]))
        if event["event"] == "corrupt":
            depot.drop(event["path"])
            return _packed(event="crash", message=f"what it had been carried is damaged: {event['message']}")
        return message

    def finish(self, depot: Depot) -> None:
        """Add the worker's log to that of this machine."""
        path = f"logs/{self.log.name}"
        with suppress(OSError), self.log.open("ab") as log:
            log.write(depot.read(path, max(0, depot.size(path) - LOG), LOG))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """As `speed.core.build.attempt_build` tells how a build ended."""
        try:
            yield
        except CorruptArtifact as error:
            raise NotCarried(_packed(event="corrupt", message=str(error), path=str(error.path))) from error
        except StoreError as error:  # of this machine's store: no fault of the other's
            self.carrier.keeps = True
            raise NotCarried(_packed(event="user_error", message=str(error), store=True, here=True)) from error
        except UserError as error:
            told = _packed(event="user_error", message=str(error), store=False)
            raise NotCarried(told) from error
        except OSError as error:
            known = explained(error, f"carrying {self.goal.label}")
            told = _packed(event="crash", message=f"{type(error).__name__}: {error}")
            raise NotCarried(_packed(event="user_error", message=str(known), store=True) if known else told) from error


def _packed(**event: Any) -> bytes:
    return json.dumps(event).encode()
