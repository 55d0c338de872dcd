"""DeepSpeed's ZeRO stage 3: each process holds one part of weights, gradients and optimizer state.

(Rajbhandari et al. 2020.) The optimizer stays torch's AdamW, so that losses are those of a single process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

from speed.core.errors import UserError

NO_TRAINER = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "gradient_clipping": 0.0}
"""What DeepSpeed wants to be told where no training's options fill it in; dividing weights does not depend on it."""


def require() -> None:
    """Refuse to start without DeepSpeed.

    Raises:
        UserError: when it is not installed.
    """
    if find_spec("deepspeed") is None:
        raise UserError(
            "runtime.strategy=zero3 needs DeepSpeed, which is not installed\n"
            "  pip install 'speed-embedding[deepspeed]', or set runtime.strategy=ddp"
        )


def settings(precision: Literal["fp32", "bf16", "fp16"]) -> dict[str, Any]:
    """DeepSpeed's configuration; `auto` is filled in by transformers from the training's own options."""
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
    }


@contextmanager
def divide_on_load(precision: Literal["fp32", "bf16", "fp16"], device: str) -> Iterator[None]:
    """Inside, a model that transformers loads is divided among the processes layer by layer, as its weights are read.

    The first process alone reads them, so that memory holds the model once and not once a process.
    """
    import torch
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():  # by the arguments of a training, from their making on
        yield
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    # transformers looks it up and does not keep it
    config = HfDeepSpeedConfig(settings(precision) | NO_TRAINER)
    yield
    del config


def unify_dtype(model: Any) -> None:
    """Give every floating-point weight the dtype of the base's: ZeRO-3 gathers parts of one dtype only.

    PEFT keeps the adapters of a bf16 model in fp32.
    """
    wanted = next(weight.dtype for name, weight in model.named_parameters() if "lora_" not in name)
    for weight in model.parameters():
        if weight.is_floating_point() and weight.dtype != wanted:
            weight.data = weight.data.to(wanted)
