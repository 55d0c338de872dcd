"""Your own domain (ours): the teacher writes queries for held-out documents, and base and embedder search all of them.

What is held out is settled before anything is generated, by document. All passages are searched, the training
documents' too, as in use; only passages of held-out documents are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.core.stage import Pool, Stage, Take
from speed.core.work import Work
from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.answers.parse import parse_example
from speed.data.answers.schemas import example_form
from speed.data.assignment import load_passages
from speed.data.draws import generator, shuffled_order
from speed.data.prompts.rendering import RolePrompts, query_prompt
from speed.data.quality.guidelines import Guidelines
from speed.data.records import UNASKED, Kind, Passage, Prompt, Sample, Scores, Topic
from speed.data.topics.documents import Documents, Library
from speed.ports import Ask, Check, Evaluator, Teacher, Weights
from speed.runtime import Context, Runtime
from speed.stages.asking import ask_in_order, readable
from speed.stages.base import price_of

TASK = "Given a question, find the passages of these documents that answer it."
"""The task of every query of the test."""
TASK_NAME = "OwnDocuments"
FIGURES = {"nDCG@10": "ndcg_at_10", "recall@10": "recall_at_10", "recall@100": "recall_at_100"}
"""Figures in the report, by their names in mteb's results."""
QUERY_TOKENS = 30
"""Of an answer, for plans."""
TOKENS_A_WORD = 1.35
INSTRUCTIONS = 260
"""Tokens of a prompt beside its passage, for plans."""
HEAD = """---
configs:
  - config_name: default
    data_files: [{split: test, path: qrels/test.jsonl}]
  - config_name: corpus
    data_files: [{split: corpus, path: corpus.jsonl}]
  - config_name: queries
    data_files: [{split: queries, path: queries.jsonl}]
---
- type: Retrieval
- instruction: {task}
"""


@dataclass(frozen=True)
class HeldOutQueries(Pool[Sample]):
    """Row i is the teacher's query for the i-th held-out passage in drawn order."""

    topics: Stage[Topic]
    teacher: Teacher
    prompts: RolePrompts
    documents: Documents
    temperature: float
    max_tokens: int
    guidelines: Guidelines

    name: ClassVar[str] = "test queries"
    row: ClassVar[type[Sample]] = Sample
    purpose: ClassVar[str] = "seed"

    def work(self, start: int, stop: int) -> Work:
        tokens = (INSTRUCTIONS + round(TOKENS_A_WORD * self.documents.words), QUERY_TOKENS)
        return price_of(self.teacher, self.purpose, stop - start, tokens)

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        return (("test queries", prompt.text) for _, prompt in self._prompts(0, rows, ctx))

    def known_asks(self, start: int, stop: int, ctx: Context) -> Iterator[tuple[Teacher, Ask] | None]:
        return ((self.teacher, self._request(row, prompt)[0]) for row, prompt in self._prompts(start, stop, ctx))

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        prompts = dict(self._prompts(start, stop, ctx))
        requests = ((row, self._request(row, prompts[row]) if row in prompts else None) for row in range(start, stop))
        for done, (row, answer) in enumerate(ask_in_order(self.teacher, requests, ctx), 1):
            if answer is None:
                made = Sample(row=row, prompt=UNASKED).reject("no_passage")
            elif answer.cause != "ok":
                made = Sample(row=row, prompt=prompts[row], text=answer.text).reject(answer.cause, answer.detail)
            else:
                made = accept_or_reject(
                    row, prompts[row], answer.text, answer.finish_reason, answer.tokens_out, self.guidelines
                ).with_remark(answer.detail)
            yield made
            ctx.progress(done, stop - start, "calls")

    def _prompts(self, start: int, stop: int, ctx: Context) -> Iterator[tuple[int, Prompt]]:
        held_out = [passage for passage in load_passages(ctx.folder(self.topics)) if passage.held_out]
        library, seed = Library(held_out), self.documents.seed
        order = shuffled_order(len(held_out), seed, "test queries")
        for row, place in enumerate(order[start:stop], start):
            ground = library.with_negative(held_out[place], seed)
            rng = generator(seed, "test prompt", row)
            yield row, query_prompt(TASK, held_out[place].topic, ground, self.prompts.config, rng)

    def _request(self, row: int, prompt: Prompt) -> tuple[Ask, Check]:
        ask = Ask(
            prompt=prompt.text,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            purpose=self.purpose,
            kind=prompt.kind,
            index=row,
            form=example_form(Kind.RETRIEVAL, grounded=True),
        )
        ground = prompt.ground
        return ask, readable(lambda text: parse_example(Kind.RETRIEVAL, TASK, text, "stop", ground=ground))


