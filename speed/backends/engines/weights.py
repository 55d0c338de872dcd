"""What a generator is on disk, and how it is loaded.

A payload folder holds `model/` (a PEFT adapter or a whole model, with its tokenizer) and `weights.json`, which is
written last: the base model by reference and content, whether `model/` is an adapter, and the prompt format. A base is
a hub name (`org/name` or `org/name@revision`), a folder, or `package:miniature/bases/llama` (a folder of this package).
References survive a move of the store: bases inside the package are written relative to the package, payloads of
earlier trainings relative to the payload, other folders by path with the sha256 of what they held.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from speed.backends.engines.prompt_format import PromptFormat
from speed.backends.runtime.device import quietly
from speed.backends.runtime.precision import Precision, dtype_of
from speed.core.cache import write_aside
from speed.core.content import locate_model, package_folder, sha256_of
from speed.core.errors import UserError
from speed.core.spec import Spec

CARD = "weights.json"


class WeightsCard(Spec):
    """The file `weights.json` of a payload."""

    layout: int = 1
    """Version of this file; a newer one is refused."""
    base: str
    """Reference to the base model that the adapter belongs to, or that a whole model began as."""
    base_sha256: str
    """Content of the base's folder, or the commit of a hub model."""
    adapter: bool
    """True when `model/` holds only an adapter."""
    trained: bool = True
    """False for a base model as it came: there is no `model/`."""
    prompt_format: PromptFormat

    @property
    def stands_on_base(self) -> bool:
        """Whether the base is loaded with it."""
        return self.adapter or not self.trained


class Loaded(NamedTuple):
    """A model in memory."""

    model: Any
    """A `transformers` causal language model, or a trainable `PeftModel`."""
    tokenizer: Any
    card: WeightsCard | None
    """None for a base model as it came."""


def load(source: Path | str, precision: Precision, device: str, for_training: bool = False) -> Loaded:
    """A payload or base model in memory; for generation an adapter is merged into its base.

    Raises:
        UserError: for a missing or gated model, a base that is no longer what the adapter was trained on, or a
            payload of a newer version of this package.
    """
    import torch

    dtype = dtype_of(precision)
    card = read_card(source)
    with quietly():
        if card is None:
            model = _pretrained(*locate_model(source), dtype)
        else:
            model = _payload_model(Path(source), card, dtype, for_training)
        tokenizer = load_tokenizer(source)
    model.to(torch.device(device))
    if not for_training:
        model.eval().requires_grad_(False)
    return Loaded(model, tokenizer, card)


def save_merged(payload: Path, to: Path, precision: Precision) -> None:
    """A generator as one whole model with its tokenizer, an adapter merged into its base.

    Its texts end where the training ended them, also under a base whose generation config names another end.
    """
    loaded = load(payload, precision, "cpu")
    loaded.model.config.use_cache = True
    loaded.model.generation_config.eos_token_id = end_tokens(loaded.tokenizer, loaded.model.generation_config)
    loaded.model.save_pretrained(str(to))
    loaded.tokenizer.save_pretrained(str(to))


def load_tokenizer(source: Path | str) -> Any:
    """The tokenizer of a payload or base model.

    Raises:
        UserError: for a missing or gated model, or a tokenizer that knows no end of a text.
    """
    card = read_card(source)
    untrained = source if card is None else None if card.trained else card.base
    folder, revision = (str(Path(source) / "model"), None) if untrained is None else locate_model(untrained)
    tokenizer = _tokenizer(folder, revision)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{source}: the tokenizer has no end-of-text token, so no text could ever end; take another")
    if tokenizer.pad_token_id is None:  # Llama-3 and Mistral; every mask is built from lengths, never from pad ids
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_card(source: Path | str) -> WeightsCard | None:
    """`weights.json` of a payload folder; None where there is none."""
    file = Path(source).expanduser() / CARD
    if not file.is_file():
        return None
    try:
        return WeightsCard.model_validate_json(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} cannot be read by this version of speed: {error}\n  update, or train again") from error


def write_card(payload: Path, card: WeightsCard) -> None:
    """Write `weights.json`, whole or not at all: it says that everything beside it is complete."""
    with write_aside(payload / CARD) as aside:
        aside.write_text(card.model_dump_json(indent=2) + "\n")


