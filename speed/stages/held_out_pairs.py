"""Contrastive entropy: how surely the embedder finds the positives of pairs that it has not seen (ours).

It moves with every weight, where nDCG moves only when a rank changes; so laws by data size are fitted to it too (Fang
et al., Scaling Laws for Dense Retrieval, arXiv 2403.18684). The pairs are examples that the teacher wrote for the
junior: no embedder of a run that small models write for is trained on them.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.errors import UserError
from speed.core.stage import Stage, Take
from speed.data.draws import generator
from speed.data.records import Example, Kind, Sample, Scores
from speed.ports import EmbedderTrainer, Group, Weights
from speed.runtime import Context, Runtime

NEGATIVES = 256
"""Texts that a positive is told from (the same paper)."""


@dataclass(frozen=True)
class HeldOutPairs(Stage[Scores]):
    """`entropy.json`: mean of -ln softmax(cosine / temperature) of the positive among itself and the negatives, in
    nats, over all pairs and by kind, at the temperature of the training. Negatives of a pair are positives of others of
    its kind, drawn by `seed`."""

    embedder: Stage[Weights]
    trainer: EmbedderTrainer
    pairs: Take[Sample]
    seed: int
    negatives: int = NEGATIVES

    name: ClassVar[str] = "held-out pairs"

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(runtime.any_number)

    def run(self, out: Path, ctx: Context) -> None:
        examples = [row.example for row in ctx.accepted(self.pairs) if row.example is not None]
        retriever = self.trainer.trained_retriever(ctx.folder(self.embedder))
        if retriever is None:
            raise self._too_few(examples)
        documents = list(dict.fromkeys(example.positive for example in examples))
        queries = [(example.task, example.query) for example in examples]
        groups = [Group(range(len(queries)), range(len(documents)))]
        asked = [[own, *others] for own, others in self._compared(examples, documents)]
        with (
            TemporaryDirectory() as scratch,
            retriever.compared(queries, documents, groups, Path(scratch) / "vectors", ctx) as compared,
        ):
            pairs = ((query, text) for query, texts in enumerate(asked) for text in texts)
            similarities = compared.similarities(pairs)
            losses = [self._loss([next(similarities) for _ in texts]) for texts in asked]
        by_kind: dict[Kind, list[float]] = defaultdict(list)
        for example, texts, loss in zip(examples, asked, losses, strict=True):
            if len(texts) > 1:  # what is told from nothing is no pair
                by_kind[example.kind].append(loss)
        told_apart = [loss for each in by_kind.values() for loss in each]
        if not told_apart:
            raise self._too_few(examples)
        found = {
            "contrastive_entropy": round(sum(told_apart) / len(told_apart), 5),
            "pairs": len(told_apart),
            "entropy_by_kind": {kind: round(sum(each) / len(each), 5) for kind, each in sorted(by_kind.items())},
            "negatives": round(sum(len(texts) - 1 for texts in asked) / len(told_apart), 1),
        }
        (out / "entropy.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        told = f"contrastive entropy {found['contrastive_entropy']:.3f} nats over {len(told_apart):,} pairs"
        ctx.tally.metrics.update(found, remarks=[f"{told}, each against {found['negatives']:g} texts of other pairs"])
        ctx.tally.counts.update({"in": self.pairs.rows, "out": len(examples)})

    def _too_few(self, examples: Sequence[Example]) -> UserError:
        return UserError(
            f"no contrastive entropy can be measured: {len(examples)} of {self.pairs.rows} pairs can be read, and "
            "two of a kind with different positives are needed\n  set held_out_pairs=0, or take more of them"
        )

    def _compared(self, examples: Sequence[Example], documents: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
        """Of each example its positive and the negatives, by their place among the documents."""
        place = {text: number for number, text in enumerate(documents)}
        kinds: dict[Kind, dict[int, None]] = defaultdict(dict)
        for example in examples:
            kinds[example.kind][place[example.positive]] = None
        right: dict[str, set[int]] = defaultdict(set)
        for example in examples:
            right[example.query].add(place[example.positive])
        for number, example in enumerate(examples):
            others = [each for each in kinds[example.kind] if each not in right[example.query]]
            rng = generator(self.seed, self.name, number)
            yield place[example.positive], rng.sample(others, min(self.negatives, len(others)))

    def _loss(self, cosines: Sequence[float]) -> float:
        scaled = [cosine / self.trainer.loss_temperature for cosine in cosines]
        largest = max(scaled)
        return largest + math.log(sum(math.exp(each - largest) for each in scaled)) - scaled[0]
