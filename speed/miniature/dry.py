"""Stand-ins for all that needs a model, so that a whole run can be tried in orchestration: prompts, answers, store,
journal, deduplication and report are real, what the small models write comes from rules at once, and each training
takes one step of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from speed.data.records import Scores
from speed.data.trainings import Completion, Dpo, Preference, Sft
from speed.miniature.rules import answer_prompt
from speed.ports import EmbedderTrainer, Engine, Evaluator, Generate, Generated, Sampling, Trainer
from speed.runtime import Context

CHARACTERS_A_TOKEN = 4
BATCH = 16
"""Rows of the one step of a training."""


class DryEngine(Engine):
    """Writes by the rules of the miniature's teacher, without a model."""

    heavy: ClassVar[tuple[str, ...]] = ("numpy",)
    """Something, so that it writes in a process of its own, as engines do."""

    def generate(
        self, weights: Path, calls: Iterable[Sequence[Generate]], sampling: Sampling, ctx: Context
    ) -> Iterator[list[Generated]]:
        """For each call its texts."""
        for requests in calls:
            yield [_written(request, index) for request in requests for index in range(request.n)]


def _written(request: Generate, index: int) -> Generated:
    text = answer_prompt(request.prompt, seed=(request.seed, index))
    tokens = -(-len(text) // CHARACTERS_A_TOKEN)
    ends = tokens <= request.max_tokens
    text = text if ends else text[: request.max_tokens * CHARACTERS_A_TOKEN]
    return Generated(key=request.key, index=index, text=text, finish_reason="stop" if ends else "length", tokens=tokens)


class DryTrainer(Trainer):
    """Reads all rows and takes one step of a tiny model."""

    version: ClassVar[int] = 2
    heavy: ClassVar[tuple[str, ...]] = ("torch", "torch._dynamo", "safetensors.torch")
    """The second is what optimisers of the first import when they are made."""

    def sft(self, base: str, rows: Sequence[Completion], config: Sft, out: Path, ctx: Context) -> None:
        """Learn which completion belongs to which prompt, and count the characters of the rows."""
        pairs = [(row.prompt, row.completion) for row in rows[:BATCH]]
        _train(pairs, sum(len(row.prompt) + len(row.completion) for row in rows), config.seed, out, ctx)

    def dpo(self, start: Path, rows: Sequence[Preference], config: Dpo, out: Path, ctx: Context) -> None:
        """Learn which chosen answer belongs to which prompt, and count the characters of the rows."""
        pairs = [(row.prompt, row.chosen) for row in rows[:BATCH]]
        characters = sum(len(row.prompt) + len(row.chosen) + len(row.rejected) for row in rows)
        _train(pairs, characters, config.seed, out, ctx)


class DryEmbedder(EmbedderTrainer):
    """Reads the whole corpus and takes one step of a tiny model."""

    version: ClassVar[int] = 2
    heavy: ClassVar[tuple[str, ...]] = DryTrainer.heavy

    def train(self, examples: Path, out: Path, seed: int, ctx: Context) -> None:
        """Learn which positive belongs to which query, and count the characters of the queries."""
        pairs, characters = list[tuple[str, str]](), 0
        with examples.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                characters += len(row["query"])
                if len(pairs) < BATCH:
                    pairs.append((row["query"], row["positive"]))
        _train(pairs, characters, seed, out, ctx)

    def steps(self, examples: int) -> int:
        """One."""
        return 1


class DryEvaluator(Evaluator):
    """Gives no score."""

    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        """One task without a score."""
        return Scores(tasks={"none (dry run)": None}, types={"none": None}, mean=None, mean_of_types=None)


def _train(pairs: Sequence[tuple[str, str]], characters: int, seed: int, out: Path, ctx: Context) -> None:
    from speed.miniature.dry_step import take_step

    (out / "model").mkdir(exist_ok=True)
    loss = take_step(pairs, seed, out / "model" / "model.safetensors", ctx.grant.threads)
    (out / "model" / "read.json").write_text(json.dumps({"characters": characters}))
    ctx.metric(1, loss=loss)
