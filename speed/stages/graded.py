"""Graded documents: for queries of the corpus a teacher writes a document of each of four levels of relevance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from speed.core.closing import closing
from speed.core.stage import Stage
from speed.core.work import Work
from speed.data.answers.parse import parse_graded
from speed.data.answers.schemas import graded_form
from speed.data.costs.prices import estimated_tokens
from speed.data.hard_negatives import Record, read_records
from speed.data.prompts.rendering import RolePrompts, graded_prompt
from speed.data.records import LEVELS, Example, Kind, Rejected
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context
from speed.stages.asked_records import first_records, given_records, refuse_unread, unfinished_lines
from speed.stages.asking import ask_in_order, readable
from speed.stages.base import price_of, tokens_about

ANSWERS = "answers with graded documents"
FEWEST = 10
"""Words of a document that are asked for at least, and the step to which a number of words is rounded."""


@dataclass(frozen=True)
class GradedDocuments(Stage[Example]):
    """`examples.jsonl`: the corpus as it was, the first records of retrieval with four documents of falling relevance
    to their query (`graded`), all written in one call (SyCL, arXiv 2503.23239). A record whose answer cannot be read
    stays without."""

    corpus: Stage[Example]
    teacher: Teacher
    prompts: RolePrompts
    temperature: float
    max_tokens: int
    longest: int
    """Words of a document that are asked for at most; otherwise they are as many as the record's positive has."""
    queries: int
    """Records that are asked about, at most."""

    name: ClassVar[str] = "graded documents"
    purpose: ClassVar[str] = "graded"

    def work(self) -> Work:
        """At most: repeats are left out before."""
        return price_of(self.teacher, self.purpose, self.queries, self._tokens())

    def _tokens(self) -> tuple[int, int]:
        """(input, output) tokens of a call; of a corpus that is given, by the first of its own texts."""
        given = [record for record in given_records(self.corpus) if record.kind is Kind.RETRIEVAL]
        if not given:
            return tokens_about(self, self.purpose)
        prompts = [estimated_tokens(self._request(record)[0].prompt) for record in given]
        texts = [estimated_tokens(record.positive) for record in given]
        return round(fmean(prompts)), round(len(LEVELS) * fmean(texts))

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        records = first_records(self.corpus, rows, ctx)
        return ((record.kind, self._request(record)[0].prompt) for record in records if record.kind is Kind.RETRIEVAL)

    def run(self, out: Path, ctx: Context) -> None:
        file = ctx.folder(self.corpus) / "examples.jsonl"
        total = sum(1 for _ in read_records(file))
        counts = ctx.tally.counts
        with unfinished_lines(out, ("examples.jsonl",), ctx) as lines:
            left = islice(self._asked(read_records(file)), lines.done, None)
            with closing(ask_in_order(self.teacher, left, ctx)) as answered:
                for record, answer in answered:
                    found = self._read(answer, ctx) if answer is not None else ()
                    if isinstance(found, Rejected):
                        lines.unread[found.cause] += 1
                        counts[f"graded_{found.cause}"] += 1
                        found = ()
                    counts.update({"in": 1, "out": 1, "asked": answer is not None, "graded": bool(found)})
                    lines.look(ANSWERS, counts["asked"])
                    lines.write("examples.jsonl", record._replace(graded=found).line())
                    lines.end_record()
                    ctx.progress(lines.done, total, "examples")
        self._tell(lines.unread, ctx)

    def _asked(self, records: Iterator[Record]) -> Iterator[tuple[Record, tuple[Ask, Check] | None]]:
        asked = 0
        for record in records:
            wanted = record.kind is Kind.RETRIEVAL and asked < self.queries
            asked += wanted
            yield record, self._request(record) if wanted else None

    def _request(self, record: Record) -> tuple[Ask, Check]:
        words = FEWEST * round(len(record.positive.split()) / FEWEST)
        words = max(FEWEST, min(words, self.longest))
        ask = Ask(
            prompt=graded_prompt(record.task, record.query, words, self.prompts.config).text,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            purpose=self.purpose,
            kind=record.kind,
            form=graded_form(),
        )
        return ask, readable(lambda text: parse_graded(text, "stop"))

    def _read(self, answer: Answer, ctx: Context) -> tuple[str, ...] | Rejected:
        if answer.cause != "ok":
            return Rejected(cause=answer.cause, detail=answer.detail)
        return parse_graded(answer.text, answer.finish_reason, ctx.tally.counts)

    def _tell(self, unread: Counter[str], ctx: Context) -> None:
        """What was written, in a sentence for the report."""
        counts = ctx.tally.counts
        refuse_unread(ANSWERS, counts["asked"], unread, "a larger limits.example.retrieval, negatives=generated")
        lost = ", ".join(f"{count:,} {cause}" for cause, count in unread.most_common()) or "none"
        ctx.tally.metrics["remarks"] = [
            f"{counts['graded']:,} of {counts['in']:,} records have documents of {len(LEVELS)} levels of relevance; "
            f"answers that could not be read: {lost}"
        ]
