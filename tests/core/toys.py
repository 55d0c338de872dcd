"""Small stages whose behaviour is plain arithmetic, to test the machinery around stages.

They name a package as slow to import, so that each is built in a process of its own, as real stages are.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.errors import CorruptArtifact, Later, UserError
from speed.core.row import Row
from speed.core.spec import Backend
from speed.core.stage import Node, Pool, Stage, Take
from speed.core.work import Work
from speed.runtime import Context, Runtime


class Number(Row):
    value: int


@dataclass(frozen=True)
class Numbers(Pool[Number]):
    factor: int
    size: int = 4
    whole: bool = False
    log: str = ""
    """A file that gets one line for each row that is computed; stands for what a row costs."""

    name: ClassVar[str] = "numbers"
    packages: ClassVar[tuple[str, ...]] = ("json",)
    row: ClassVar[type[Number]] = Number

    @property
    def block(self) -> int:
        return self.size

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Number]:
        for row in range(start, stop):
            if self.log:
                with open(self.log, "a") as file:
                    file.write(f"{row}\n")
            ctx.tally.cost["calls"] += 1
            made = Number(row=row, value=row * self.factor)
            yield made.reject("odd") if row % 2 else made
            ctx.progress(row - start + 1, stop - start, "rows")

    def work(self, start: int, stop: int) -> Work:
        return Work(calls=stop - start)


@dataclass(frozen=True)
class WholeNumbers(Numbers):
    name: ClassVar[str] = "whole numbers"
    whole_blocks: ClassVar[bool] = True


@dataclass(frozen=True)
class SharedNumbers(WholeNumbers):
    """Its log has the process of every row."""

    name: ClassVar[str] = "shared numbers"
    breaks: str = ""
    """A file whose absence makes the build of a later block fail, once."""
    together: int = 0
    """Workers that wait for one another before the first block is built."""
    dies: tuple[int, int] = (-1, 0)
    """(first row of a block, how many workers die on it)."""
    dies_after: int = -1
    """First row of a block on which a worker dies when its rows are written."""
    dies_last: int = 0
    """Blocks that are written before it dies."""
    bad_device: str = ""
    """A device on which every worker dies."""
    group: int = 1
    """Devices of each worker."""

    def demand(self, runtime: Runtime) -> Demand:
        return Demand((self.group,), workers=True)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Number]:
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {start} {stop}\n")
        if self.bad_device and self.bad_device in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
            os.kill(os.getpid(), signal.SIGKILL)  # before the others go on, which count it
        while len({line.split()[0] for line in Path(self.log).read_text().splitlines()}) < self.together:
            time.sleep(0.01)
        tries = sum(line.split()[1] == str(start) for line in Path(self.log).read_text().splitlines())
        if start == self.dies[0] and tries <= self.dies[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            for made in super_build(self, start, stop, ctx):
                if self.breaks and made.row == stop - 1 and start and first_to_make(Path(self.breaks)):
                    raise CorruptArtifact(Path(self.breaks).with_suffix(".gone"), "the sha256 differs")
                yield made
        finally:  # closed by the builder, which has written the rows
            if start == self.dies_after:
                while len(ctx.store.shards(self)) < self.dies_last:
                    time.sleep(0.01)
                time.sleep(1.0 if self.dies_last else 0.0)  # for the others to end; a pass is no proof, a failure is
                os.kill(os.getpid(), signal.SIGKILL)


def first_to_make(file: Path) -> bool:
    """Whether the file was not there, of all processes that ask."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def super_build(numbers: Numbers, start: int, stop: int, ctx: Context) -> Iterator[Number]:
    """Rows without a line in the log."""
    return Numbers(numbers.factor, numbers.size).build(start, stop, ctx)


class Card(Backend):
    """A part that wants a device, on every machine that has one."""

    heavy: ClassVar[tuple[str, ...]] = ("json",)
    number: int


