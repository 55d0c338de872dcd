"""The lives of records, read from a store: which there are, how each ended, and a sample of them with all their texts.

There are three kinds of life: an example that the teacher wrote for the junior to learn from (`seed`), a list of
answers that was judged and revised (`lists`), and an example of the corpus (`corpus`). Rows of pools that belong to one
life have the same number, so pools are read side by side, once, and only the sample is kept in memory.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import nsmallest
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from speed.core.graph import Goal
from speed.core.row import Row
from speed.core.stage import Node, Pool, Stage
from speed.core.store import Store
from speed.data.judging.relevance import became
from speed.data.records import Candidates, Example, Pair, RevisedAnswer, Sample, TaskList, Topic
from speed.runs.page.spread import Spread
from speed.stages.base import AssignedPool
from speed.stages.dedup import Dedup
from speed.stages.filter import NegativeFilter
from speed.stages.relabelling import Relabelling
from speed.stages.revision_data import RevisionData
from speed.stages.revision_pass import RevisionPass
from speed.stages.root import RootData
from speed.stages.seed import SeedData
from speed.stages.synthesis import Synthesis
from speed.stages.topics import Topics

SAMPLE = 2_000
"""Records that a page holds whole."""


class Ending(NamedTuple):
    """How a life ended."""

    life: str
    kind: str
    outcome: str
    """`kept`, `rejected`, `repeat`, `left over` where more were written than wanted, `left out` by a stage after
    deduplication, or `undecided` where the run stopped."""
    cause: str = ""
    """Why; of a record that was kept, how relabelling changed it."""


@dataclass(frozen=True)
class Life:
    """The rows of one record."""

    ending: Ending
    row: int
    writer: str
    """Label of the stage that wrote it."""
    written: Sample | Candidates
    final: Sample | None = None
    """What the revision pass made of it."""
    pair: Pair | None = None
    revision: RevisedAnswer | None = None
    first: int | None = None
    """Row of the example that it repeats."""
    author: str = "teacher"
    """Who wrote an example: the teacher, or the label of a model."""

    @property
    def id(self) -> str:
        """Its name on a page."""
        of_round = self.writer.removeprefix(RootData.name) if self.ending.life == "lists" else ""
        return f"{self.ending.life}{of_round}/{self.row}"


@dataclass
class Lives:
    """All lives as counts, and a sample whole."""

    counts: Counter[Ending] = field(default_factory=Counter)
    faults: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Guidelines that final texts break, by life, kind and guideline."""
    sample: list[Life] = field(default_factory=list)
    firsts: dict[int, Example] = field(default_factory=dict)
    """Examples that others repeat, by their row."""
    paths: dict[str, str] = field(default_factory=dict)
    """Paths of the topics in the sample."""
    calls: dict[tuple[str, str, str, str], TaskList] = field(default_factory=dict)
    """Brainstorm calls of the sample, by writer, kind, topic and task."""

    def call_of(self, life: Life) -> TaskList | None:
        """The brainstorm call that a life began with."""
        return self.calls.get(_need(life))


def lives(order: Sequence[Goal], store: Store, size: int = SAMPLE) -> Lives:
    """Read the lives of a run's records.

    Raises:
        CorruptArtifact, OSError: where rows cannot be read.
    """
    spread: Spread[Life] = Spread(size)
    found = Lives()
    for life in chain(_seeds(order, store), _lists(order, store), _corpus(order, store, found.firsts)):
        broken = _faults(life)
        found.counts[life.ending] += 1
        found.faults.update((life.ending.life, life.ending.kind, fault) for fault in dict.fromkeys(broken))
        group = (*life.ending, broken[0] if broken else "")
        spread.add(group, life.id, life)
    found.sample = sorted(spread.items(), key=lambda life: (life.ending.life, life.writer, life.row))
    repeated = {life.first for life in found.sample}
    found.firsts = {row: example for row, example in found.firsts.items() if row in repeated}
    found.calls = _calls(order, store, found.sample)
    topics = {life.written.prompt.topic for life in found.sample}
    found.paths = {topic.topic: topic.path for topic in _topics(order, store) if topic.topic in topics}
    return found


