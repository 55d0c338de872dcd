"""A finished run whose rows are made up: every stage of the pipeline in a store, without a model or a teacher."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from plans import config_of

from speed.core.graph import Goal
from speed.core.ledger import Line
from speed.core.manifest import Manifest, outputs_of
from speed.core.row import Row
from speed.core.stage import Pool
from speed.core.store import Span, Store
from speed.data.answers.parse import example_json
from speed.data.records import (
    Candidates,
    Example,
    Kind,
    Pair,
    Prompt,
    RevisedAnswer,
    Sample,
    Scores,
    TaskList,
    Topic,
    Vote,
)
from speed.pipeline import pipeline
from speed.runs.stage_lines import StageLine, stage_line

KINDS = list(Kind)
TOPICS = [f"Arts/Music/Instruments {number}" for number in range(100)]
WORDS = ("river", "stone", "winter", "lantern", "quiet", "copper", "garden", "signal", "harbour", "paper", "violin")


class MadeUpRun(NamedTuple):
    """What a report is made from."""

    order: list[Goal]
    store: Store
    lines: list[StageLine]
    scores: Scores
    about: dict[str, Any]


def kind_of(row: int) -> Kind:
    """Kinds take turns."""
    return KINDS[row % len(KINDS)]


def words(row: int, count: int, salt: int = 0) -> str:
    """Some words, a function of the row."""
    return " ".join(WORDS[(row * 7 + place * (3 + salt) + salt + row // 11) % len(WORDS)] for place in range(count))


class Maker:
    """Rows of each pool."""

    def __init__(self, hostile: str, length: int) -> None:
        self._hostile = hostile
        self._length = length

    def prompt(self, row: int) -> Prompt:
        kind = kind_of(row)
        task = f"{self._hostile}Find a text about {words(row % 300, 3)}."
        text = f"You have been assigned a task: {task}\n" + words(row, self._length, 2)
        return Prompt(
            text=text, template=f"synthesis/{kind}@1a2b3c4d", kind=kind, task=task, topic=TOPICS[row % len(TOPICS)],
            slots={"language": "English", "num_words": "at least 5"},
        )  # fmt: skip

    def example(self, row: int, salt: int = 0) -> Example:
        kind = kind_of(row)
        negative = None if kind in (Kind.SHORT_SHORT, Kind.LONG_LONG) else words(row, self._length // 2, 5 + salt)
        query = f"{self._hostile}{row} {words(row, self._length, salt)}"
        return Example(
            kind=kind, task=self.prompt(row).task, query=query, positive=words(row, self._length, 4), negative=negative
        )

    def sample(self, row: int, salt: int = 0) -> Sample:
        if row % 9 == 7:
            text = f"{self._hostile}{{'broken': {words(row, 8)}"
            return Sample(row=row, prompt=self.prompt(row), text=text).reject("bad_syntax" if row % 2 else "truncated")
        example = self.example(row, salt)
        faults = ("too_short",) if row % 8 == 3 else ("query_copied",) if row % 30 == 4 else ()
        return Sample(
            row=row, prompt=self.prompt(row), text=example_json(example), example=example, faults=faults, tokens=40,
            finish_reason="stop", attempt=row % 13 == 0,
        )  # fmt: skip

    def revised(self, row: int) -> Sample:
        before = self.sample(row)
        if row % 4 == 1:
            return before
        example = self.example(row, 1)
        text = json.dumps({"reason": f"{self._hostile}More to the point.", "revision": example.fields()})
        return Sample(row=row, prompt=before.prompt, text=text, example=example, revised=True, finish_reason="stop")

    def tasks(self, row: int) -> TaskList:
        prompt = self.prompt(row)
        listed = [prompt.task, *(f"Task {number} of the list" for number in range(5))]
        asked = Prompt(
            text="Brainstorm a list of tasks.", template="brainstorm@1", kind=prompt.kind, topic=prompt.topic
        )
        return TaskList(
            row=row,
            kind=kind_of(row),
            topic=prompt.topic,
            prompt=asked,
            answer=json.dumps(listed),
            tasks=(prompt.task,),
        )

    def candidates(self, row: int) -> Candidates:
        texts = [example_json(self.example(row, salt)) for salt in range(3)]
        return Candidates(
            row=row, prompt=self.prompt(row), texts=(*texts, f"{self._hostile}no JSON"), finish_reasons=("stop",) * 4
        )

    def pair(self, row: int) -> Pair:
        listed = self.candidates(row)
        answer = json.dumps({"reason": f"{self._hostile}It fits best.", "best": 0, "worst": 3})
        vote = Vote(order=(2, 0, 1, 3), prompt="Judge these.", answer=answer, best=2, worst=3)
        pair = Pair(row=row, prompt=listed.prompt, votes=(vote,))
        if row % 5 == 2:
            return pair.reject("disagreement")
        update = {"best": 2, "worst": 3, "chosen": listed.texts[2], "rejected_text": listed.texts[3]}
        return pair.model_copy(update=update)

    def revision(self, row: int) -> RevisedAnswer:
        listed = self.candidates(row)
        return RevisedAnswer(
            row=row, prompt=listed.prompt, original=listed.texts[1], reason=f"{self._hostile}Clearer.",
            revision=example_json(self.example(row, 7)), revise_prompt="Revise this.", answer="{}",
        )  # fmt: skip

    def of(self, goal: Goal) -> Callable[[int], Row]:
        """How rows of a pool are made."""
        assert isinstance(goal.node, Pool)
        made: dict[str, Callable[[int], Row]] = {
            "tasks": self.tasks, "seed data": self.sample, "root data": self.candidates, "preferences": self.pair,
            "revisions": self.revision, "synthesis": self.sample, "revision": self.revised,
        }  # fmt: skip
        return made[goal.node.name]


def made_up_run(home: Path, *overrides: str, hostile: str = "", length: int = 12) -> MadeUpRun:
    """Fill a store.

    Args:
        hostile: stands in texts that models write.
        length: words of a text.
    """
    store, maker = Store(home).open(), Maker(hostile, length)
    pipe = pipeline(config_of("+experiment=smoke", *overrides))
    order = pipe.goals()
    for goal in order:
        node = goal.node
        if isinstance(node, Pool):
            stop = math.ceil(goal.rows / node.block) * node.block if node.whole_blocks else goal.rows
            for start in range(0, stop, node.block):
                _shard(store, node, Span(start, min(start + node.block, stop)), maker.of(goal))
        else:
            out = store.partial(node)  # type: ignore[arg-type]
            counts, rejected, metrics = _artifact(goal, out, maker)
            manifest = _manifest(node, counts, rejected, metrics).model_copy(update={"outputs": outputs_of(out)})
            store.publish(node, manifest)  # type: ignore[arg-type]
    scores = Scores(
        tasks={"One": 31.0, "Two": 47.5}, types={"Retrieval": 31.0, "STS": 47.5}, mean=39.25, mean_of_types=39.25
    )
    about = {
        "command": "python -m speed.run",
        "preset": "miniature",
        "commit": "1a2b3c4",
        "seconds": "1.0",
        "key": pipe.key,
    }
    return MadeUpRun(
        order, store, [stage_line(goal, store, True, goal.key == pipe.corpus.key) for goal in order], scores, about
    )


def _shard(store: Store, pool: Pool[Any], span: Span, make: Callable[[int], Row]) -> None:
    rows = [make(row) for row in range(*span)]
    rejected = Counter(row.rejected for row in rows if row.rejected is not None)
    counts = {"in": len(rows), "out": len(rows) - rejected.total()}
    made = _manifest(pool, counts, dict(rejected), {}).model_copy(update={"start": span.start, "stop": span.stop})
    if pool.purpose:
        line = Line(
            purpose=pool.purpose, kind="sts", model="made-up", cause="ok", calls=len(rows), tokens_in=9 * len(rows)
        )
        made = made.model_copy(update={"ledger": (line,), "cost": {"calls": len(rows), "tokens_in": 9 * len(rows)}})
    store.write_shard(pool, span, rows, made)


def _manifest(node: Any, counts: dict[str, int], rejected: dict[str, int], metrics: dict[str, Any]) -> Manifest:
    return Manifest(
        key=node.key, stage=node.name, label=node.label, version=node.version, recipe={}, counts=counts,
        rejected=rejected, metrics=metrics, seconds=1.5,
    )  # fmt: skip


def _artifact(goal: Goal, out: Path, maker: Maker) -> tuple[dict[str, int], dict[str, int], dict[str, Any]]:
    """Write a stage's files.

    Returns:
        What it counted, rejected and measured.
    """
    match goal.node.name:
        case "topics":
            rows = (Topic(row=row, path=f"{topic}/Deep/Down", topic=topic) for row, topic in enumerate(TOPICS))
            _lines(out / "topics.jsonl", (row.model_dump_json() for row in rows))
            return {"in": len(TOPICS), "out": len(TOPICS)}, {}, {}
        case "dedup":
            return _deduplicated(goal, out, maker)
        case "filter" | "relabelling":
            filtered = goal.node.name == "filter"
            cause, name = ("positive_not_found", "scores") if filtered else ("unanswered", "verdicts")
            causes = [cause if number % 3 == 0 else "" for number in range(100)]
            said = ["neither_answers", "answers_alone", "answers_too"]
            told = [[] if filtered else [said[number % 3]] for number in range(100)]
            rows = ({"left_out": each, "negatives": of_it} for each, of_it in zip(causes, told, strict=True))
            _lines(out / f"{name}.jsonl", map(json.dumps, rows))
            return {"in": 100, "out": 90}, {}, {}
        case "evaluation":
            pins = {"mteb": "2", "precision": "fp32", "batch": "1", "instructions": "", "datasets": {}}
            kinds = {"One": "Retrieval", "Two": "STS"}
            return {"in": 2}, {}, {"judged": {"pins": pins, "protocol": "e5", "kinds": kinds, "scores": {}}}
        case _:
            steps = ({"step": step, "loss": 3 / (step + 1), "rewards_accuracies": 0.5} for step in range(50))
            _lines(out / "curves.jsonl", map(json.dumps, steps))
            return {"in": 40}, {}, {"last_loss": 0.06}


def _deduplicated(goal: Goal, out: Path, maker: Maker) -> tuple[dict[str, int], dict[str, int], dict[str, Any]]:
    """Every sixth example is called a repeat of the one ten rows before it."""
    rows: int = goal.node.samples.rows  # type: ignore[attr-defined]
    accepted = [row for row in range(rows) if maker.revised(row).example is not None]
    there = set(accepted)
    repeats = {row: row - 10 for row in accepted if row % 6 == 5 and row > 10 and (row - 10) in there}
    _lines(out / "examples.jsonl", _kept(accepted, repeats, maker))
    _lines(out / "repeats.jsonl", (f"[{row}, {first}]" for row, first in repeats.items()))
    seen, gone = Counter(map(kind_of, accepted)), Counter(map(kind_of, repeats))
    shares = {str(kind): round(1 - gone[kind] / seen[kind], 4) for kind in seen}
    counts = {"in": len(accepted), "out": len(accepted) - len(repeats)}
    return counts, {"duplicate": len(repeats)}, {"not_repeated_by_kind": shares}


def _kept(accepted: Iterable[int], repeats: dict[int, int], maker: Maker) -> Iterator[str]:
    for row in accepted:
        example = maker.revised(row).example
        if row not in repeats and example is not None:
            yield example.model_dump_json()


def _lines(file: Path, lines: Iterable[str]) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in lines)
