"""Stages, pools and takes: the three nouns of the pipeline; and the context that they are built in.

A `Stage` builds one artifact: a model, a deduplicated corpus, a table of scores. A `Pool` grows: its row i is a
function of (recipe, seed, i), so its size is in no key. A `Take` is the first n rows of a pool; it is what stages
read, and it is what makes data sizes nest. A `Context` is what a stage may reach while it runs; nothing in it can
change a result, so nothing in it is part of a key. They stand in one file since each names the others.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from speed.core.allocation import Demand, Grant
from speed.core.build_settings import BuildSettings
from speed.core.content import HubRepository
from speed.core.machine import cores
from speed.core.row import Row
from speed.core.spec import Backend, Json, digest, recipe
from speed.core.work import Tally, Work

R = TypeVar("R", bound=Row)
T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """Something that can be built: named, versioned, and identified by its recipe."""

    name: ClassVar[str]
    """Name of the box in the paper's Figure 2, in the plan, and in the store."""
    version: ClassVar[int] = 1
    """Raised by hand when the same recipe begins to give another result: source code is not hashed."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Slow modules that the stage imports itself; those of its backends are theirs to name."""
    purpose: ClassVar[str] = ""
    """What a teacher is asked for, as the ledger names it (`brainstorm`, `seed` ...); empty where none is asked."""

    @property
    def label(self) -> str:
        """Name for the reader, where one class stands in several places."""
        return self.name

    @property
    def heavy(self) -> tuple[str, ...]:
        """Slow modules of this node and its backends; none means that it is built without a process of its own."""
        return tuple(dict.fromkeys(sum((part.heavy for part in self._backends()), self.packages)))

    def demand(self, runtime: Any) -> Demand:
        """What its build can use of the machine's devices and cores."""
        return Demand()

    def _backends(self) -> list[Backend]:
        parts = [getattr(self, field.name) for field in fields(self)]
        return [part for part in parts if isinstance(part, Backend)]

    def recipe(self) -> Json:
        """How this node enters the key of what stands downstream: by its own key."""
        return {"stage": self.name, "key": self.key}

    @cached_property
    def own_recipe(self) -> Mapping[str, Json]:
        """Every field of this node; upstream nodes by their keys."""
        return {field.name: recipe(getattr(self, field.name)) for field in fields(self)}

    @cached_property
    def key(self) -> str:
        """sha256 of `{stage, version, fields}`."""
        return digest({"stage": self.name, "version": self.version, "fields": self.own_recipe})

    def check(self, runtime: Any) -> None:
        """Refuse, before anything is built, what this machine or its settings cannot carry out.

        Raises:
            UserError: with the remedy.
        """

    def check_models(self) -> None:
        """Refuse, before anything is built or paid for, base models that it cannot use. They are on this machine, or
        can be fetched; weights are not read.

        Raises:
            UserError: with the remedy.
        """

    def read_inputs(self, runtime: Any, say: Callable[[str], None]) -> None:
        """Read whole, before anything is paid for, the user's files of which `check` reads the beginning.

        Raises:
            UserError: naming file and line.
        """

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        """Models and data sets that building it reads from the hub or its local cache."""
        return ()

    def training(self) -> Any:
        """What a plan must know of a training of a generator (`speed.ports.Training`); None where none is trained."""
        return None

    def trial(self) -> Any:
        """What `probe=true` carries out to measure memory and speed (`speed.stages.trials.Trial`); None where nothing
        trains or computes with a model."""
        return None

    def sample_prompts(self, rows: int, ctx: Context[Any]) -> Iterator[tuple[str, str]]:
        """(kind, text) of what a teacher is sent for the first rows: recorded where they are built, otherwise drawn as
        they will be, with stand-ins for what a model has yet to write. Nothing is asked.

        Args:
            ctx: its `rows` end where no more are built.
        """
        return iter(())

    def model_prompt(self, ctx: Context[Any]) -> str:
        """The first prompt of a training exactly as its model will read it; empty where there is none."""
        return ""

    @property
    def refers_to(self) -> tuple[Node, ...]:
        """Further nodes whose files are read wherever those of this one are, such as the weights under an adapter."""
        return ()

    @property
    def upstream(self) -> dict[str, Upstream]:
        """The fields that are stages, pools or takes."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, (Node, Take))}


@dataclass(frozen=True)
class Stage(Node, ABC, Generic[T]):
    """Builds one artifact of payload type T into a folder."""

    @abstractmethod
    def run(self, out: Path, ctx: Context[Any]) -> None:
        """Write the payload into `out` (which may hold the checkpoint of an interrupted run) and nothing elsewhere."""

    def work(self) -> Work:
        """What a run would cost, known before it starts."""
        return Work()


@dataclass(frozen=True)
class Pool(Node, ABC, Generic[R]):
    """Grows row by row; `take(n)` is the way to read it."""

    row: ClassVar[type[Row]]
    """Class of its rows."""
    whole_blocks: ClassVar[bool] = False
    """True where a row's value depends on its neighbours in a batch: then rows come in whole blocks only."""
    choices: ClassVar[frozenset[str]] = frozenset()
    """Causes of rejection by which a pool chooses among answers that are of use: most rows may be rejected for them
    without anything being wrong."""

    @property
    def block(self) -> int:
        """Rows of a shard. Shards begin at multiples of it."""
        return 512

    @abstractmethod
    def build(self, start: int, stop: int, ctx: Context[Any]) -> Iterator[R]:
        """Rows start..stop-1, in order. Where `whole_blocks`, start and stop are multiples of `block`."""

    def rows_needed(self, upstream: str, rows: int) -> int:
        """Rows of the upstream pool in field `upstream` that the first `rows` rows of this one read."""
        return rows

    def work(self, start: int, stop: int) -> Work:
        """What rows start..stop-1 would cost, known before they are bought: at least, where a row may need several
        tries."""
        return Work()

    def work_at_most(self, start: int, stop: int) -> Work:
        """The same, where every row needs all the tries that it may take."""
        return self.work(start, stop)

    def known_asks(self, start: int, stop: int, ctx: Context[Any]) -> Iterator[tuple[Any, Any] | None]:
        """(teacher, request) of the first requests that rows start..stop-1 make, as far as they can be told from what
        is built; None for a row that asks nothing. A plan looks them up in the journal.

        Args:
            ctx: its `rows` end where no more are built.
        """
        return iter(())

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        """What follows from the counts of any number of rows, for manifests and the report. A count whose name has a
        slash is the material of these figures; the report does not show it by itself."""
        return {}

    def sample_rows(self, rows: int, ctx: Context[Any]) -> Iterator[R]:
        """The first rows, for `sample_prompts` of what reads them: built ones, then stand-ins if it has any."""
        return ctx.rows(self.take(rows))

    def built_for(self, rows: int) -> int:
        """How many rows are built where so many are wanted."""
        return -(-rows // self.block) * self.block if self.whole_blocks else rows

    def take(self, rows: int) -> Take[R]:
        """The first `rows` rows."""
        return Take(self, rows)


@dataclass(frozen=True)
class Take(Generic[R]):
    """The first `rows` rows of a pool."""

    pool: Pool[R]
    rows: int

    def recipe(self) -> Json:
        """Identity: the pool's key and the number of rows."""
        return {"pool": self.pool.name, "key": self.pool.key, "rows": self.rows}


Upstream: TypeAlias = "Node | Take[Any]"


S = TypeVar("S", bound=BuildSettings)
Send = Callable[[dict[str, Json]], None]
"""Receives the events of a build."""


def silence(event: dict[str, Json]) -> None:
    """Progress that nobody watches."""


class Built(Protocol):
    """What is built already, for reading. `speed.core.store.Store` is one."""

    home: Path
    """Root of the store; caches lie in `cache/` below it."""

    def rows(self, take: Take[R], start: int = 0) -> Iterator[R]:
        """The rows of a take from `start` on, in order, each shard checked against its sha256 as it is read."""

    def payload(self, stage: Stage[Any]) -> Path:
        """The folder of a built stage, each file checked against its sha256."""

    def folder(self, node: Node) -> Path:
        """Where a node's artifact lies."""


@dataclass
class Context(Generic[S]):
    """Handed to `Stage.run` and `Pool.build`."""

    store: Built
    runtime: S
    label: str = ""
    """The box that is being built."""
    send: Send = silence
    """Where progress goes."""
    tally: Tally = field(default_factory=Tally)
    granted: Grant | None = None
    """What of the machine the build has for itself; None where nobody shares it out."""
    gpus: int = 0
    """GPUs that the build computes on; a backend that takes some says so here."""
    spent: float | None = 0.0
    """Dollars of the tallies that are closed."""
    calls: int = 0
    """Calls of the tallies that are closed."""
    asks_a_row: int = 1
    """Answers that a row needs: how many rows those make that came before their turn."""
    _last: float = 0.0
    _told: tuple[int, int, str, dict[str, float]] | None = None
    _shown: int = 0
    """Rows that were said to be done, those that came before their turn among them."""
    _kept: tuple[ExitStack, dict[str, Any]] | None = None

    @property
    def grant(self) -> Grant:
        """What the build has for itself; where nobody shares the machine out, the threads that the runtime says."""
        threads = self.runtime.threads
        return self.granted or Grant(threads=cores() if threads == "auto" else threads)

    @property
    def in_blocks(self) -> bool:
        """Whether this process builds blocks of a pool, as others do at the same time: each has its share of the
        machines, and takes no more of them."""
        return self._kept is not None

    @contextmanager
    def several_blocks(self) -> Iterator[None]:
        """Inside, what `keep_open` has opened stays open from one block to the next."""
        with ExitStack() as stack:
            self._kept = (stack, {})
            try:
                yield
            finally:
                self._kept = None

    @contextmanager
    def keep_open(self, name: str, make: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
        """What `make` opens, such as a loaded model: for this use alone, or for all of `several_blocks`."""
        if self._kept is None:
            with make() as made:
                yield made
            return
        stack, found = self._kept
        if name not in found:
            found[name] = stack.enter_context(make())
        yield found[name]

    def rows(self, take: Take[R], start: int = 0) -> Iterator[R]:
        """The rows of a take from `start` on, in order, each shard checked against its sha256 as it is read."""
        return self.store.rows(take, start)

    def accepted(self, take: Take[R]) -> Iterator[R]:
        """The rows of a take that were not rejected."""
        return (row for row in self.rows(take) if row.rejected is None)

    def folder(self, stage: Stage[Any]) -> Path:
        """The payload folder of a built stage, each file checked against its sha256."""
        return self.store.payload(stage)

    def progress(self, done: int, total: int, unit: str, **figures: float) -> None:
        """Say how far the build is; at most ten times a second, the end always."""
        goes_on = self._told is not None and self._told[0] <= done and self._told[1:3] == (total, unit)
        self._told = done, total, unit, figures
        self._shown = max(done, self._shown if goes_on else 0)
        self._send_progress(at_once=done >= total)

    def answered_ahead(self, answers: int) -> None:
        """Say that so many answers are there behind one that is waited for: rows are done in order, and one slow answer
        is no standstill."""
        if self._told is None:
            return
        done, total, *_ = self._told
        self._shown = max(self._shown, min(done + answers // self.asks_a_row, total - 1))
        self._send_progress()

    def _send_progress(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._told is None or (now - self._last < 0.1 and not at_once):
            return
        self._last = now
        _, total, unit, figures = self._told
        spent = None if self.tally.dollars is None or self.spent is None else self.spent + self.tally.dollars
        event = {"event": "progress", "done": self._shown, "total": total, "unit": unit, "figures": figures}
        self.send({**event, "calls": self.calls + self.tally.cost["calls"], "dollars": spent})

    def metric(self, step: int, **figures: float) -> None:
        """One point of the training curves (loss, learning rate, gradient norm, tokens a second ...)."""
        self.send({"event": "metric", "step": step, "figures": figures})

    def say(self, message: str) -> None:
        """One line for the reader that must not be missed."""
        self.send({"event": "say", "message": message})

    @contextmanager
    def fresh_tally(self) -> Iterator[Tally]:
        """A new tally for one shard of a pool."""
        before, self.tally = self.tally, Tally()
        try:
            yield self.tally
        finally:
            self.calls += self.tally.cost["calls"]
            known = self.spent is not None and self.tally.dollars is not None
            self.spent = (self.spent or 0.0) + (self.tally.dollars or 0.0) if known else None
            self.tally = before