def lives_if_readable(order: Sequence[Goal], store: Store) -> Lives | None:
    """The lives of a run's records, or a warning: no run is lost for what is told of it."""
    try:
        return lives(order, store)
    except Exception as error:
        print(f"warning: the records could not be read again ({type(error).__name__}: {error})", file=sys.stderr)
        return None


def _faults(life: Life) -> tuple[str, ...]:
    if isinstance(life.written, Candidates):
        return life.pair.chosen_faults if life.pair is not None else ()
    return (life.final or life.written).faults


def _kind(row: Any) -> str:
    return str(row.prompt.kind or "no prompt")


def _rows(store: Store, goal: Goal | None, rows: int | None = None) -> Iterator[Any]:
    """The rows of a pool as far as they are built and wanted."""
    if goal is None or not isinstance(goal.node, Pool):
        return iter(())
    wanted = goal.rows if rows is None else rows
    gaps = store.missing(goal.node, wanted)
    return store.rows(goal.node.take(min(wanted, gaps[0].start) if gaps else wanted))


def _of(order: Sequence[Goal], kind: type[Node]) -> list[Goal]:
    return [goal for goal in order if isinstance(goal.node, kind)]


def _at(order: Sequence[Goal], node: Node) -> Goal:
    return next(goal for goal in order if goal.key == node.key)


def _ended(life: str, row: Row, kind: str, cause: str | None) -> Ending:
    return Ending(life, kind, "kept") if cause is None else Ending(life, kind, "rejected", cause)


def _seeds(order: Sequence[Goal], store: Store) -> Iterator[Life]:
    """What the teacher wrote for the junior; where the teacher writes the corpus, that is told as the corpus' life."""
    written = {pool.key for pool in _writers(order)}
    for goal in _of(order, SeedData):
        if goal.key not in written:
            for row in _rows(store, goal):
                yield Life(_ended("seed", row, _kind(row), row.rejected), row.row, goal.label, row)


def _lists(order: Sequence[Goal], store: Store) -> Iterator[Life]:
    for root in _of(order, RootData):
        assert isinstance(root.node, RootData)
        read = [goal for goal in order if getattr(goal.node, "root", None) is root.node]
        pairs = next((goal for goal in read if isinstance(goal.node, Pool) and goal.node.row is Pair), None)
        revisions = next((goal for goal in read if isinstance(goal.node, RevisionData)), None)
        for listed, pair, revision in zip_longest(_rows(store, root), _rows(store, pairs), _rows(store, revisions)):
            if listed is None or (pair is None and revision is None):
                continue
            cause = listed.rejected or (pair or revision).rejected
            ending = _ended("lists", listed, _kind(listed), cause)
            author = root.node.junior.label
            yield Life(ending, listed.row, root.label, listed, pair=pair, revision=revision, author=author)


def _writers(order: Sequence[Goal]) -> list[Pool[Sample]]:
    """The pools whose rows become the corpus, as they are first written."""
    pools = [goal.node.samples.pool for goal in _of(order, Dedup) if isinstance(goal.node, Dedup)]
    return [pool.samples if isinstance(pool, RevisionPass) else pool for pool in pools]


