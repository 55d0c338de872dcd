"""Relabelling: a teacher says which of a record's positive and hard negatives answer its query."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from speed.core.closing import closing
from speed.core.stage import Stage
from speed.core.work import Work
from speed.data.answers.parse import parse_relevance
from speed.data.answers.schemas import relevance_form
from speed.data.costs.call_tokens import REASON_TOKENS
from speed.data.costs.prices import estimated_tokens
from speed.data.hard_negatives import Record, read_records
from speed.data.judging.relevance import SAID, UNANSWERED, Verdict, agreed, relabelled
from speed.data.prompts.rendering import RolePrompts, relevance_prompt
from speed.data.records import Example, Rejected
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context
from speed.stages.asked_records import first_records, given_records, refuse_unread, unfinished_lines
from speed.stages.asking import ask_all_in_order, readable
from speed.stages.base import price_of, tokens_about

ORDERS = 2
"""Calls about a hard negative: with the positive before it, and behind it."""
VERDICTS = "verdicts on documents"


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
            for record in given_records(self.corpus)
            for negative in (record.negatives or (record.positive,))[:1]
        ]
        return (round(fmean(found)), REASON_TOKENS[self.purpose]) if found else tokens_about(self, self.purpose)

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        records = first_records(self.corpus, rows, ctx)
        return ((record.kind, ask.prompt) for record in records for ask, _ in self._requests(record))

    def run(self, out: Path, ctx: Context) -> None:
        file = ctx.folder(self.corpus) / "examples.jsonl"
        total = sum(1 for _ in read_records(file))
        with unfinished_lines(out, ("examples.jsonl", "verdicts.jsonl"), ctx) as lines:
            left = islice(read_records(file), lines.done, None)
            items = ((record, self._requests(record)) for record in left)
            with closing(ask_all_in_order(self.teacher, items, ctx)) as answered:
                for record, answers in answered:
                    read = [self._read(answer, ctx) for answer in answers]
                    lines.unread.update(each.cause for each in read if isinstance(each, Rejected))
                    verdicts = [_verdict(read[place : place + ORDERS]) for place in range(0, len(read), ORDERS)]
                    made = relabelled(record, verdicts)
                    said = [_said(verdict, read[ORDERS * place :][:ORDERS]) for place, verdict in enumerate(verdicts)]
                    self._count(record, made, said, ctx)
                    lines.look(VERDICTS, ORDERS * ctx.tally.counts["negatives_judged"])
                    lines.write("examples.jsonl", "".join(each.line() for each in made))
                    left_out = "" if made else UNANSWERED
                    lines.write("verdicts.jsonl", json.dumps({"left_out": left_out, "negatives": said}) + "\n")
                    lines.end_record()
                    ctx.progress(lines.done, total, "examples")
        self._tell(lines.unread, ctx)

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

    def _tell(self, unread: Counter[str], ctx: Context) -> None:
        """What was found, in a sentence for the report."""
        counts = ctx.tally.counts
        judged = counts["negatives_judged"]
        remedy = "a larger limits.judgement, filter=none"
        refuse_unread(VERDICTS, ORDERS * judged, unread, remedy)
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
