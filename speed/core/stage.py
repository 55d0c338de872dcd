"""Stages, pools and takes: the three nouns of the pipeline (DESIGN D3, D6).

A `Stage` builds one artifact: a model, a deduplicated corpus, a table of scores. A `Pool` grows: its row i is a
function of (recipe, seed, i), so its size is in no key. A `Take` is the first n rows of a pool; it is what stages
read, and it is what makes data sizes nest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeAlias, TypeVar

from speed.core.spec import Backend, Json, Spec, digest, recipe

if TYPE_CHECKING:
    from speed.core.context import Context, Runtime


class Row(Spec):
    """One row of a pool. A rejected row is data too: it stays in its place and says why."""

    row: int
    """Position in the pool, from 0."""
    rejected: str | None = None
    """Cause of the rejection, from a closed set per pool; None for an accepted row."""
    detail: str = ""
    """What the cause was seen on, or a remark of the teacher on its own answer, for a reader."""

    def noted(self, detail: str) -> Self:
        """This row with a remark of whoever made it, where there is one."""
        return self.model_copy(update={"detail": "; ".join(filter(None, (self.detail, detail)))}) if detail else self

    def reject(self, cause: str, detail: str = "") -> Self:
        """This row, rejected."""
        return self.model_copy(update={"rejected": cause, "detail": detail})


R = TypeVar("R", bound=Row)
T = TypeVar("T")


@dataclass(frozen=True)
class Node(ABC):
    """Something that can be built: named, versioned, and identified by its recipe."""

    name: ClassVar[str]
    """Name of the box in the paper's Figure 2, in the plan, and in the store."""
    version: ClassVar[int] = 1
    """Raised by hand when the same recipe begins to give another result (DESIGN D4)."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Slow modules that the stage imports itself; those of its backends are theirs to name."""

    @property
    def label(self) -> str:
        """Name for the reader, where one class stands in several places."""
        return self.name

    @property
    def heavy(self) -> tuple[str, ...]:
        """Slow modules of this node and its backends; none means that it is built without a process of its own."""
        return tuple(dict.fromkeys(sum((part.heavy for part in self._backends()), self.packages)))

    def alone(self, runtime: Runtime) -> bool:
        """Whether a backend of it needs a device for itself: two models of 8B do not fit into one GPU."""
        return any(part.alone(runtime) for part in self._backends())

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

    @property
    def upstream(self) -> dict[str, Upstream]:
        """The fields that are stages, pools or takes."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, (Node, Take))}


@dataclass(frozen=True)
class Stage(Node, Generic[T]):
    """Builds one artifact of payload type T into a folder."""

    @abstractmethod
    def run(self, out: Path, ctx: Context) -> None:
        """Write the payload into `out` (which may hold the checkpoint of an interrupted run) and nothing elsewhere."""

    def work(self) -> Work:
        """What a run would cost, known before it starts."""
        return Work()


@dataclass(frozen=True)
class Pool(Node, Generic[R]):
    """Grows row by row; `take(n)` is the way to read it."""

    row: ClassVar[type[Row]]
    """Class of its rows."""
    whole_blocks: ClassVar[bool] = False
    """True where a row's value depends on its neighbours in a batch: then rows come in whole blocks only."""

    @property
    def block(self) -> int:
        """Rows of a shard. Shards begin at multiples of it."""
        return 512

    @abstractmethod
    def build(self, start: int, stop: int, ctx: Context) -> Iterator[R]:
        """Rows start..stop-1, in order. Where `whole_blocks`, start and stop are multiples of `block`."""

    def divisible(self, runtime: Runtime) -> bool:
        """Whether several processes may build blocks of it on this machine at the same time."""
        return False

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

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        """What follows from the counts of any number of rows, for manifests and the report. A count whose name has a
        slash is the material of these figures; the report does not show it by itself."""
        return {}

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


@dataclass(frozen=True)
class Work:
    """Estimate of a build: what a plan adds up."""

    calls: int = 0
    """Requests to the teacher, retries aside."""
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float | None = 0.0
    """List price; None when the teacher's price is unknown."""
    generated: int = 0
    """Texts that a small model writes."""
    trained: int = 0
    """Records seen in training, epochs counted."""
    waiting: float = 0.0
    """Seconds that the teacher takes, one request after another."""

    def __add__(self, other: Work) -> Work:
        dollars = None if self.dollars is None or other.dollars is None else self.dollars + other.dollars
        return Work(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            dollars,
            self.generated + other.generated,
            self.trained + other.trained,
            self.waiting + other.waiting,
        )


Upstream: TypeAlias = "Node | Take[Any]"