def base_of(source: Path | str, payload: Path, model: Any) -> tuple[str, str]:
    """Reference and content of the base under the weights that a training from `source` writes into `payload`.

    An adapter that is trained further stays an adapter of its own base.
    """
    card = read_card(source)
    if card is not None and (card.adapter or not card.trained):
        if card.base.startswith("relative:"):
            return _relative(_from_payload(card.base, Path(source)), payload), card.base_sha256
        return card.base, card.base_sha256
    if card is not None:
        return _relative(Path(source), payload), sha256_of(Path(source) / "model")
    folder, revision = locate_model(source)
    if not Path(folder).is_dir():
        commit = getattr(model.config, "_commit_hash", None) or revision or ""
        return f"{folder}@{commit}" if commit else folder, commit
    package = package_folder("package:").resolve()
    if Path(folder).resolve().is_relative_to(package):
        return f"package:{Path(folder).resolve().relative_to(package).as_posix()}", sha256_of(Path(folder))
    return str(Path(folder).resolve()), sha256_of(Path(folder))


def _payload_model(payload: Path, card: WeightsCard, dtype: Any, for_training: bool) -> Any:
    if not card.trained:
        return _base_of_card(payload, card, dtype)
    if not card.adapter:
        return _pretrained(str(payload / "model"), None, dtype)
    from peft import PeftModel

    model = _base_of_card(payload, card, dtype)
    adapted = PeftModel.from_pretrained(model, str(payload / "model"), is_trainable=for_training)
    return adapted if for_training else adapted.merge_and_unload()


def _base_of_card(payload: Path, card: WeightsCard, dtype: Any) -> Any:
    if card.base.startswith("relative:"):
        source = _from_payload(card.base, payload)
        if sha256_of(source / "model") != card.base_sha256:
            raise UserError(f"{payload}: its adapter belongs to other weights than {source} holds now; train it again")
        inner = read_card(source)
        if inner is None:
            raise UserError(f"{payload}: its base {source} has no {CARD}; build that stage again")
        return _payload_model(source, inner, dtype, for_training=False)
    folder, revision = locate_model(card.base)
    if Path(folder).is_dir() and sha256_of(Path(folder)) != card.base_sha256:
        raise UserError(
            f"{payload}: its adapter was trained on another base than {folder} holds now\n"
            "  put the former folder back, or train again"
        )
    return _pretrained(folder, revision, dtype)


def load_configs(folder: str, revision: str | None) -> tuple[Any, Any]:
    """The config of a whole model and its generation config, as the model itself would have them in memory."""
    from transformers import AutoConfig, GenerationConfig

    with _explain_load_errors(folder):
        config = AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=False)
    try:
        return config, GenerationConfig.from_pretrained(folder, revision=revision)
    except OSError:
        return config, GenerationConfig.from_model_config(config)


def end_tokens(tokenizer: Any, generation_config: Any) -> list[int]:
    """Ids that end a text: the tokenizer's, and those of the model's generation config."""
    given = generation_config.eos_token_id
    more = given if isinstance(given, list) else [] if given is None else [given]
    return sorted({tokenizer.eos_token_id, *more})


def _pretrained(folder: str, revision: str | None, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    refuse_adapter(folder, revision)
    with _explain_load_errors(folder):
        return AutoModelForCausalLM.from_pretrained(folder, revision=revision, dtype=dtype, trust_remote_code=False)


def refuse_adapter(folder: str, revision: str | None) -> None:
    """Refuse a base that is an adapter.

    Raises:
        UserError: with the remedy.
    """
    from transformers.utils import find_adapter_config_file

    adapter = find_adapter_config_file(folder, revision=revision)
    if adapter is not None:  # transformers would load it with whatever base it names, and leave out what does not fit
        base = json.loads(Path(adapter).read_text()).get("base_model_name_or_path")
        raise UserError(
            f"{folder} is an adapter (of {base}), and a generator's base is a whole model\n"
            "  merge them first: PeftModel.merge_and_unload, or for a run of speed python -m speed.export RUN --to DIR"
        )


def _tokenizer(folder: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    with _explain_load_errors(folder):
        return AutoTokenizer.from_pretrained(
            folder, revision=revision, padding_side="left", clean_up_tokenization_spaces=False, trust_remote_code=False
        )


@contextmanager
def _explain_load_errors(name: str) -> Iterator[None]:
    """Raise what transformers says of a model that it cannot read as one UserError with a remedy."""
    try:
        yield
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = (
            "the folder must hold config.json, model.safetensors and a tokenizer, as save_pretrained writes them"
            if Path(name).is_dir()
            else f"check the name and the network; for a gated model accept its licence at https://huggingface.co/{name}"
            "\n  and set HF_TOKEN, or give a folder that holds the model, or choose another generator"
        )
        raise UserError(f"the model {name} cannot be loaded: {first}\n  {remedy}") from error


def _relative(source: Path, payload: Path) -> str:
    return "relative:" + Path(os.path.relpath(source.resolve(), payload.resolve())).as_posix()


def _from_payload(reference: str, payload: Path) -> Path:
    return (payload / reference.removeprefix("relative:")).resolve()
