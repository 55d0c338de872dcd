"""Junior, senior and revisor through TRL's trainers on PEFT adapters or on all weights (paper 3.2 and Appendix B).

TRL's own defaults are not relied on: every option that changes a result is given, and one that TRL would accept and
ignore is refused. The data arrive tokenised (`rows`). A preference training starts from the junior; its frozen
reference is the junior itself: TRL's copy of the adapter under the name `ref`, or a copy of the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from speed.backends.alignment.batch_order import BatchOrder, in_order
from speed.backends.alignment.divergence import bring_reference, drift, kl_reference
from speed.backends.alignment.job import WORKER, TrainingJob
from speed.backends.alignment.options import loss_at_start, refuse_unusable, shared_options
from speed.backends.alignment.packs import packs
from speed.backends.alignment.reference_log_probs import cache_file, with_reference
from speed.backends.alignment.rows import IGNORED, dpo_rows, sft_rows
from speed.backends.alignment.run import Run, carry_out, finished_before, memory_errors
from speed.backends.alignment.written_samples import SAMPLE, samples
from speed.backends.generator.prompt_format import FormatName, prompt_format, prompt_ids
from speed.backends.generator.weights import Loaded, Precision, WeightsCard, base_of, load
from speed.backends.runtime.device import device_of, fills_gpu, quietly
from speed.backends.runtime.processes import run_in_processes, several
from speed.core.content import sha256_of
from speed.core.context import Context, Runtime
from speed.core.errors import UserError
from speed.data.costs.memory import Footprint
from speed.ports import Completion, Dpo, Preference, Sft, Trainer

TRAINERS = ("trl.trainer.sft_trainer", "trl.trainer.dpo_trainer")


class TrlTrainer(Trainer):
    """Fine-tunes with TRL: LoRA on all linear layers, or all weights."""

    version: ClassVar[int] = 3
    heavy: ClassVar[tuple[str, ...]] = ("torch", "datasets", "peft", *TRAINERS)

    method: Literal["lora", "full"]
    """Which weights are trained."""
    r: int = Field(default=16, ge=1)
    """Rank of LoRA (the paper states 16 for the embedder only; taken here too)."""
    alpha: int = Field(default=32, ge=1)
    """Scale of LoRA, alpha / r (ours, after E5-mistral's published adapter)."""
    embeddings: bool = False
    """Train the token embeddings beside LoRA: for a base too small to know the marks of JSON (ours)."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout in front of LoRA in supervised training; a preference training runs without (ours)."""
    precision: Precision
    """Arithmetic of the forward pass; adapters and fully trained weights are kept in fp32."""
    prompt_format: FormatName
    """Layout of prompts; stored with the weights, and what the engine uses afterwards."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows of one forward pass; must divide the batch size. Null: the whole batch.

    Fewer rows need less memory and, standing by length, less padding. In a preference training whose last batch is not
    full, its micro batches count alike whatever their rows; with several processes it is filled up with rows from the
    beginning of the pass, and the run says with how many."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """AdamW's decay (ours: none)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate after the warm-up (ours: linear to zero)."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Longer gradients are scaled down to this norm (ours)."""
    padding_free: bool = False
    """Rows of a micro batch as one row without padding; supervised trainings only, where TRL really does it."""
    packing: bool = False
    """Rows end to end, padding-free, in packs of at most the training's max_length; supervised trainings only. A batch
    and a micro batch then count packs and not rows: fewer steps, each over more rows. Attention is computed over whole
    packs and masked, which small models on a CPU pay for dearly (experiments/alignment.md)."""
    precompute_reference: bool = False
    """Log-probabilities of the reference once, before a preference training, and shared by trainings on the same pairs;
    a training of all weights then holds no second model while it trains."""
    liger: bool = False
    """Fused kernels of the package liger-kernel, on GPUs."""

    def sft(self, base: str, rows: Sequence[Completion], config: Sft, out: Path, ctx: Context) -> None:
        """Supervised training on completions (paper, equation 1), in as many processes as the runtime says."""
        refuse_unusable(self, config, ctx.runtime)
        if finished_before(out, ctx):
            return
        if not several(ctx.runtime):
            self.train_sft(base, rows, config, out, ctx)
            return
        job = TrainingJob(kind="sft", sft=config, completions=tuple(rows), **self._job(base, out, ctx))
        run_in_processes(job, WORKER, ctx)

    def train_sft(self, base: str, rows: Sequence[Completion], config: Sft, out: Path, ctx: Context) -> None:
        """Supervised training in this process, which may be one of several ranks."""
        with quietly(), memory_errors():
            import torch
            from datasets import Dataset
            from trl import SFTConfig, SFTTrainer

            torch.set_num_threads(ctx.runtime.threads)
            device = device_of(ctx)
            start = self._start(base, device, ctx.runtime)
            data = sft_rows(rows, self.prompt_format, start.tokenizer, config.max_length, ctx)
            passed = packs(data, config.max_length) if self.packing else data
            options = SFTConfig(
                **shared_options(self, config, len(passed), out, device, ctx.runtime),
                max_length=None,
                completion_only_loss=True,
                loss_type="nll",
                packing=self.packing,
                padding_free=self.padding_free,
            )
            options._n_gpu = 1  # one process, one GPU: others in sight are not for it
            order = BatchOrder([len(row["input_ids"]) for row in passed], config.batch_size, config.seed)
            trainer = in_order(SFTTrainer, order)(
                model=start.model,
                args=options,
                train_dataset=Dataset.from_list(passed),
                processing_class=start.tokenizer,
                peft_config=self._new_adapter(start.model),
            )
            lengths = [sum(label != IGNORED for label in row["labels"]) for row in data]
            prompts = [row["input_ids"][:-length] for row, length in zip(data, lengths, strict=True)]

            def after(done: Any) -> dict[str, float]:
                return samples(done.model, start.tokenizer, prompts, max(lengths))

            carry_out(Run(trainer, start.tokenizer, self._card(base, start, out), after=after), out, ctx)

    def dpo(self, start: Path, rows: Sequence[Preference], config: Dpo, out: Path, ctx: Context) -> None:
        """Preference training from `start`, which is also the reference (paper, equation 2)."""
        refuse_unusable(self, config, ctx.runtime)
        if finished_before(out, ctx):
            return
        if not several(ctx.runtime):
            self.train_dpo(start, rows, config, out, ctx)
            return
        job = TrainingJob(kind="dpo", dpo=config, preferences=tuple(rows), **self._job(start, out, ctx))
        run_in_processes(job, WORKER, ctx)

    def train_dpo(self, start: Path, rows: Sequence[Preference], config: Dpo, out: Path, ctx: Context) -> None:
        """Preference training in this process, which may be one of several ranks."""
        with quietly(), memory_errors():
            import torch
            from datasets import Dataset
            from trl import DPOConfig, DPOTrainer

            torch.set_num_threads(ctx.runtime.threads)
            device = device_of(ctx)
            loaded = self._start(start, device, ctx.runtime)
            data = dpo_rows(rows, self.prompt_format, loaded.tokenizer, config.max_length, ctx)
            options = DPOConfig(
                **shared_options(self, config, len(data), out, device, ctx.runtime),
                max_length=config.max_length,
                beta=config.beta,
                loss_type=[config.loss, "sft"] if config.sft_weight else [config.loss],
                loss_weights=[1.0, config.sft_weight] if config.sft_weight else None,
                label_smoothing=config.label_smoothing,
                disable_dropout=True,
                precompute_ref_log_probs=self.precompute_reference,
            )
            options._n_gpu = 1
            order = BatchOrder([sum(map(len, row.values())) for row in data], config.batch_size, config.seed)
            trainer_class = in_order(DPOTrainer, order)
            if self.precompute_reference:
                weights = [sha256_of(start / "model"), loaded.card.base_sha256 if loaded.card else ""]
                file = cache_file(ctx.store.home, weights, data, self.precision)
                trainer_class = with_reference(trainer_class, file)
            trainer = trainer_class(
                model=loaded.model,
                args=options,
                train_dataset=Dataset.from_list(data),
                processing_class=loaded.tokenizer,
                peft_config=self._new_adapter(loaded.model),
            )
            prompts = [prompt_ids(row.prompt, self.prompt_format, loaded.tokenizer) for row in rows[:SAMPLE]]

            def after(done: Any) -> dict[str, float]:
                bring_reference(done, lambda: self._start(start, device, ctx.runtime).model)
                return kl_reference(done, data) | drift(done, loaded.tokenizer, prompts, data)

            card = self._card(start, loaded, out)
            carry_out(Run(trainer, loaded.tokenizer, card, loss_at_start(config), after), out, ctx)

    def check(self, config: Sft | Dpo, runtime: Runtime) -> None:
        refuse_unusable(self, config, runtime)

    def alone(self, runtime: Runtime) -> bool:
        return fills_gpu(runtime)

    def footprint(self) -> Footprint:
        return Footprint(
            lora=self.r if self.method == "lora" else None,
            weight_bytes=4 if self.precision == "fp32" else 2,
            checkpointing=self.gradient_checkpointing,
            embeddings=self.embeddings,
        )

    def _job(self, source: str | Path, out: Path, ctx: Context) -> dict[str, Any]:
        fields = self.model_dump(mode="json")
        there = {"source": str(source), "out": str(out.resolve())}
        return {"trainer": fields, **there, "runtime": ctx.runtime}

    def _start(self, source: str | Path, device: str, runtime: Runtime) -> Loaded:
        """The weights to start from: an adapter goes on as a trainable one, or is merged where all weights are trained.

        Raises:
            UserError: for an adapter of another shape than this trainer's, or weights of another prompt format.
        """
        precision = self.precision if self.method == "lora" else "fp32"
        place = "cpu" if runtime.strategy == "zero3" else device  # DeepSpeed takes each process's part to its device
        loaded = load(source, precision, place, for_training=self.method == "lora")
        if self.method == "full":
            loaded.model.requires_grad_(True)
        elif loaded.card is not None and loaded.card.adapter:
            there = loaded.model.peft_config["default"]
            if (there.r, there.lora_alpha, there.lora_dropout) != (self.r, self.alpha, self.dropout):
                raise UserError(
                    f"{source} holds a LoRA adapter of r={there.r}, alpha={there.lora_alpha}, dropout="
                    f"{there.lora_dropout}, and the trainer's is r={self.r}, alpha={self.alpha}, dropout={self.dropout}"
                    "\n  give both trainings the same adapter"
                )
        wanted = prompt_format(self.prompt_format, loaded.tokenizer)
        if loaded.card is not None and loaded.card.prompt_format != wanted:
            raise UserError(
                f"{source} was trained on the prompt format {loaded.card.prompt_format.name} and "
                f"trainer.prompt_format={self.prompt_format} is another\n  formats are never mixed: set the same one"
            )
        return loaded

    def _new_adapter(self, model: Any) -> Any:
        """LoRA for a model that carries none yet."""
        from peft import LoraConfig, PeftModel

        if self.method == "full" or isinstance(model, PeftModel):
            return None
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            modules_to_save=["embed_tokens"] if self.embeddings else None,
            ensure_weight_tying=self.embeddings,
        )

    def _card(self, source: str | Path, start: Loaded, out: Path) -> WeightsCard:
        base, content = base_of(source, out, start.model)
        layout = prompt_format(self.prompt_format, start.tokenizer)
        return WeightsCard(base=base, base_sha256=content, adapter=self.method == "lora", prompt_format=layout)