@dataclass(frozen=True)
class OnCard(Stage[int]):
    card: Card

    name: ClassVar[str] = "on card"

    @property
    def label(self) -> str:
        return f"on card {self.card.number}"

    def demand(self, runtime: Runtime) -> Demand:
        return Demand((1,))

    def run(self, out: Path, ctx: Context) -> None:
        (out / "seen.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


@dataclass(frozen=True)
class OnCards(Stage[int]):
    """Takes so many devices for itself."""

    count: int
    log: str
    """A file that gets a line at the beginning and one at the end."""
    until: str = ""
    """A file that it waits for, between the two."""

    name: ClassVar[str] = "on cards"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    def demand(self, runtime: Runtime) -> Demand:
        return Demand((self.count,))

    def run(self, out: Path, ctx: Context) -> None:
        for word in ("begins", "ends"):
            with open(self.log, "a") as file:
                file.write(f"{os.environ['CUDA_VISIBLE_DEVICES']} {word}\n")
            while self.until and not Path(self.until).exists():
                time.sleep(0.01)
        (out / "seen.txt").touch()


@dataclass(frozen=True)
class Large(Stage[int]):
    """Takes nine gigabytes on cores."""

    number: int
    log: str
    """A file that gets a line at the beginning and one at the end."""

    name: ClassVar[str] = "large"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    @property
    def label(self) -> str:
        return f"large {self.number}"

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(gigabytes=9.0)

    def run(self, out: Path, ctx: Context) -> None:
        for word in ("begins", "ends"):
            with open(self.log, "a") as file:
                file.write(f"{self.number} {word}\n")
        (out / "large.txt").touch()


@dataclass(frozen=True)
class Doubled(Pool[Number]):
    numbers: Pool[Number]

    name: ClassVar[str] = "doubled"
    row: ClassVar[type[Number]] = Number

    def rows_needed(self, upstream: str, rows: int) -> int:
        return 2 * rows

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Number]:
        source = list(ctx.rows(self.numbers.take(2 * stop)))
        for row in range(start, stop):
            yield Number(row=row, value=source[2 * row].value)


@dataclass(frozen=True)
class Sum(Stage[int]):
    numbers: Take[Number]
    offset: int = 0

    name: ClassVar[str] = "sum"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    def run(self, out: Path, ctx: Context) -> None:
        total = sum(row.value for row in ctx.accepted(self.numbers)) + self.offset
        (out / "sum.txt").write_text(str(total))
        ctx.metric(1, total=total)
        ctx.tally.counts["out"] = 1


@dataclass(frozen=True)
class Report(Stage[str]):
    total: Stage[int]

    name: ClassVar[str] = "note"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    def run(self, out: Path, ctx: Context) -> None:
        (out / "note.txt").write_text("sum " + (ctx.folder(self.total) / "sum.txt").read_text())


@dataclass(frozen=True)
class Payload(Stage[int]):
    """A folder of files, one of them large and one empty; it may refer to another, as an adapter to its base."""

    size: int
    under: Stage[int] | None = None

    name: ClassVar[str] = "payload"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    @property
    def refers_to(self) -> tuple[Node, ...]:
        return () if self.under is None else (self.under,)

    def run(self, out: Path, ctx: Context) -> None:
        (out / "model").mkdir(exist_ok=True)
        (out / "model" / "large.bin").write_bytes(bytes(range(256)) * self.size)
        (out / "model" / "empty").touch()
        (out / "small.txt").write_text(str(self.size))


@dataclass(frozen=True)
class Failing(Stage[str]):
    how: str

    name: ClassVar[str] = "failing"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    def run(self, out: Path, ctx: Context) -> None:
        if self.how == "user":
            raise UserError("key x=1: take 2")
        if self.how == "die":
            os._exit(7)
        if self.how == "full":
            raise OSError(28, "No space left on device", str(out))
        raise ValueError("a bug")


@dataclass(frozen=True)
class Elsewhere(Stage[int]):
    """What it needs is under way elsewhere."""

    number: int

    name: ClassVar[str] = "elsewhere"
    packages: ClassVar[tuple[str, ...]] = ("json",)

    @property
    def label(self) -> str:
        return f"elsewhere {self.number}"

    def run(self, out: Path, ctx: Context) -> None:
        raise Later(f"{self.number} requests are with a server\n  the same command takes their answers later")


@dataclass(frozen=True)
class ElsewhereHere(Elsewhere):
    """The same without a process of its own."""

    packages: ClassVar[tuple[str, ...]] = ()
