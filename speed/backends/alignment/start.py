"""The weights that a training starts from, the adapter that it puts on them, and the card of what comes out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel

from speed.backends.alignment import zero3
from speed.backends.alignment.options import TrlOptions
from speed.backends.engines.prompt_format import prompt_format
from speed.backends.engines.weights import Loaded, WeightsCard, base_of, load, read_card
from speed.core.errors import UserError
from speed.runtime import Runtime


def load_start(options: TrlOptions, source: str | Path, device: str, runtime: Runtime) -> Loaded:
    """The weights to start from: an adapter goes on as a trainable one, or is merged where all weights are trained.

    Raises:
        UserError: for an adapter of another shape than the trainer's, or weights of another prompt format.
    """
    divided = runtime.strategy == "zero3" and not _is_merged(options, source)
    precision = options.precision if options.method == "lora" or divided else "fp32"
    # DeepSpeed moves a whole model to its device part by part; a model that is divided already is not moved again
    place = "cpu" if runtime.strategy == "zero3" and not divided else device
    with zero3.divide_on_load(options.precision, device) if divided else nullcontext():
        loaded = load(source, precision, place, for_training=options.method == "lora")
    if options.method == "full":
        loaded.model.requires_grad_(True)
    elif loaded.card is not None and loaded.card.adapter:
        shape = loaded.model.peft_config["default"]
        if (shape.r, shape.lora_alpha, shape.lora_dropout) != (options.r, options.alpha, options.dropout):
            raise UserError(
                f"{source} holds a LoRA adapter of r={shape.r}, alpha={shape.lora_alpha}, dropout="
                f"{shape.lora_dropout}, and the trainer's is r={options.r}, alpha={options.alpha}, dropout="
                f"{options.dropout}\n  give both trainings the same adapter (trainer.r, trainer.alpha, trainer.dropout)"
            )
    wanted = prompt_format(options.prompt_format, loaded.tokenizer)
    if loaded.card is not None and loaded.card.prompt_format != wanted:
        raise UserError(
            f"{source} was trained on the prompt format {loaded.card.prompt_format.name} and "
            f"trainer.prompt_format={options.prompt_format} is another\n  formats are never mixed: set the same one"
        )
    return loaded


def _is_merged(options: TrlOptions, source: str | Path) -> bool:
    """Whether an adapter is merged as the weights are loaded, for which they must be whole."""
    card = read_card(source)
    return card is not None and card.adapter and (options.method == "full" or card.base.startswith("relative:"))


def new_adapter(options: TrlOptions, model: Any) -> LoraConfig | None:
    """LoRA for a model that carries none yet."""
    if options.method == "full" or isinstance(model, PeftModel):
        return None
    is_tied = model.config.get_text_config().tie_word_embeddings
    return LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        modules_to_save=["embed_tokens"] if options.embeddings else None,
        ensure_weight_tying=options.embeddings and is_tied,
    )


def weights_card(options: TrlOptions, source: str | Path, start: Loaded, out: Path) -> WeightsCard:
    """The card of weights trained into `out` from `source`."""
    base, content = base_of(source, out, start.model)
    layout = prompt_format(options.prompt_format, start.tokenizer)
    return WeightsCard(base=base, base_sha256=content, adapter=options.method == "lora", prompt_format=layout)
