"""A base model's folder before it is loaded: whether what a training reads lies there."""

from __future__ import annotations

import json
from pathlib import Path

from speed.core.content import locate_model
from speed.core.errors import UserError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def described(reference: str) -> str | None:
    """Folder with config and tokenizer of a base model, weights or not: its own, or its place in the hub's local
    cache; None where it is in no cache yet."""
    folder, revision = locate_model(reference)
    if Path(folder).is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(folder, "config.json", revision=revision)
    has_tokenizer = isinstance(found, str) and any(Path(found).parent.glob("tokenizer*"))
    return str(Path(found).parent) if isinstance(found, str) and has_tokenizer else None


def refuse_unloadable(reference: str, key: str) -> None:
    """Refuse a folder without config or weights; a hub name passes.

    Args:
        key: of the config, which names the folder.

    Raises:
        UserError: with the remedy; for weights in llama.cpp's format, the way to convert them.
    """
    folder, _ = locate_model(reference)
    root = Path(folder)
    if not root.is_dir():
        return
    has_config = (root / "config.json").is_file() or (root / "adapter_config.json").is_file()
    has_weights = any(any(root.glob(pattern)) for pattern in WEIGHTS)
    if has_config and has_weights:
        if absent := _absent_shards(root):
            raise UserError(
                f"{key}={folder} lacks {len(absent)} of its files of weights ({absent[0]} ...): copy it whole"
            )
        return
    if gguf := sorted(root.glob("*.gguf")):
        raise UserError(
            f"{key}={folder} holds its weights as GGUF alone ({gguf[0].name}), which no training here reads\n"
            f"  convert them once (pip install gguf), and give the folder NEW:\n  {conversion(root, gguf[0].name)}"
        )
    lacking = " and ".join(
        [*([] if has_config else ["config.json"]), *([] if has_weights else ["its weights (model.safetensors)"])]
    )
    raise UserError(
        f"{key}={folder} is no model that could be trained: {lacking} missing\n"
        "  the folder must hold config.json, model.safetensors and a tokenizer, as save_pretrained writes them"
    )


def conversion(folder: Path, file: str) -> str:
    """The command that writes a GGUF file as a folder that transformers reads."""
    load = f"part.from_pretrained({str(folder)!r}, gguf_file={file!r})"
    whole = "m.hf_quantizer = None; vars(m.config).pop('quantization_config', None)"  # it is no GGUF any more
    return (
        'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"m, t = ({load} for part in (M, T)); {whole}; [part.save_pretrained('NEW') for part in (m, t)]\""
    )


def _absent_shards(folder: Path) -> list[str]:
    """Files that an index of shards names and that are not there."""
    named: set[str] = set()
    for index in folder.glob("*.index.json"):
        try:
            named |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    return sorted(name for name in named if not (folder / name).is_file())
