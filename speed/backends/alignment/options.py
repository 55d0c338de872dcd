"""What a trainer of ours tells TRL, and what it refuses to pass on because TRL or the machine would ignore it."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed.backends.alignment import zero3
from speed.core.context import Runtime
from speed.core.errors import UserError
from speed.ports import Dpo, Sft

if TYPE_CHECKING:
    from speed.backends.alignment.trainer import TrlTrainer


def refuse_ignored(trainer: TrlTrainer, runtime: Runtime, preference: bool) -> None:
    """Refuse options that would have no effect here.

    Args:
        preference: whether a preference training is among those that the options are for.

    Raises:
        UserError: naming the option, why, and what to set instead.
    """
    if trainer.padding_free and preference:
        raise UserError(
            "trainer.padding_free=true has no effect on a preference training: TRL 1.16 accepts it and pads\n"
            "  set it to false, or give a trainer with it to the revisor alone (revisor.trainer)"
        )
    if trainer.precompute_reference and preference and runtime.strategy == "zero3":
        raise UserError(
            "trainer.precompute_reference=true needs whole models, and runtime.strategy=zero3 cuts them up\n"
            "  set one of the two otherwise"
        )
    if trainer.liger and (runtime.device == "cpu" or find_spec("liger_kernel") is None):
        why = "runtime.device=cpu has no GPU for it" if runtime.device == "cpu" else "it is not installed"
        raise UserError(f"trainer.liger=true, and {why}\n  set trainer.liger=false, or pip install liger-kernel")
    if trainer.precision == "fp16" and runtime.device == "cpu":
        raise UserError("trainer.precision=fp16 needs a GPU\n  take trainer.precision=fp32 (or bf16)")
    if runtime.strategy == "zero3":
        zero3.require()


def shared_options(
    trainer: TrlTrainer, config: Sft | Dpo, rows: int, out: Path, device: str, runtime: Runtime
) -> dict[str, Any]:
    """The options that both of TRL's configs share; none is left to a default that could change a result."""
    if trainer.liger and device == "cpu":
        raise UserError("trainer.liger=true, and this machine has no GPU\n  set trainer.liger=false")
    share, rest = divmod(config.batch_size, runtime.processes)
    micro_batch = min(trainer.micro_batch or share, share)
    if rest or share % micro_batch:
        raise UserError(
            f"a batch of {config.batch_size} cannot be computed by {runtime.processes} processes in micro batches "
            f"of {micro_batch}\n  choose trainer.micro_batch and runtime.processes so that their product divides it"
        )
    steps = math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    constant = trainer.schedule == "constant"
    return {
        "output_dir": str(out / "checkpoints"),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": share // micro_batch,
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "warmup_steps": math.ceil(config.warmup_ratio * steps),
        "lr_scheduler_type": "constant_with_warmup" if constant else trainer.schedule,
        "weight_decay": trainer.weight_decay,
        "max_grad_norm": trainer.max_grad_norm,
        "optim": "adamw_torch",
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": trainer.precision == "bf16",
        "fp16": trainer.precision == "fp16",
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "use_cpu": device == "cpu",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device != "cpu",
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "use_liger_kernel": trainer.liger,
        "deepspeed": zero3.settings(trainer.precision) if runtime.strategy == "zero3" else None,
        "disable_tqdm": True,
    }


def loss_at_start(config: Dpo) -> float | None:
    """Loss of a policy that equals its reference (all margins are 0), by objective; None beside a likelihood term."""
    if config.sft_weight:
        return None
    return {
        "sigmoid": math.log(2),
        "robust": math.log(2),
        "hinge": 1.0,
        "ipo": 1 / (4 * config.beta**2),
    }[config.loss]