@dataclass(frozen=True)
class OwnDomain(Stage[Scores]):
    """`tasks/OwnDocuments`, a task that `speed.evaluate --folder` takes too, and how base and embedder do on it."""

    evaluator: Evaluator
    embedder: Stage[Weights]
    topics: Stage[Topic]
    queries: Take[Sample]

    name: ClassVar[str] = "own domain"

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(runtime.any_number)

    def run(self, out: Path, ctx: Context) -> None:
        passages = load_passages(ctx.folder(self.topics))
        asked = [row for row in ctx.accepted(self.queries) if row.example is not None]
        if not asked:
            raise UserError(
                f"no query of the test can be used: the teacher wrote none for {self.queries.rows} held-out passages\n"
                f"  look at the rows: {ctx.store.folder(self.queries.pool)}"
            )
        write_task(out / "tasks" / TASK_NAME, passages, asked)
        evaluator = self.evaluator.on_folder(out / "tasks")
        found = {"tuned": _figures(evaluator, ctx.folder(self.embedder), out, ctx)}
        export = getattr(self.embedder, "untrained", None)
        with TemporaryDirectory() as place:
            if export is not None and (base := export(Path(place), ctx)) is not None:
                found["base"] = _figures(evaluator, base, out / "untrained", ctx)
        ctx.tally.metrics["own_domain"] = {"queries": len(asked), "passages": len(passages), **found}
        ctx.tally.counts.update({"in": self.queries.rows, "out": len(asked)})


def _figures(evaluator: Evaluator, embedder: Path, out: Path, ctx: Context) -> dict[str, Json]:
    """What mteb says of the task, 0 to 100."""
    with ctx.fresh_tally():
        evaluator.evaluate(embedder, out, ctx)
    file = next((out / "results").rglob(f"{TASK_NAME}.json"), None)
    if file is None:
        return {}
    (of_split,) = json.loads(file.read_text(encoding="utf-8"))["scores"].values()
    return {name: 100 * of_split[0][key] for name, key in FIGURES.items() if key in of_split[0]}


def write_task(folder: Path, passages: list[Passage], asked: list[Sample]) -> None:
    """A retrieval task: all passages, and each query with the passage that it was written for."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    ids: dict[str, str] = {}
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for passage in passages:
            if ids.setdefault(passage.text, f"p{passage.row}") == f"p{passage.row}":
                line = {"_id": f"p{passage.row}", "title": "", "text": passage.text, "document": passage.document}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with (
        (folder / "queries.jsonl").open("w", encoding="utf-8") as queries,
        (folder / "qrels" / "test.jsonl").open("w", encoding="utf-8") as answers,
    ):
        for row in asked:
            assert row.example is not None
            name = f"q{row.row}"
            queries.write(json.dumps({"_id": name, "text": row.example.query}, ensure_ascii=False) + "\n")
            right = {"query-id": name, "corpus-id": ids[row.example.positive], "score": 1}
            answers.write(json.dumps(right) + "\n")
    (folder / "README.md").write_text(HEAD.replace("{task}", TASK), encoding="utf-8")
