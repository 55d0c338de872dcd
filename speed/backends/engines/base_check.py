"""A generator's base before anything is paid for: config, tokenizer, chat template and context, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speed.backends.engines.prompt_format import PROBE, completion_ids, prompt_ids, rendered
from speed.backends.engines.weights import load_configs, load_tokenizer, refuse_adapter
from speed.backends.runtime.device import quietly
from speed.backends.runtime.model_folder import described, refuse_unloadable
from speed.core.errors import UserError
from speed.ports import FormatName

ANSWER = '{"query": "q"}'
"""What an answer looks like, for the check of a chat template."""
AROUND = 40
"""Characters shown on either side of the place where two texts part."""


def check_generator(base: str, layout: FormatName, max_length: int | None = None, modules: Sequence[str] = ()) -> None:
    """Refuse a base that cannot be trained or prompted as it is meant to be. Bases of this package are known, and
    models of the hub are checked once their config and tokenizer are on this machine.

    Args:
        max_length: tokens of a training's longest row.
        modules: names of layers that the training looks for.

    Raises:
        UserError: with the remedy.
    """
    if base.startswith("package:"):
        return
    refuse_unloadable(base, "generator.base")
    if (folder := described(base)) is None:
        return
    refuse_adapter(folder, None)
    with quietly():
        config, _ = load_configs(folder, None)
        layers = _layers(base, config)
        tokenizer = load_tokenizer(folder)
    text = config.get_text_config()
    _refuse_unknown_tokens(base, tokenizer, text.vocab_size)
    context = getattr(text, "max_position_embeddings", None)
    if max_length is not None and context is not None and max_length > context:
        raise UserError(
            f"{base} reads {context:,} tokens at most, and a training on it has max_length={max_length:,}\n"
            f"  set max_length of that training (generator.sft, senior, revisor.sft) to {context} or less, "
            "or take a base with a longer context"
        )
    if absent := [module for module in modules if not any(name.endswith(f".{module}") for name in layers)]:
        raise UserError(
            f"trainer.embeddings=true trains {', '.join(absent)}, and {base} has no layer of that name: set it to false"
        )
    rendered("", layout, tokenizer)
    if layout == "chat" and max_length is not None:
        refuse_other_answer(base, tokenizer)


def refuse_other_answer(base: str, tokenizer: Any) -> None:
    """Refuse a chat template that writes something between its prompt and an answer, such as an empty thought.

    A model would be trained on answers that follow its prompt at once, and prompted elsewhere by its template.

    Raises:
        UserError: showing where the two part.
    """
    from jinja2 import TemplateError

    prompt = rendered(PROBE, "chat", tokenizer)
    turns = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": ANSWER}]
    try:
        whole = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except TemplateError as error:
        raise UserError(
            f"trainer.prompt_format=chat: the chat template of {base} takes no answer of a model: {error}\n"
            "  take trainer.prompt_format=plain"
        ) from error
    trained = prompt + ANSWER
    if whole.startswith(trained):
        return
    same = next((place for place, (a, b) in enumerate(zip(whole, trained, strict=False)) if a != b), len(whole))
    before, template, training = whole[max(0, same - AROUND) : same], whole[same:][:AROUND], trained[same:][:AROUND]
    raise UserError(
        f"trainer.prompt_format=chat: the prompt of {base}'s chat template is no beginning of prompt and answer\n"
        f"  both begin with ... {before!r}\n  then the template writes {template!r}, and a training {training!r}\n"
        "  take trainer.prompt_format=plain, or a base whose template puts the answer behind its prompt"
    )


def read_prompt(base: str, layout: FormatName, prompt: str) -> str:
    """A prompt exactly as a training and an engine read it, as text and as token ids, with special tokens marked;
    empty where its tokenizer is not on this machine."""
    if (folder := described(base)) is None:
        return ""
    with quietly():
        tokenizer = load_tokenizer(folder)
    ids = prompt_ids(prompt, layout, tokenizer)
    end = completion_ids(ANSWER, tokenizer)[-1]
    special = ", ".join(f"{token} is {tokenizer.convert_ids_to_tokens(token)}" for token in _special(ids, tokenizer))
    begins = beginning(ids, layout, tokenizer)
    return (
        f"{base}, trainer.prompt_format={layout}: {len(ids):,} tokens, {begins}; an answer follows at once and ends in "
        f"{end} ({tokenizer.convert_ids_to_tokens(end)})\n"
        f"{tokenizer.decode(ids)}\n"
        f"token ids{f' ({special})' if special else ''}: {' '.join(map(str, ids))}"
    )


def beginning(ids: Sequence[int], layout: FormatName, tokenizer: Any) -> str:
    """What a prompt begins with: a model may name as its BOS what is a mark of its chat template (`<|im_start|>`)."""
    if not ids or ids[0] != tokenizer.bos_token_id:
        return "no BOS in front"
    if layout != "chat" or tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
        return "one BOS in front"
    return f"no BOS in front but the template's {tokenizer.convert_ids_to_tokens(ids[0])}"


def _special(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """The special tokens among some ids, each once, in order."""
    marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return [token for token in dict.fromkeys(ids) if token in marks]


def _layers(base: str, config: Any) -> list[str]:
    """Names of the layers of a model of this config, made without weights.

    Raises:
        UserError: for a model that continues no text.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    try:
        if is_encoder:
            raise ValueError(f"{config.model_type} is an encoder")
        with torch.device("meta"):
            return [name for name, _ in AutoModelForCausalLM.from_config(config).named_modules()]
    except ValueError as error:
        first = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"generator.base={base} is no language model that writes: {first}\n"
            "  take a causal language model, such as HuggingFaceTB/SmolLM2-135M"
        ) from error


def _refuse_unknown_tokens(base: str, tokenizer: Any, known: int) -> None:
    """Refuse special tokens that the model has no vector for: a tokenizer that is not the model's own."""
    for name in ("bos", "eos", "pad"):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None and token >= known:
            raise UserError(
                f"the tokenizer of {base} has {name} token {token}, and the model knows {known} tokens: "
                "they do not belong together\n  give a folder whose tokenizer is the model's own"
            )
