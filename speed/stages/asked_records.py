"""What the stages share that ask a teacher about each record of a corpus: the records of one that is yet to be written,
the lines that a killed build goes on with and what they cost, and a teacher of whom nothing can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO

from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.ledger import Line
from speed.core.rejections import LOOK, causes_of_nearly_all, named
from speed.core.spec import Spec
from speed.core.stage import Node
from speed.data.given_records import given_examples
from speed.data.hard_negatives import Record, read_records
from speed.runtime import Context

GIVEN = 100
"""Records of a corpus that is given from which a plan takes the length of a call."""
STATE = "unfinished.json"
EVERY = 64
"""Records between two states of a build."""


def given_records(corpus: Node) -> list[Record]:
    """The first records of a corpus that is given; none where it is yet to be written, or cannot be read, which is told
    elsewhere."""
    node = corpus
    while isinstance(before := node.upstream.get("corpus"), Node):
        node = before
    file = getattr(node, "file", None)
    if not isinstance(file, Content):
        return []
    with suppress(UserError, OSError):
        examples = islice(given_examples(file.path.expanduser()), GIVEN)
        return [
            Record(each.kind, each.task, each.query, each.positive, (each.negative,) if each.negative else ())
            for each in examples
        ]
    return []


def first_records(corpus: Node, rows: int, ctx: Context) -> Iterator[Record]:
    """The first records, as far as they are built or given."""
    file = ctx.store.folder(corpus) / "examples.jsonl"
    return islice(read_records(file), rows) if file.is_file() else iter(given_records(corpus)[:rows])


class Unfinished(Spec):
    """How far a build was when it ended, and what it had counted and spent."""

    done: int
    """Records that are written whole."""
    sizes: dict[str, int]
    """Bytes of each file at that time."""
    counts: dict[str, int]
    rejected: dict[str, int]
    unread: dict[str, int]
    cost: dict[str, int]
    dollars: float | None
    ledger: tuple[Line, ...]


class Lines:
    """The files that a stage writes record by record. A build that ended early, by a kill or an error, goes on behind
    the last record that is known to be whole; its manifest tells what all of its builds have spent."""

    def __init__(self, out: Path, names: Sequence[str], ctx: Context, stack: ExitStack) -> None:
        self._state, self._ctx = out / STATE, ctx
        self.done = 0
        """Records that are written."""
        self.unread = Counter[str]()
        """Answers that could not be read, by cause."""
        found = self._resumed(out, names)
        self._looked = found is not None
        self._files: dict[str, IO[bytes]] = {}
        for name in names:
            file = stack.enter_context((out / name).open("r+b" if found else "wb"))
            file.truncate(found.sizes[name] if found else 0)
            file.seek(0, 2)
            self._files[name] = file
        self._whole = self._snapshot()

    def write(self, name: str, lines: str) -> None:
        """Add lines to a file."""
        self._files[name].write(lines.encode("utf-8", "surrogatepass"))

    def end_record(self) -> None:
        """What was written, counted and spent belongs to a record that is whole."""
        self.done += 1
        self._whole = self._snapshot()
        if self.done % EVERY == 0:
            self.keep()

    def keep(self) -> None:
        """Write the state down; what was spent since the last whole record is among it."""
        for file in self._files.values():
            file.flush()
        tally = self._ctx.tally
        spent = {"cost": dict(tally.cost), "dollars": tally.dollars, "ledger": tally.ledger.lines()}
        aside = self._state.with_suffix(".new")
        aside.write_text(self._whole.model_copy(update=spent).model_dump_json(), encoding="utf-8")
        aside.replace(self._state)

    def look(self, what: str, answers: int) -> None:
        """Say of the first answers, once, if nearly none can be read, before all are paid for.

        Args:
            what: the answers, for the reader.
            answers: how many there are by now.
        """
        if self._looked or answers < LOOK:
            return
        self._looked = True
        if causes := causes_of_nearly_all(answers, self.unread, frozenset()):
            self._ctx.say(
                f"{causes.total():,} of the first {answers:,} {what} cannot be read: {named(causes)}\n"
                "  if it goes on like this, the run stops behind them; Ctrl-C ends it now, and all answers are kept"
            )

    def finish(self) -> None:
        """All records are written."""
        self._state.unlink(missing_ok=True)

    def _snapshot(self) -> Unfinished:
        tally = self._ctx.tally
        return Unfinished(
            done=self.done,
            sizes={name: file.tell() for name, file in self._files.items()},
            counts=dict(tally.counts),
            rejected=dict(tally.rejected),
            unread=dict(self.unread),
            cost={},
            dollars=0.0,
            ledger=(),
        )

    def _resumed(self, out: Path, names: Sequence[str]) -> Unfinished | None:
        """The state of the build before, with its tally taken over; None where there is none, or not all of its files:
        then records are asked about from the first on, and the journal has the answers."""
        try:
            found = Unfinished.model_validate_json(self._state.read_text(encoding="utf-8"))
            if any((out / name).stat().st_size < found.sizes[name] for name in names):
                return None
        except (OSError, ValueError, KeyError):
            return None
        tally = self._ctx.tally
        tally.counts.update(found.counts)
        tally.rejected.update(found.rejected)
        tally.cost.update(found.cost)
        tally.spend(found.dollars)
        for line in found.ledger:
            tally.ledger.add(line)
        self.unread.update(found.unread)
        self.done = found.done
        return found


@contextmanager
def unfinished_lines(out: Path, names: Sequence[str], ctx: Context) -> Iterator[Lines]:
    """The files of these names in `out`; an error leaves the state of the last whole record there."""
    with ExitStack() as stack:
        lines = Lines(out, names, ctx, stack)
        try:
            yield lines
        except BaseException:
            lines.keep()
            raise
        lines.finish()


def refuse_unread(what: str, answers: int, unread: Counter[str], remedy: str) -> None:
    """Refuse a teacher of whom nearly no answer can be read.

    Raises:
        UserError: with the causes.
    """
    if causes := causes_of_nearly_all(answers, unread, frozenset()):
        raise UserError(
            f"{causes.total():,} of {answers:,} {what} cannot be read: {named(causes)}\n"
            f"  teacher.structured=json_schema where the provider has it, {remedy}, or another teacher.model; every "
            "answer is kept"
        )
