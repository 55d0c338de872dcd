"""A trained generator as other programs load it: a merged model, or an adapter on its base; with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from speed.backends.engines.prompt_format import LAYOUTS
from speed.backends.engines.weights import WeightsCard, read_card, save_merged
from speed.backends.runtime.precision import Precision
from speed.core.content import locate_model
from speed.core.errors import UserError


def write_generator(payload: Path, to: Path, adapter: bool, precision: Precision, name: str) -> None:
    """Junior, senior or revisor into the new folder `to`.

    Args:
        name: title of the card.

    Raises:
        UserError: for an adapter of weights that are none, or whose base is itself an adapter.
    """
    card = read_card(payload)
    if card is None:
        raise UserError(f"{payload} has no weights.json: it is no trained generator, or its training has not ended")
    if adapter:
        base, revision = base_of_adapter(payload, card)
        shutil.copytree(payload / "model", to)
        config = json.loads((to / "adapter_config.json").read_text())
        config |= {"base_model_name_or_path": base, "revision": revision}
        (to / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    else:
        save_merged(payload, to, precision)
    (to / "README.md").write_text(str(model_card(card, adapter, name)), encoding="utf-8")


def base_of_adapter(payload: Path, card: WeightsCard) -> tuple[str, str | None]:
    """What PEFT loads under the adapter: a folder, or a name on the hub and its revision.

    Raises:
        UserError: when there is no adapter, or nothing that PEFT could load under it.
    """
    if not card.adapter:
        raise UserError(f"{payload} holds all weights and no adapter: leave --adapter out")
    if not card.base.startswith("relative:"):
        return locate_model(card.base)
    base = (payload / card.base.removeprefix("relative:")).resolve()
    inner = read_card(base)
    if inner is None or inner.adapter:
        raise UserError(f"{payload} is an adapter on an adapter, which PEFT does not load: leave --adapter out")
    return str(base / "model"), None


def model_card(card: WeightsCard, adapter: bool, name: str) -> ModelCard:
    """How an exported generator is loaded and prompted."""
    is_local = card.base.startswith(("package:", "relative:", "/", "~"))
    about = ModelCardData(
        base_model=None if is_local else card.base.partition("@")[0],
        library_name="peft" if adapter else "transformers",
    )
    layout = LAYOUTS.get(card.prompt_format.name, "the tokenizer's chat template, one user turn")
    load_it = (
        "model = AutoPeftModelForCausalLM.from_pretrained(PATH)  # from peft"
        if adapter
        else "model = AutoModelForCausalLM.from_pretrained(PATH)  # from transformers; or vllm.LLM(PATH)"
    )
    return ModelCard(
        f"""---
{about.to_yaml()}
---
# {name}

Prompts are laid out as `{json.dumps(layout)}`; under another layout the model writes worse text.

```python
{load_it}
```
"""
    )
