"""Model folders that transformers 5 wrote, made so that transformers 4 reads them as they are meant.

Many programs that serve or convert models still stand on version 4. It does not know the tokenizer class that 5 writes,
and stops; and it passes over `rope_parameters` without a word, for a base of 10,000: SmolLM2-135M's vectors, trained
with 100,000, come out with cosines down to 0.87. Both versions read what is added here alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

GENERIC = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Name of the class of a tokenizer.json that belongs to no family: version 5's -> the one that both know."""
BASES = {
    "full_attention": ("rope_theta", "global_rope_theta"),
    "sliding_attention": ("rope_local_base_freq", "local_rope_theta"),
}
"""Where version 4 keeps the base of each kind of layer: in Gemma 3, and in ModernBERT."""


def for_older_readers(folder: Path) -> None:
    """Add to `config.json` and `tokenizer_config.json` of a saved model, where they are there, what version 4 reads."""
    _rewrite(folder / "tokenizer_config.json", _known_class)
    _rewrite(folder / "config.json", with_rope)


def _known_class(config: dict[str, Any]) -> dict[str, Any]:
    name = config.get("tokenizer_class")
    return config | {"tokenizer_class": GENERIC[name]} if name in GENERIC else config


def with_rope(config: dict[str, Any]) -> dict[str, Any]:
    """A model's config with its rotary embedding named as version 4 does, too; `rope_parameters` decide."""
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, dict):
        return config
    added: dict[str, Any] = {}
    if any(isinstance(each, dict) for each in parameters.values()):
        for layers, its in parameters.items():
            names = BASES.get(layers, ())
            added |= {name: its["rope_theta"] for name in names if isinstance(its, dict) and "rope_theta" in its}
        parameters = parameters.get("full_attention") or {}
    elif "rope_theta" in parameters:
        added["rope_theta"] = parameters["rope_theta"]
    if "partial_rotary_factor" in parameters:
        added["partial_rotary_factor"] = parameters["partial_rotary_factor"]
    if parameters.get("rope_type", "default") != "default":
        added["rope_scaling"] = _scaling(parameters)
    return config | added


def _scaling(parameters: Mapping[str, Any]) -> dict[str, Any]:
    elsewhere = ("rope_theta", "partial_rotary_factor")
    return {name: value for name, value in parameters.items() if name not in elsewhere}


def _rewrite(file: Path, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if not file.is_file():
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    after = changed(before)
    if after != before:
        file.write_text(json.dumps(after, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
