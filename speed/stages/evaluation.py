"""Evaluation: MTEB judges the embedder (paper 4.2)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.content import HubRepository
from speed.core.errors import UserError
from speed.core.stage import Stage
from speed.data.costs.gpu_hours import CHARACTERS_PER_TOKEN
from speed.data.quality.contaminated_records import Contamination, Tally, contamination_of
from speed.data.records import Scores
from speed.ports import EmbedderTrainer, Evaluator, Weights
from speed.runtime import Context, Runtime
from speed.stages.trials import EncodingTrial


@dataclass(frozen=True)
class Evaluation(Stage[Scores]):
    """`scores.json`, and beside it mteb's own result files and the scores of single queries."""

    evaluator: Evaluator
    embedder: Stage[Weights]

    name: ClassVar[str] = "evaluation"

    def check(self, runtime: Runtime) -> None:
        self.evaluator.check()

    def read_inputs(self, runtime: Runtime, say: Callable[[str], None]) -> None:
        self.evaluator.read_inputs(runtime, say)

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(runtime.any_number)

    def trial(self) -> EncodingTrial | None:
        trainer, load = getattr(self.embedder, "trainer", None), self.evaluator.load()
        if not isinstance(trainer, EmbedderTrainer):
            return None
        trained = trainer.load()
        models = 1 if trained is None else trained.scored
        tokens = 0.0 if load is None else models * load.characters / CHARACTERS_PER_TOKEN
        return EncodingTrial(tokens, self.evaluator, trainer)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return self.evaluator.hub_repositories()

    def run(self, out: Path, ctx: Context) -> None:
        untrained = self._untrained(out, ctx)
        scores = self.evaluator.evaluate(ctx.folder(self.embedder), out, ctx)
        (out / "scores.json").write_text(json.dumps(scores.model_dump(mode="json"), indent=1), encoding="utf-8")
        ctx.tally.counts["out"] = len(scores.tasks)
        ctx.tally.metrics["scores"] = scores.model_dump(mode="json")
        if untrained is not None:
            ctx.tally.metrics["untrained"] = untrained.model_dump(mode="json")
        if (found := self._contamination(ctx)) is not None:
            ctx.tally.metrics["contamination"] = found.model_dump(mode="json")

    def _contamination(self, ctx: Context) -> Contamination | None:
        """What the corpus of the embedder, and labelled records beside it, share with the tasks, for the report; None
        where there is no corpus or no text. It decides over nothing, so it is in no key."""

        def so_far(tally: Tally) -> None:
            ctx.say(f"looking for texts of the tasks in the corpus: {tally.records:,} examples so far")

        corpus, trainer = getattr(self.embedder, "corpus", None), getattr(self.embedder, "trainer", None)
        if not isinstance(corpus, Stage):
            return None
        try:
            tasks = self.evaluator.task_texts(ctx)
            files = (ctx.folder(corpus) / "examples.jsonl", *(trainer.labelled_files() if trainer else ()))
            return contamination_of(files, tasks, so_far) if tasks else None
        except Exception as error:  # nor is an evaluation lost for it that took days, and whose corpus may be gone
            ctx.say(f"the corpus is not searched for texts of the tasks ({type(error).__name__}): {error}")
            ctx.tally.metrics["not_searched"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return None

    def _untrained(self, out: Path, ctx: Context) -> Scores | None:
        """Scores of the embedder's base without training, under the same protocol, for the report: they show what the
        training is worth. A base that cannot be scored costs no run its scores."""
        export = getattr(self.embedder, "untrained", None)
        if export is None:
            return None
        with TemporaryDirectory() as folder, ctx.fresh_tally():
            try:
                model = export(Path(folder), ctx)
                return None if model is None else self.evaluator.evaluate(model, out / "untrained", ctx)
            except UserError as error:
                ctx.say(f"the base without training is not scored: {error}")
                return None
