"""What a stage may reach while it runs. Nothing here can change a result, so nothing here is in a key (DESIGN D12)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from speed.core.errors import UserError
from speed.core.ledger import Ledger
from speed.core.spec import Json, Spec
from speed.core.stage import Row, Stage, Take
from speed.core.store import Store

R = TypeVar("R", bound=Row)


class Runtime(Spec):
    """Machine and money: how a run is carried out, never what it computes."""

    home: Path = Path("speed_home")
    """Root of everything built; the environment variable SPEED_HOME sets its default."""
    side_by_side: int = 2
    """Independent stages that may run at the same time."""
    threads: int = 1
    """Arithmetic threads of one stage (torch and OpenMP)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto takes a GPU if there is one."""
    concurrency: int = 32
    """Requests to a teacher in flight, of all stages and processes of a root together."""
    api_base: str | None = None
    """URL of an OpenAI-compatible server, for teacher=openai_compatible."""
    max_usd: float | None = Field(None, ge=0)
    """Dollars that teachers may ever cost under this root: refuse to start above it, stop buying at it."""
    max_tokens: int | None = Field(None, ge=0)
    """The same in tokens, input and output together."""
    max_calls: int | None = Field(None, ge=0)
    """The same in answers."""
    watchdog_seconds: float = Field(900.0, gt=0)
    """A teacher that says nothing for so long, with calls in flight, ends the run with the reason."""
    checkpoint_seconds: float = 60.0
    """Time between two checkpoints of a training."""
    tracking_dir: Path | None = None
    """Folder of W&B's files; inside the run's folder when null."""
    processes: int = Field(default=1, ge=1)
    """Training processes of one stage, all nodes together; more than one needs a distributed trainer."""
    strategy: Literal["ddp", "zero3"] = "ddp"
    """How processes share a training: each with the whole model, or with a part of it each (ZeRO-3: DeepSpeed's for
    generators, torch's own fully_shard for embedders)."""
    generation_gpus: int = Field(default=1, ge=1)
    """GPUs that share a model which generates (vLLM's tensor parallelism)."""
    nodes: int = Field(default=1, ge=1)
    """Machines that the processes stand on: nodes of the Slurm job, or machines where the printed command is typed."""
    rendezvous: str | None = None
    """HOST:PORT where several machines meet; from Slurm's variables, or this machine's name, when null."""
    grace_seconds: float = 60.0
    """How long a run that is told to end waits for the checkpoints of its trainings."""
    vectors_gb: float = Field(default=50.0, ge=0)
    """Largest cache of text vectors on disk (`cache/vectors` under the root); 0 keeps none."""


@dataclass
class Tally:
    """What a build saw and spent; written into its manifest."""

    counts: Counter[str] = field(default_factory=Counter)
    """`in`, `out` and whatever else the stage counts."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows turned away, by cause."""
    cost: Counter[str] = field(default_factory=Counter)
    """`calls`, `retries`, `cached`, `tokens_in`, `tokens_out`, and causes of failure."""
    dollars: float | None = 0.0
    """List price of the answers used; None as soon as one price is unknown."""
    metrics: dict[str, Json] = field(default_factory=dict)
    """Figures for the report, such as the last loss."""
    ledger: Ledger = field(default_factory=Ledger)
    """Every request to a teacher, by purpose, kind, model and cause."""

    def spend(self, dollars: float | None) -> None:
        """Add the price of one answer; an unknown price makes the sum unknown, never smaller."""
        self.dollars = None if dollars is None or self.dollars is None else self.dollars + dollars


Send = Callable[[dict[str, Json]], None]


def silence(event: dict[str, Json]) -> None:
    """Progress that nobody watches."""


@dataclass
class Context:
    """Handed to `Stage.run` and `Pool.build`."""

    store: Store
    runtime: Runtime
    label: str = ""
    """The box that is being built."""
    send: Send = silence
    """Where progress goes."""
    tally: Tally = field(default_factory=Tally)
    spent: float | None = 0.0
    """Dollars of the tallies that are closed."""
    calls: int = 0
    """Calls of the tallies that are closed."""
    _last: float = 0.0

    def rows(self, take: Take[R]) -> Iterator[R]:
        """The rows of a take, in order, each shard checked against its sha256 as it is read."""
        return self.store.rows(take)

    def accepted(self, take: Take[R]) -> Iterator[R]:
        """The rows of a take that were not rejected."""
        return (row for row in self.rows(take) if row.rejected is None)

    def accepted_rows(self, take: Take[R]) -> list[R]:
        """The rows of a take that were not rejected, for a training, which needs two.

        Raises:
            UserError: when there are fewer, with what became of the others.
        """
        rows = list(self.rows(take))
        found = [row for row in rows if row.rejected is None]
        if len(found) < 2:
            lost = Counter(row.rejected for row in rows if row.rejected is not None)
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(lost.items())) or "none turned away"
            raise UserError(
                f"a training needs at least two rows; of the {len(rows)} rows in '{take.pool.label}' only {len(found)} "
                f"can be learned from ({causes})\n  raise its count (counts.sft, counts.pairs, counts.revisions), or "
                f"look at the rows: {self.store.folder(take.pool)}"
            )
        return found

    def folder(self, stage: Stage[Any]) -> Path:
        """The payload folder of a built stage, each file checked against its sha256."""
        return self.store.payload(stage)

    def progress(self, done: int, total: int, unit: str, **figures: float) -> None:
        """Say how far the build is; at most ten times a second, the end always."""
        now = time.monotonic()
        if done < total and now - self._last < 0.1:
            return
        self._last = now
        spent = None if self.tally.dollars is None or self.spent is None else self.spent + self.tally.dollars
        event = {"event": "progress", "done": done, "total": total, "unit": unit, "figures": figures}
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
