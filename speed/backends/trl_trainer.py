"""Junior, senior and revisor through TRL's trainers on PEFT adapters or on all weights (paper 3.2 and Appendix B).

TRL's own defaults are not relied on: every option that changes a result is given, and one that TRL would accept and
ignore is refused. The data arrive tokenised (`training_rows`). A DPO training starts from the junior; its frozen
reference is the junior itself: TRL's copy of the adapter under the name `ref`, or a copy of the whole model.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from speed.backends.device import device_of
from speed.backends.prompt_format import FormatName, prompt_format
from speed.backends.training_rows import dpo_rows, sft_rows
from speed.backends.weights import CARD, Loaded, Precision, WeightsCard, base_of, load, write_card
from speed.core.context import Context
from speed.core.errors import UserError
from speed.ports import Completion, Dpo, Preference, Sft, Trainer

CURVE = "training.json"
"""File beside `model/`: the curve, step by step, and the summary."""


class TrlTrainer(Trainer):
    """Fine-tunes with TRL: LoRA on all linear layers, or all weights."""

    method: Literal["lora", "full"] = "lora"
    """Which weights are trained."""
    r: int = Field(default=16, ge=1)
    """Rank of LoRA (the paper states 16 for the embedder only; taken here too)."""
    alpha: int = Field(default=32, ge=1)
    """Scale of LoRA, alpha / r (ours, after E5-mistral's published adapter)."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout in front of LoRA in supervised training; a preference training runs without (ours)."""
    precision: Precision = "bf16"
    """Arithmetic of the forward pass; adapters and fully trained weights are kept in fp32."""
    prompt_format: FormatName = "plain"
    """Layout of prompts; stored with the weights, and what the engine uses afterwards."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows of one forward pass where a whole batch does not fit; must divide the batch size. Null: the whole batch."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """AdamW's decay (ours: none)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate after the warm-up (ours: linear to zero)."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Longer gradients are scaled down to this norm (ours)."""

    def sft(self, base: str, rows: Sequence[Completion], config: Sft, out: Path, ctx: Context) -> None:
        """Supervised training on completions (paper, equation 1)."""
        if self._already_done(out, ctx):
            return
        import torch
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        torch.set_num_threads(ctx.runtime.threads)
        device = device_of(ctx)
        start = self._start(base, device)
        data = sft_rows(rows, self.prompt_format, start.tokenizer, config.max_length, ctx.tally.rejected)
        options = SFTConfig(
            **self._options(config, len(data), out, device),
            max_length=None,
            completion_only_loss=True,
            loss_type="nll",
            packing=False,
        )
        trainer = SFTTrainer(
            model=start.model,
            args=options,
            train_dataset=Dataset.from_list(data),
            processing_class=start.tokenizer,
            peft_config=self._new_adapter(start.model),
        )
        self._carry_out(trainer, base, start, out, ctx, first_loss=None)

    def dpo(self, start: Path, rows: Sequence[Preference], config: Dpo, out: Path, ctx: Context) -> None:
        """Preference training from `start`, which is also the reference (paper, equation 2)."""
        if config.label_smoothing and config.loss != "robust":
            raise UserError(
                f"preference.label_smoothing={config.label_smoothing} has no effect on loss={config.loss}\n"
                "  set it to 0, or take loss=robust"
            )
        if self._already_done(out, ctx):
            return
        import torch
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        class TokenisedDpo(DPOTrainer):  # type: ignore[misc]
            """TRL's trainer on rows that are token ids already."""

            def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
                return dataset

        torch.set_num_threads(ctx.runtime.threads)
        device = device_of(ctx)
        loaded = self._start(start, device)
        data = dpo_rows(rows, self.prompt_format, loaded.tokenizer, config.max_length, ctx.tally.rejected)
        options = DPOConfig(
            **self._options(config, len(data), out, device),
            max_length=config.max_length,
            beta=config.beta,
            loss_type=[config.loss],
            label_smoothing=config.label_smoothing,
            disable_dropout=True,
        )
        trainer = TokenisedDpo(
            model=loaded.model,
            args=options,
            train_dataset=Dataset.from_list(data),
            processing_class=loaded.tokenizer,
            peft_config=self._new_adapter(loaded.model),
        )
        self._carry_out(trainer, start, loaded, out, ctx, first_loss=loss_at_start(config), beta=config.beta)

    def _start(self, source: str | Path, device: str) -> Loaded:
        """The weights to start from: an adapter goes on as a trainable one, or is merged where all weights are trained.

        Raises:
            UserError: for an adapter of another shape than this trainer's, or weights of another prompt format.
        """
        if self.precision == "fp16" and device == "cpu":
            raise UserError("trainer.precision=fp16 needs a GPU\n  take trainer.precision=fp32 (or bf16)")
        precision = self.precision if self.method == "lora" else "fp32"
        loaded = load(source, precision, device, for_training=self.method == "lora")
        if self.method == "full":
            loaded.model.requires_grad_(True)
        elif loaded.card is not None and loaded.card.adapter:
            shape = loaded.model.peft_config["default"]
            if (shape.r, shape.lora_alpha) != (self.r, self.alpha):
                raise UserError(
                    f"{source} holds a LoRA adapter of r={shape.r}, alpha={shape.lora_alpha}, and the trainer's is "
                    f"r={self.r}, alpha={self.alpha}\n  give both trainings the same shape"
                )
        wanted = prompt_format(self.prompt_format, loaded.tokenizer)
        if loaded.card is not None and loaded.card.prompt_format != wanted:
            raise UserError(
                f"{source} was trained on the prompt format {loaded.card.prompt_format.name} and trainer.prompt_format="
                f"{self.prompt_format} is another\n  formats are never mixed: set the same one"
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
        )

    def _options(self, config: Sft | Dpo, rows: int, out: Path, device: str) -> dict[str, Any]:
        """The options that both of TRL's configs share; none is left to a default that could change a result."""
        micro_batch = min(self.micro_batch or config.batch_size, config.batch_size)
        if config.batch_size % micro_batch:
            raise UserError(f"trainer.micro_batch={micro_batch} does not divide the batch size {config.batch_size}")
        steps = math.ceil(config.epochs * math.ceil(rows / config.batch_size))
        constant = self.schedule == "constant"
        return {
            "output_dir": str(out / "checkpoints"),
            "per_device_train_batch_size": micro_batch,
            "gradient_accumulation_steps": config.batch_size // micro_batch,
            "num_train_epochs": config.epochs,
            "learning_rate": config.learning_rate,
            "warmup_steps": math.ceil(config.warmup_ratio * steps),
            "lr_scheduler_type": "constant_with_warmup" if constant else self.schedule,
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "optim": "adamw_torch",
            "seed": config.seed,
            "data_seed": config.seed,
            "bf16": self.precision == "bf16",
            "fp16": self.precision == "fp16",
            "gradient_checkpointing": self.gradient_checkpointing,
            "use_cpu": device == "cpu",
            "dataloader_num_workers": 0,
            "dataloader_pin_memory": device != "cpu",
            "save_strategy": "no",
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "report_to": [],
            "disable_tqdm": True,
        }

    def _carry_out(
        self,
        trainer: Any,
        source: str | Path,
        start: Loaded,
        out: Path,
        ctx: Context,
        first_loss: float | None,
        beta: float | None = None,
    ) -> None:
        """Train from the last whole checkpoint, write weights, curve and card in this order, remove the checkpoints."""
        import torch
        from transformers import PrinterCallback

        from speed.backends.training_watch import Watch, figures, last_whole

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Watch(ctx, out / "checkpoints", first_loss))
        resume = last_whole(out / "checkpoints")
        if resume is not None:
            ctx.say(f"training goes on from {resume.name}")
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except torch.OutOfMemoryError as error:
            raise UserError(
                "the training does not fit into the GPU's memory\n"
                "  set trainer.micro_batch to a smaller divisor of the batch size, or trainer.gradient_checkpointing=true; "
                "the last checkpoint is kept"
            ) from error
        base, content = base_of(source, out, trainer.model)
        save_model(trainer.model, start.tokenizer, base, out / "model")
        curve = [{"step": line["step"], **figures(line)} for line in trainer.state.log_history if "loss" in line]
        summary = summary_of(curve, beta)
        (out / CURVE).write_text(json.dumps({"summary": summary, "curve": curve}, indent=1) + "\n")
        wanted = prompt_format(self.prompt_format, start.tokenizer)
        write_card(
            out, WeightsCard(base=base, base_sha256=content, adapter=self.method == "lora", prompt_format=wanted)
        )
        ctx.tally.metrics.update(summary)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)

    def _already_done(self, out: Path, ctx: Context) -> bool:
        """True when an interrupted build had finished its training: the card is written last."""
        if not (out / CARD).is_file():
            return False
        ctx.tally.metrics.update(json.loads((out / CURVE).read_text())["summary"])
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        return True


