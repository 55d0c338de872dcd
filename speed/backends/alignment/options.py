"""The settings of a trainer, and the refusal of those that TRL or the machine would ignore or cannot carry out."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field

from speed.backends.alignment import zero3
from speed.backends.runtime.device import device_for
from speed.backends.runtime.precision import Precision
from speed.core.errors import UserError, mistakes_of, refuse_for
from speed.core.spec import Spec
from speed.data.trainings import Dpo, Sft
from speed.ports import FormatName
from speed.runtime import Runtime


class TrlOptions(Spec):
    """How a generator is trained, whatever it is trained on."""

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
    gradient_checkpointing: bool | Literal["auto"] = False
    """Compute activations twice rather than keep them; auto: where one row at once would not fit otherwise."""
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Rows of one forward pass; must divide the batch size. Null: the whole batch. Auto: as many as fit into the GPU by
    the estimates, with the gradient of the whole batch and under its key.

    Fewer rows need less memory and, being sorted by length, less padding. In a preference training whose last batch is
    not full, its micro batches count alike whatever their rows; with several processes it is filled up with rows from
    the beginning of the pass, and the run says with how many."""
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


def refuse_unusable(options: TrlOptions, config: Sft | Dpo, runtime: Runtime) -> None:
    """Refuse options that would have no effect on a training, and those that these processes cannot carry out.

    Raises:
        UserError: naming each option, why, and what to set instead.
    """
    checks = (_refuse_without_effect, _refuse_impossible)
    refuse_for(mistakes_of(partial(check, options, config, runtime) for check in checks))


def _refuse_without_effect(options: TrlOptions, config: Sft | Dpo, runtime: Runtime) -> None:
    preference, mistakes = isinstance(config, Dpo), list[str]()
    if options.padding_free and preference:
        mistakes.append(
            "trainer.padding_free=true has no effect on a preference training: TRL 1.16 accepts it and pads\n"
            "  set it to false, or give a trainer with it to the revisor alone (revisor.trainer)"
        )
    if options.packing and preference:
        mistakes.append(
            "trainer.packing=true has no effect on a preference training: TRL 1.16 packs supervised ones alone\n"
            "  set it to false, or give a trainer with it to the revisor alone (revisor.trainer)"
        )
    if options.packing and options.padding_free:
        mistakes.append(
            "trainer.padding_free=true has no effect beside trainer.packing=true: packs hold no padding\n"
            "  set one of the two to false"
        )
    if isinstance(config, Dpo) and not config.needs_reference:
        if options.precompute_reference:
            mistakes.append(
                f"trainer.precompute_reference=true has no effect on preference.dpo.loss={config.loss}: it has no "
                "reference\n  set it to false"
            )
        if runtime.strategy == "zero3" and options.method == "full":
            mistakes.append(
                f"preference.dpo.loss={config.loss} is measured against a second whole model at the end, and "
                "runtime.strategy=zero3 cuts models up\n  set runtime.strategy=ddp, or train an adapter (trainer=lora)"
            )
    elif options.precompute_reference and preference and runtime.strategy == "zero3":
        mistakes.append(
            "trainer.precompute_reference=true needs whole models, and runtime.strategy=zero3 cuts them up\n"
            "  set trainer.precompute_reference=false, or runtime.strategy=ddp"
        )
    refuse_for(mistakes)


def _refuse_impossible(options: TrlOptions, config: Sft | Dpo, runtime: Runtime) -> None:
    mistakes = mistakes_of([zero3.require] if runtime.strategy == "zero3" else [])
    if not devices_of(options, config.batch_size, runtime.nodes):
        mistakes.append(
            f"a batch of {config.batch_size} cannot be shared by runtime.nodes={runtime.nodes} in micro batches of "
            f"{options.micro_batch}\n  choose trainer.micro_batch and runtime.nodes so that their product divides it"
        )
    needs_gpu = options.liger or options.precision == "fp16"
    without_gpu = needs_gpu and device_for(runtime) == "cpu"  # asked only then: it imports torch
    where = "runtime.devices=cpu" if runtime.devices == "cpu" else "this machine has none"
    if options.liger and find_spec("liger_kernel") is None:
        mistakes.append("trainer.liger=true, and it is not installed\n  set it to false, or pip install liger-kernel")
    elif options.liger and without_gpu:
        mistakes.append(f"trainer.liger=true needs a GPU, and {where}\n  set trainer.liger=false")
    if options.precision == "fp16" and without_gpu:
        mistakes.append(f"trainer.precision=fp16 needs a GPU, and {where}\n  take trainer.precision=fp32 (or bf16)")
    refuse_for(mistakes)


def micro_batch_of(options: TrlOptions, batch_size: int, processes: int) -> int:
    """Rows of one forward pass of a process, as the options say.

    Raises:
        UserError: when the batch cannot be shared like that.
    """
    share, rest = divmod(batch_size, processes)
    micro_batch = min(_given(options) or share, share)
    if rest or share % micro_batch:
        raise UserError(
            f"a batch of {batch_size} cannot be computed by {processes} processes in micro batches of {micro_batch}\n"
            "  choose trainer.micro_batch and runtime.devices so that their product divides it"
        )
    return micro_batch


def devices_of(options: TrlOptions, batch_size: int, nodes: int) -> tuple[int, ...]:
    """Numbers of GPUs of one machine, one process on each, by which a batch divides; none where it cannot."""

    def divides(devices: int) -> bool:
        share, rest = divmod(batch_size, devices * nodes)
        return not rest and share % min(_given(options) or share, share) == 0

    return tuple(devices for devices in range(1, batch_size // nodes + 1) if divides(devices))


def _given(options: TrlOptions) -> int | None:
    """Rows of a micro-batch where the user has said them."""
    return None if options.micro_batch == "auto" else options.micro_batch
