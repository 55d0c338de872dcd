"""What a trainer of ours tells TRL, and what it refuses to pass on because TRL or the machine would ignore it."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed.backends.alignment import zero3
from speed.backends.runtime.device import device_for
from speed.core.errors import UserError
from speed.ports import Dpo, Sft
from speed.runtime import Runtime

if TYPE_CHECKING:
    from speed.backends.alignment.trainer import TrlTrainer


def refuse_unusable(trainer: TrlTrainer, config: Sft | Dpo, runtime: Runtime) -> None:
    """Refuse options that would have no effect on a training, and one that these processes cannot carry out.

    Raises:
        UserError: naming the option, why, and what to set instead.
    """
    preference = isinstance(config, Dpo)
    if trainer.padding_free and preference:
        raise UserError(
            "trainer.padding_free=true has no effect on a preference training: TRL 1.16 accepts it and pads\n"
            "  set it to false, or give a trainer with it to the revisor alone (revisor.trainer)"
        )
    if trainer.packing and preference:
        raise UserError(
            "trainer.packing=true has no effect on a preference training: TRL 1.16 packs supervised ones alone\n"
            "  set it to false, or give a trainer with it to the revisor alone (revisor.trainer)"
        )
    if trainer.packing and trainer.padding_free:
        raise UserError(
            "trainer.padding_free=true has no effect beside trainer.packing=true: packs hold no padding\n"
            "  set one of the two to false"
        )
    if trainer.precompute_reference and preference and runtime.strategy == "zero3":
        raise UserError(
            "trainer.precompute_reference=true needs whole models, and runtime.strategy=zero3 cuts them up\n"
            "  set one of the two otherwise"
        )
    if trainer.liger and find_spec("liger_kernel") is None:
        raise UserError("trainer.liger=true, and it is not installed\n  set it to false, or pip install liger-kernel")
    if runtime.strategy == "zero3":
        zero3.require()
    micro_batches(trainer, config.batch_size, runtime)
    if (trainer.liger or trainer.precision == "fp16" or runtime.device == "cuda") and device_for(runtime) == "cpu":
        where = "runtime.device=cpu" if runtime.device == "cpu" else "this machine has none"
        if trainer.liger:
            raise UserError(f"trainer.liger=true needs a GPU, and {where}\n  set trainer.liger=false")
        raise UserError(f"trainer.precision=fp16 needs a GPU, and {where}\n  take trainer.precision=fp32 (or bf16)")


def micro_batches(trainer: TrlTrainer, batch_size: int, runtime: Runtime) -> tuple[int, int]:
    """Rows of one forward pass of a process, and how many of them make its share of a batch.

    Raises:
        UserError: when the batch cannot be shared like that.
    """
    share, rest = divmod(batch_size, runtime.processes)
    micro_batch = min(trainer.micro_batch or share, share)
    if rest or share % micro_batch:
        raise UserError(
            f"a batch of {batch_size} cannot be computed by {runtime.processes} processes in micro batches "
            f"of {micro_batch}\n  choose trainer.micro_batch and runtime.processes so that their product divides it"
        )
    return micro_batch, share // micro_batch


def shared_options(
    trainer: TrlTrainer, config: Sft | Dpo, rows: int, out: Path, device: str, runtime: Runtime
) -> dict[str, Any]:
    """The options that both of TRL's configs share; none is left to a default that could change a result."""
    micro_batch, passes = micro_batches(trainer, config.batch_size, runtime)
    steps = math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    constant = trainer.schedule == "constant"
    return {
        "output_dir": str(out / "checkpoints"),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": passes,
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "warmup_steps": min(math.ceil(config.warmup_ratio * steps), steps - 1),  # its first step has rate 0
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