def _corpus(order: Sequence[Goal], store: Store, firsts: dict[int, Example]) -> Iterator[Life]:
    """Examples on their way into the corpus, which holds those that were kept, in the order of the rows."""
    for goal in _of(order, Dedup):
        assert isinstance(goal.node, Dedup)
        pool, rows = goal.node.samples.pool, goal.node.samples.rows
        inner = pool.samples if isinstance(pool, RevisionPass) else pool
        writer = _at(order, inner).label
        author = inner.writer.label if isinstance(inner, Synthesis) else "teacher"
        written = _rows(store, _at(order, inner), rows)
        last = pool if store.shards(pool) else inner
        both = zip(written, _rows(store, _at(order, last), rows), strict=False)
        if store.manifest(goal.node) is None:  # the run stopped before
            for first, final in both:
                cause = final.rejected
                ending = Ending("corpus", _kind(final), "rejected" if cause else "undecided", cause or "")
                yield Life(ending, final.row, writer, first, final=None if last is inner else final, author=author)
            continue
        folder = store.payload(goal.node)
        wanted = set(nsmallest(SAMPLE, (first for _, first in _repeats(folder / "repeats.jsonl")), key=_scattered))
        repeats = _repeats(folder / "repeats.jsonl")
        repeat, its_first = next(repeats, (-1, -1))
        later = _later(order, store)
        with (folder / "examples.jsonl").open(encoding="utf-8") as file:
            corpus = map(Example.model_validate_json, file)
            kept = next(corpus, None)
            for first, final in both:
                if final.row in wanted and final.example is not None:
                    firsts[final.row] = final.example
                ending = _ended("corpus", final, _kind(final), final.rejected)
                if final.rejected is None and final.example == kept:
                    kept = next(corpus, None)
                    outcome, cause = next(later, ("kept", ""))
                    ending = ending._replace(outcome=outcome, cause=cause)
                elif final.rejected is None:
                    left = goal.node.keep is not None and final.row != repeat
                    ending = ending._replace(outcome="left over" if left else "repeat")
                revised = None if last is inner else final
                of = its_first if final.row == repeat else None
                yield Life(ending, final.row, writer, first, final=revised, first=of, author=author)
                if final.row == repeat:
                    repeat, its_first = next(repeats, (-1, -1))


def _later(order: Sequence[Goal], store: Store) -> Iterator[tuple[str, str]]:
    """(outcome, cause) of each record of the corpus after deduplication, in its order: left out, or kept and perhaps
    relabelled; nothing where no stage does either."""
    stages = [
        _endings(store.payload(goal.node) / file)
        for kind, file in ((NegativeFilter, "scores.jsonl"), (Relabelling, "verdicts.jsonl"))
        for goal in _of(order, kind)
        if isinstance(goal.node, Stage) and store.manifest(goal.node) is not None
    ]
    for outcome, cause in next(iter(stages), ()):
        for later in stages[1:]:  # it has read what the stage before kept
            if outcome == "kept":
                outcome, cause = next(later, ("kept", ""))
        yield outcome, cause


def _endings(file: Path) -> Iterator[tuple[str, str]]:
    with file.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            said = [each for each in row["negatives"] if isinstance(each, str)]  # a filter has similarities there
            yield ("left out", row["left_out"]) if row["left_out"] else ("kept", became(said))


def _repeats(file: Path) -> Iterator[tuple[int, int]]:
    """(row, row that it repeats); none where the corpus was made before this was recorded."""
    if file.is_file():
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row, first = json.loads(line)
                yield row, first


def _scattered(row: int) -> bytes:
    return blake2b(str(row).encode(), digest_size=8).digest()


def _need(life: Life) -> tuple[str, str, str, str]:
    prompt = life.written.prompt
    return life.writer, _kind(life.written), prompt.topic, prompt.task


def _calls(order: Sequence[Goal], store: Store, sample: Iterable[Life]) -> dict[tuple[str, str, str, str], TaskList]:
    """The brainstorm calls behind a sample; one that recorded the task, or one on its topic."""
    needs = {_need(life) for life in sample if life.written.prompt.topic}
    found: dict[tuple[str, str, str, str], TaskList] = {}
    for goal in order:
        node = goal.node
        if not isinstance(node, AssignedPool) or not any(need[0] == goal.label for need in needs):
            continue
        tasks: dict[tuple[str, str], list[str]] = {}
        for writer, kind, topic, task in needs:
            if writer == goal.label:
                tasks.setdefault((kind, topic), []).append(task)
        for call in _rows(store, _at(order, node.tasks)):
            for task in tasks.get((str(call.kind), call.topic), ()):
                need = (goal.label, str(call.kind), call.topic, task)
                if task in call.tasks or (need not in found and task in call.answer):
                    found[need] = call
    return found


def _topics(order: Sequence[Goal], store: Store) -> Iterator[Topic]:
    for goal in _of(order, Topics):
        with (store.folder(goal.node) / "topics.jsonl").open(encoding="utf-8") as file:
            yield from map(Topic.model_validate_json, file)
