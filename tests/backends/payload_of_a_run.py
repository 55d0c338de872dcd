"""What a run's `stages/senior` holds: an adapter, or a whole model, as far as plans and checks look at it."""

from __future__ import annotations

import shutil
from pathlib import Path

from speed.backends.engines.prompt_format import PromptFormat
from speed.backends.engines.weights import WeightsCard, write_card
from speed.core.content import package_folder

LLAMA = package_folder("package:miniature/bases/llama")


def payload(folder: Path, base: str, adapter: bool = True, trained: bool = True) -> Path:
    """A payload that was trained from this base (a reference)."""
    model = folder / "model"
    if trained:
        shutil.copytree(LLAMA, model)
    if trained and adapter:
        (model / "config.json").rename(model / "adapter_config.json")
        (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    layout = PromptFormat(name="plain", sha256="0")
    write_card(folder, WeightsCard(base=base, base_sha256="0", adapter=adapter, trained=trained, prompt_format=layout))
    return folder
