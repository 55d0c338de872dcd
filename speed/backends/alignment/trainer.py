"""Junior, senior and revisor through TRL's trainers on PEFT adapters or on all weights (paper 3.2 and Appendix B).

    trainer.py      this part: settings (options.py), one training in this process or in several (worker.py)
    sft.py          supervised training
    dpo.py          preference training: here the loss is chosen
    start.py        the weights that a training starts from
    rows.py         texts as token ids, rows that are left out; batch_order.py: their order
    training.py     one training carried out, from its arguments to the files it writes; checkpoints.py
    probing.py      a few steps on random rows, for probe=true
    measures.py     what is measured on a trained model
    trl_patches.py  where TRL is changed, and until when
    export.py       a trained generator in the form that other programs load

TRL's own defaults are not relied on: every option that changes a result is given, and one that TRL would accept and
ignore is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from speed.backends.alignment.options import TrlOptions, devices_of, refuse_unusable
from speed.backends.engines.weights import read_card
from speed.backends.runtime.at_once import until_it_fits
from speed.backends.runtime.device import device_gigabytes, quietly
from speed.backends.runtime.probe_steps import left
from speed.backends.runtime.processes import run_in_processes, several
from speed.core.spec import Json
from speed.data.costs.auto_fit import first_that_fits
from speed.data.costs.loads import Measured
from speed.data.costs.memory import Fit, Footprint
from speed.data.costs.model_shapes import shape_of
from speed.data.trainings import Completion, Dpo, Preference, Sft
from speed.ports import Trainer
from speed.runtime import Context, Runtime


class TrlTrainer(TrlOptions, Trainer):
    """Fine-tunes with TRL: LoRA on all linear layers, or all weights."""

    version: ClassVar[int] = 3
    heavy: ClassVar[tuple[str, ...]] = (
        "torch",
        "datasets",
        "peft",
        "trl.trainer.sft_trainer",
        "trl.trainer.dpo_trainer",
    )

    def sft(self, base: str, rows: Sequence[Completion], config: Sft, out: Path, ctx: Context) -> None:
        """Supervised training on completions (paper, equation 1), in as many processes as the runtime says."""
        self._train(out, ctx, source=base, config=config, completions=tuple(rows))

    def dpo(self, start: Path, rows: Sequence[Preference], config: Dpo, out: Path, ctx: Context) -> None:
        """Preference training from `start`, which is also the reference (paper, equation 2)."""
        self._train(out, ctx, source=str(start), config=config, preferences=tuple(rows))

    def probe(self, base: str, config: Sft | Dpo, out: Path, ctx: Context) -> Measured:
        """See `speed.ports.Trainer`. A preference training starts from the base with a new adapter on it."""
        self._train(out, ctx, source=base, config=config.model_copy(update={"epochs": 1.0}), probe=True)
        return left(ctx)

    def check(self, config: Sft | Dpo, runtime: Runtime) -> None:
        refuse_unusable(self, config, runtime)

    def check_base(self, base: str, config: Sft | Dpo) -> None:
        from speed.backends.engines.base_check import check_generator

        check_generator(base, self.prompt_format, config.max_length, ["embed_tokens"] if self.embeddings else [])

    def read_prompt(self, base: str, prompt: str) -> str:
        from speed.backends.engines.base_check import read_prompt

        return read_prompt(base, self.prompt_format, prompt)

    def devices(self, config: Sft | Dpo, runtime: Runtime) -> tuple[int, ...]:
        return devices_of(self, config.batch_size, runtime.nodes)

    def recipe(self) -> Json:
        """Identity: the fields; `auto` counts as what it gives the result of, the whole batch without checkpointing."""
        found = super().recipe()
        auto = {"micro_batch": None, "gradient_checkpointing": False}
        return found | {name: plain for name, plain in auto.items() if found[name] == "auto"}

    def footprint(self) -> Footprint:
        return Footprint(
            lora=self.r if self.method == "lora" else None,
            weight_bytes=4 if self.precision == "fp32" else 2,
            checkpointing=self.gradient_checkpointing is True,
            embeddings=self.embeddings,
            micro_batch=None if self.micro_batch == "auto" else self.micro_batch,
            auto_rows=self.micro_batch == "auto",
            auto_checkpointing=self.gradient_checkpointing == "auto",
            precomputed_reference=self.precompute_reference,
        )

    def choose_settings(self, source: str, config: Sft | Dpo, ctx: Context) -> Fit | None:
        """Choose what takes the place of `auto` on the GPUs of this build; say it and record it in the manifest.

        None where nothing is auto, or where the sizes of the model or of the GPUs are unknown: then the whole batch is
        tried.
        """
        footprint, gigabytes = self.footprint(), device_gigabytes(ctx)
        if gigabytes is None or not (footprint.auto_rows or footprint.auto_checkpointing):
            return None
        card = read_card(source)
        shape = shape_of(source if card is None else card.base)
        if shape is None:
            return None
        partitioned = ctx.runtime.strategy == "zero3"
        found = first_that_fits(shape, footprint, config, gigabytes, ctx.grant.processes, partitioned)
        ctx.say(f"{found.settings}, chosen for {gigabytes:g} GB, of which it takes about {found.gigabytes:.0f}")
        ctx.tally.metrics["auto"] = found.settings
        return found

    def _train(self, out: Path, ctx: Context, *, config: Sft | Dpo, **job: Any) -> None:
        """Carry out a training unless it has ended before.

        Args:
            job: what a `TrainingJob` says of start and rows.
        """
        refuse_unusable(self, config, ctx.runtime)
        with quietly():  # torch and TRL: seconds, which a plan does not pay
            from speed.backends.alignment.training import is_finished
            from speed.backends.alignment.worker import WORKER, TrainingJob, train
        if is_finished(out, ctx):
            return
        found = self.choose_settings(job["source"], config, ctx)
        made = TrainingJob(
            options=self.model_copy(update={"gradient_checkpointing": found.checkpointing}) if found else self,
            config=config,
            rows=found.micro_batch if found else None,
            out=str(out.resolve()),
            runtime=ctx.runtime,
            grant=ctx.grant,
            **job,
        )
        until_it_fits(lambda: run_in_processes(made, WORKER, ctx) if several(ctx) else train(made, ctx), ctx)
