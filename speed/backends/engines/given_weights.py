"""A generator that was not trained in this run: what it stands on, whether it is whole, and how a run takes it in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

from speed.backends.engines.prompt_format import prompt_format
from speed.backends.engines.weights import WeightsCard, base_of, load_configs, load_tokenizer, read_card, write_card
from speed.core.content import locate_model
from speed.core.errors import UserError
from speed.ports import FormatName


def adopt(base: str, payload: Path, layout: FormatName = "chat") -> None:
    """Make a payload of a model that was not trained in this run: a whole model as it came, or a payload of another
    run, which says itself how it is prompted. Whole models stay where they are; an adapter is copied.

    Args:
        layout: how a whole model is prompted; `chat` is its own chat template.

    Raises:
        UserError: for a missing or gated model, one without a chat template that is to be prompted through it, or an
            adapter on weights that another run has trained.
    """
    given = read_card(base)
    if given is not None:
        _refuse_without_base(base, given)
    if given is not None and given.adapter:
        shutil.copytree(Path(base).expanduser() / "model", payload / "model", dirs_exist_ok=True)
        write_card(payload, given)
        return
    source = base if given is None else str(given.base if not given.trained else Path(base).expanduser() / "model")
    tokenizer = load_tokenizer(source)
    if given is None and layout == "chat" and not tokenizer.chat_template:
        raise UserError(f"{base} has no chat template, so it is no instruct model\n  give one as generator.base")
    config, _ = load_configs(*locate_model(source))
    reference, content = base_of(source, payload, SimpleNamespace(config=config))
    prompted = prompt_format(layout, tokenizer) if given is None else given.prompt_format
    card = WeightsCard(base=reference, base_sha256=content, adapter=False, trained=False, prompt_format=prompted)
    write_card(payload, card)


def refuse_partial(base: str) -> None:
    """Refuse a folder that holds no generator, or not the whole of one; a name on the hub is not looked up.

    Raises:
        UserError: naming what is missing or cut off.
    """
    folder = Path(base).expanduser()
    if not folder.is_dir():
        locate_model(base)
        return
    card = read_card(folder)
    if card is not None:
        _refuse_without_base(base, card)
    if card is not None and not card.trained:
        return
    model = folder if card is None else folder / "model"
    needed = ["adapter_config.json"] if card is not None and card.adapter else ["config.json"]
    lacking = [name for name in (*needed, "tokenizer_config.json") if not (model / name).is_file()]
    if card is None and (model / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} is an adapter, and a model that is given is a whole one or a folder of a run's stage\n"
            "  merge it first: PeftModel.merge_and_unload, or python -m speed.export RUN --to DIR"
        )
    weights = sorted(model.glob("*.safetensors"))
    if lacking or not weights:
        raise UserError(
            f"{folder} is no generator: {', '.join(lacking or ['*.safetensors'])} is not in it\n"
            "  give a folder that save_pretrained or python -m speed.export wrote, or a stage's folder of a run"
        )
    for file in weights:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = opened.read(length) if length < file.stat().st_size else b""
        try:
            ends = [each["data_offsets"][1] for name, each in json.loads(header).items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError):
            ends = [-1]
        if 8 + length + max(ends, default=0) != file.stat().st_size:
            raise UserError(f"{file} is damaged or not the whole file: copy it again")


def _refuse_without_base(given: str, card: WeightsCard) -> None:
    """Refuse a payload whose base is not here, or is one of its own run's stages.

    Raises:
        UserError: with the remedy.
    """
    merged = "give the merged model: python -m speed.export RUN --stage senior --to DIR"
    if not card.stands_on_base:
        return
    if card.base.startswith("relative:"):
        raise UserError(f"{given} is an adapter on weights of its own run\n  {merged}")
    try:
        locate_model(card.base)
    except UserError as absence:
        raise UserError(
            f"{given} stands on the base {card.base}, which is not on this machine\n  put it there, or {merged}"
        ) from absence


def base_under(model: str) -> str:
    """The base model that a generator stands on: what an adapter belongs to, a whole model itself (references). What
    cannot be read is refused by `refuse_partial`, and here stands for itself."""
    try:
        card = read_card(model)
    except UserError:
        card = None
    if card is None:
        return model
    return card.base if card.stands_on_base else str(Path(model).expanduser() / "model")