def save_model(model: Any, tokenizer: Any, base: str, folder: Path) -> None:
    """Write the trained adapter (never TRL's frozen copy of it) or the whole model, with its tokenizer."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        shape = model.peft_config["default"]
        shape.base_model_name_or_path = base
        shape.target_modules = sorted(shape.target_modules)  # a set, whose order would differ from run to run
        model.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form of a model card
    else:
        model.config.use_cache = True
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def loss_at_start(config: Dpo) -> float:
    """Loss of a policy that equals its reference, by objective (all margins are 0)."""
    return {
        "sigmoid": math.log(2),
        "robust": math.log(2),
        "hinge": 1.0,
        "ipo": 1 / (4 * config.beta**2),
    }[config.loss]


def summary_of(curve: Sequence[dict[str, float]], beta: float | None) -> dict[str, float]:
    """Figures of a training for its manifest.

    For a preference training `kl_reference` estimates KL(reference || policy) in nats a text: the mean fall of the
    log-probability of texts that the reference wrote (the pairs are its own samples, so it leans on the judge's choice).
    """
    first, last = curve[0], curve[-1]
    found = {"steps": last["step"], "first_loss": first["loss"], "last_loss": last["loss"]}
    names = (
        "rewards_accuracies",
        "rewards_margins",
        "rewards_chosen",
        "rewards_rejected",
        "logps_chosen",
        "logps_rejected",
    )
    found.update({name: last[name] for name in (*names, "mean_token_accuracy") if name in last})
    if beta is not None:
        found["kl_reference"] = -(last["rewards_chosen"] + last["rewards_rejected"]) / (2 * beta)
    return found
