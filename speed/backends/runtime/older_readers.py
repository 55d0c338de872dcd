"""Model folders that transformers 5 wrote, made so that transformers 4 reads them as they are meant.

Many programs that serve or convert models still stand on version 4. It does not know the tokenizer class that 5 writes,
and stops; and it passes over `rope_parameters` without a word, for a base of 10,000: SmolLM2-135M's vectors, trained
with 100,000, come out with cosines down to 0.87. Version 5 reads what is added here as before.

Named for both are one base for all layers in any family, its scaling in those of `SCALED`, and the two bases of Gemma 3
(text) and ModernBERT. Other ways to turn positions stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from speed.core.spec import Json

GENERIC = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Name of the class of a tokenizer.json that belongs to no family: version 5's -> the one that both know."""
SCALED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Families whose scaling of one base both versions write alike."""
BY_LAYERS = {
    "gemma3_text": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
    "modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
}
"""Family -> where version 4 keeps the base of each kind of layer."""
OLDER = frozenset({"rope_theta", "rope_scaling", *(name for names in BY_LAYERS.values() for name in names.values())})
"""Keys that may be added."""


def for_older_readers(folder: Path) -> None:
    """Add to `config.json` and `tokenizer_config.json` of a saved model, where they are there, what version 4 reads."""
    _rewrite(folder / "tokenizer_config.json", _known_class)
    _rewrite(folder / "config.json", with_rope)


def with_rope(config: Mapping[str, Json]) -> dict[str, Json]:
    """A model's config with its rotary embedding named as version 4 does, too; `rope_parameters` decide."""
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, dict):
        return dict(config)
    layers = {name: its for name, its in parameters.items() if isinstance(its, dict)}
    return {**config, **(_two_bases(config, layers) if layers else _one_base(config, parameters))}


def _one_base(config: Mapping[str, Json], parameters: Mapping[str, Json]) -> dict[str, Json]:
    added = {"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {}
    if _is_scaled(parameters) and config.get("model_type") in SCALED:
        added["rope_scaling"] = {name: value for name, value in parameters.items() if name != "rope_theta"}
    return added


def _two_bases(config: Mapping[str, Json], layers: Mapping[str, dict[str, Json]]) -> dict[str, Json]:
    """Version 5 would take a scaling that stands alone for that of all of ModernBERT's layers, so it is left out."""
    family = str(config.get("model_type"))
    names, full = BY_LAYERS.get(family, {}), layers.get("full_attention", {})
    added: dict[str, Json] = {
        name: layers[kind]["rope_theta"] for kind, name in names.items() if "rope_theta" in layers.get(kind, {})
    }
    if family == "gemma3_text" and _is_scaled(full):
        added["rope_scaling"] = {name: value for name, value in full.items() if name != "rope_theta"}
    return added


def _is_scaled(parameters: Mapping[str, Json]) -> bool:
    return bool(parameters.get("rope_type", "default") != "default")


def _known_class(config: Mapping[str, Json]) -> dict[str, Json]:
    name = config.get("tokenizer_class")
    known = GENERIC.get(name) if isinstance(name, str) else None
    return {**config, **({"tokenizer_class": known} if known else {})}


def _rewrite(file: Path, changed: Callable[[Mapping[str, Json]], dict[str, Json]]) -> None:
    if not file.is_file():
        return
    before: Any = json.loads(file.read_text(encoding="utf-8"))
    after = changed(before)
    if after != before:
        file.write_text(json.dumps(after, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
