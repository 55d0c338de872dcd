"""Relabelling: a teacher says which of a record's positive and hard negatives answer its query."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from speed.core.closing import closing
from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.rejections import LOOK, causes_of_nearly_all, named
from speed.core.stage import Node, Stage
from speed.core.work import Work
from speed.data.answers.parse import parse_relevance
from speed.data.answers.schemas import relevance_form
from speed.data.costs.call_tokens import REASON_TOKENS
from speed.data.costs.prices import estimated_tokens
from speed.data.given_records import given_examples
from speed.data.hard_negatives import Record, read_records
from speed.data.judging.relevance import SAID, UNANSWERED, Verdict, agreed, relabelled
from speed.data.prompts.rendering import RolePrompts, relevance_prompt
from speed.data.records import Example, Rejected
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context
from speed.stages.asking import ask_all_in_order, readable
from speed.stages.base import price_of, tokens_about

ORDERS = 2
"""Calls about a hard negative: with the positive before it, and behind it."""
GIVEN = 100
"""Records of a corpus that is given from which a plan takes the length of a call."""


@dataclass(frozen=True)
class Relabelling(Stage[Example]):
    """`examples.jsonl`: the corpus in its order, with false negatives as positives; `verdicts.jsonl`: a line for each
    record that was read, with what was said of each of its hard negatives."""

    corpus: Stage[Example]
    teacher: Teacher
    prompts: RolePrompts
    temperature: float
    max_tokens: int
    rows: int
    """Raw size of the corpus, for the plan; the corpus' key already holds it."""
    negatives: int
    """Hard negatives of a record at most, for the plan."""

    name: ClassVar[str] = "relabelling"
    purpose: ClassVar[str] = "relevance"

    def work(self) -> Work:
        """At most: repeats are left out before, and records without a hard negative ask nothing."""
        calls = ORDERS * self.rows * self.negatives
        return price_of(self.teacher, self.purpose, calls, self._tokens())

    def _tokens(self) -> tuple[int, int]:
        """(input, output) tokens of a call; of a corpus that is given, by the first of its own texts."""
        found = [
            estimated_tokens(self._request(record, record.positive, negative)[0].prompt)
            for record in self._given()
            for negative in (record.negatives or (record.positive,))[:1]
        ]
        return (round(fmean(found)), REASON_TOKENS[self.purpose]) if found else tokens_about(self, self.purpose)

    def _given(self) -> list[Record]:
        """The first records of a corpus that is given; none where it is yet to be written, or cannot be read, which is
        told elsewhere."""
        node: Node = self.corpus
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

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        file = ctx.store.folder(self.corpus) / "examples.jsonl"
        records = islice(read_records(file), rows) if file.is_file() else iter(self._given()[:rows])
        return ((record.kind, ask.prompt) for record in records for ask, _ in self._requests(record))

    def run(self, out: Path, ctx: Context) -> None:
        file = ctx.folder(self.corpus) / "examples.jsonl"
        total = sum(1 for _ in read_records(file))
        items = ((record, self._requests(record)) for record in read_records(file))
        unread, looked = Counter[str](), False
        with (
            (out / "examples.jsonl").open("w", encoding="utf-8") as examples,
            (out / "verdicts.jsonl").open("w", encoding="utf-8") as told,
            closing(ask_all_in_order(self.teacher, items, ctx)) as answered,
        ):
            for done, (record, answers) in enumerate(answered, 1):
                read = [self._read(answer, ctx) for answer in answers]
                unread.update(each.cause for each in read if isinstance(each, Rejected))
                verdicts = [_verdict(read[place : place + ORDERS]) for place in range(0, len(read), ORDERS)]
                made = relabelled(record, verdicts)
                examples.writelines(each.line() for each in made)
                said = [_said(verdict, read[ORDERS * place :][:ORDERS]) for place, verdict in enumerate(verdicts)]
                self._count(record, made, said, ctx)
                if not looked and ORDERS * ctx.tally.counts["negatives_judged"] >= LOOK:
                    looked = True
                    self._look(unread, ctx)
                told.write(json.dumps({"left_out": "" if made else UNANSWERED, "negatives": said}) + "\n")
                ctx.progress(done, total, "examples")
        self._tell(unread, ctx)

    def _requests(self, record: Record) -> list[tuple[Ask, Check]]:
        """Of each hard negative two: with the positive first, and with itself first."""
        pairs = ((record.positive, negative) for negative in record.negatives)
        return [self._request(record, *order) for pair in pairs for order in (pair, pair[::-1])]

    def _request(self, record: Record, first: str, second: str) -> tuple[Ask, Check]:
        ask = Ask(
            prompt=relevance_prompt(record.task, record.query, first, second, self.prompts.config).text,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            purpose=self.purpose,
            kind=record.kind,
            form=relevance_form(),
        )
        return ask, readable(lambda text: parse_relevance(text, "stop"))

    def _read(self, answer: Answer, ctx: Context) -> Verdict | Rejected:
        if answer.cause != "ok":
            return Rejected(cause=answer.cause, detail=answer.detail)
        return parse_relevance(answer.text, answer.finish_reason, ctx.tally.counts)

    def _count(self, record: Record, made: Sequence[Record], said: Sequence[str], ctx: Context) -> None:
        counts = ctx.tally.counts
        counts.update({"in": 1, "out": len(made), "negatives_judged": len(said)})
        counts.update(f"negatives_{each}" for each in said)
        counts["further_positives"] += max(0, len(made) - 1)
        counts["positives_replaced"] += bool(made) and made[0].positive != record.positive
        ctx.tally.rejected[UNANSWERED] += not made

    def _look(self, unread: Counter[str], ctx: Context) -> None:
        """Say of the first verdicts if nearly none can be read, before all are paid for."""
        seen = ORDERS * ctx.tally.counts["negatives_judged"]
        if causes := causes_of_nearly_all(seen, unread, frozenset()):
            ctx.say(
                f"{causes.total():,} of the first {seen:,} verdicts on documents cannot be read: {named(causes)}\n"
                "  if it goes on like this, the run stops behind them; Ctrl-C ends it now, and all answers are kept"
            )

    def _tell(self, unread: Counter[str], ctx: Context) -> None:
        """What was found, in a sentence for the report."""
        counts = ctx.tally.counts
        judged = counts["negatives_judged"]
        if causes := causes_of_nearly_all(ORDERS * judged, unread, frozenset()):
            raise UserError(
                f"{causes.total():,} of {ORDERS * judged:,} verdicts on documents cannot be read: {named(causes)}\n"
                "  teacher.structured=json_schema where the provider has it, a larger limits.judgement, or another "
                "teacher.model; every answer is kept, and filter=none does without"
            )
        shares = ", ".join(
            f"{counts[f'negatives_{name}'] / max(1, judged):.0%} {name}"
            for name in (*SAID.values(), "undecided", "unread")
        )
        ctx.tally.metrics["remarks"] = [
            f"of {judged:,} hard negatives the teacher found {shares}: {counts['positives_replaced']:,} positives "
            f"replaced, {counts['further_positives']:,} further ones, {ctx.tally.rejected[UNANSWERED]:,} of "
            f"{counts['in']:,} records left out"
        ]


def _verdict(read: Sequence[Verdict | Rejected]) -> Verdict | None:
    positive_first, negative_first = read
    if isinstance(positive_first, Rejected) or isinstance(negative_first, Rejected):
        return None
    return agreed(positive_first, negative_first)


def _said(verdict: Verdict | None, read: Sequence[Verdict | Rejected]) -> str:
    if verdict is not None:
        return SAID[verdict]
    return "unread" if any(isinstance(each, Rejected) for each in read) else "undecided"
