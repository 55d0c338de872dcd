"""Senior: the junior learns the teacher's taste (paper 3.2.3, equation 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.allocation import Demand
from speed.core.content import HubRepository
from speed.core.stage import Node, Stage, Take
from speed.core.work import Work
from speed.data.records import Pair
from speed.data.trainings import Dpo, Preference
from speed.ports import Trainer, Training, Weights
from speed.runtime import Context, Runtime
from speed.stages.base import (
    UntrainedModel,
    bases_under,
    host_memory,
    in_its_round,
    tokens_about,
    training_rows,
)
from speed.stages.trials import TrainingTrial, trial_of


@dataclass(frozen=True)
class Senior(Stage[Weights]):
    """Direct preference optimisation of the junior, or in a further round of the senior before; the frozen start is the
    reference."""

    dpo: Dpo
    trainer: Trainer
    junior: Stage[Weights]
    pairs: Take[Pair]

    name: ClassVar[str] = "senior"

    @property
    def label(self) -> str:
        return in_its_round(self.name, self.pairs.pool)

    def work(self) -> Work:
        return Work(trained=round(self.pairs.rows * self.dpo.epochs))

    def check(self, runtime: Runtime) -> None:
        self.trainer.check(self.dpo, runtime)

    def demand(self, runtime: Runtime) -> Demand:
        return Demand(self.trainer.devices(self.dpo, runtime), gigabytes=host_memory(self.training()), nodes=True)

    def hub_repositories(self) -> tuple[HubRepository, ...]:
        return bases_under(self.junior)

    @property
    def refers_to(self) -> tuple[Node, ...]:
        footprint = self.trainer.footprint()
        return () if footprint is not None and footprint.lora is None else (self.junior,)

    def training(self) -> Training:
        trained: Training | None = self.junior.training()
        base = self.junior.base_under if isinstance(self.junior, UntrainedModel) else trained.base if trained else ""
        return Training(base, self.dpo, self.trainer, 2 * sum(tokens_about(self, "seed")))

    def trial(self) -> TrainingTrial:
        return trial_of(self.training())

    def run(self, out: Path, ctx: Context) -> None:
        rows = [
            Preference(prompt=pair.prompt.text, chosen=pair.chosen, rejected=pair.rejected_text, begun=pair.begun)
            for pair in training_rows(self.pairs, ctx, "counts.pairs")
        ]
        ctx.tally.counts["in"] = len(rows)
        self.trainer.dpo(ctx.folder(self.junior), rows, self.dpo, out, ctx)
