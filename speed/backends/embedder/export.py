"""The trained embedder on disk: sentence-transformers layout, adapters merged, EOS added by the tokenizer itself.

model/  modules.json, 1_Pooling/, 2_Normalize/      what sentence-transformers reads
        config.json, model.safetensors              the transformer, adapters merged (AutoModel reads it too)
        tokenizer.json, tokenizer_config.json       puts the trainer's special tokens around every text
        config_sentence_transformers.json           prompts, by MTEB task
        README.md                                   model card: what it was trained on, how, and how to use it
adapter/                                            the same, with adapters (PEFT) in the place of the transformer
        base.json                                   sha256 of the base that they belong to
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData

from speed.backends.embedder.settings import ContrastiveSettings
from speed.backends.encoding.embedding_model import BASE, ignores_later_tokens, transformer, vectors
from speed.backends.encoding.encoder import Encoder
from speed.backends.encoding.instructions import instruction_table
from speed.backends.encoding.token_rows import Frame, token_rows, training_frame
from speed.backends.runtime.older_readers import for_older_readers
from speed.core.cache import write_aside
from speed.core.content import locate_model, sha256_of
from speed.core.spec import Json, recipe

PROBES = ("", "a", "Instruct: Retrieve semantically similar text.\nQuery: the quick brown fox", "long text " * 2000)
"""Texts on which the exported model must agree with the trained one."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.2}
"""Largest distance of a vector from the trained model's, as a share of its length. In half precision every layer
rounds, and adapters that are merged round otherwise (SmolLM2-135M after 18 steps: 0.10, a cosine of 0.995); another
pooling or a lost EOS are further away."""

CARD = """# Embedder trained by speed

Contrastive training of {base} on synthetic data (SPEED, arXiv 2410.18634). {use}:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
queries = model.encode(["a query"]{prompt})
documents = model.encode(["a document"])
```

| setting | value |
|---|---|
{settings}
"""


def export(
    config: ContrastiveSettings,
    model: Any,
    tokenizer: Any,
    frame: Frame,
    pad: int,
    out: Path,
    dtype: torch.dtype,
    facts: dict[str, Json],
) -> None:
    """Write `out/model` whole or not at all, after checking that it embeds as the trained model does.

    Args:
        facts: what the model card says beside the trainer's settings.
    """
    model.eval()
    rows = token_rows(tokenizer, PROBES, frame, config.max_length)
    with torch.no_grad():
        causal = ignores_later_tokens(model)
        expected = vectors(model, rows, pad, causal, config.pooling, config.normalize).cpu()
    if config.lora is not None:
        write_adapter(config, model, tokenizer, frame, out / "adapter", facts)
        model = model.merge_and_unload()
    shutil.rmtree(out / "model", ignore_errors=True)
    with write_aside(out / "model") as aside:
        model.to(dtype).save_pretrained(str(aside))
        framed(tokenizer, frame, config.max_length).save_pretrained(str(aside))
        for_older_readers(aside)
        write_layout(config, aside, int(model.config.hidden_size), facts)
        encoder = Encoder.load(aside, device=model.device)
        found = torch.from_numpy(encoder.encode(PROBES))
        worst = float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
        if not worst <= TOLERANCE[dtype]:
            raise RuntimeError(
                f"the saved embedder's vectors are {worst:.2g} of their length away from the trained one's"
            )


def export_untrained(config: ContrastiveSettings, out: Path) -> None:
    """Write `out/model`: the base as it is, with the pooling, special tokens and prompts of a training."""
    source, revision = locate_model(config.base.name)
    model, tokenizer = transformer(source, revision, torch.float32)
    frame = training_frame(tokenizer, config.pooling, config.bos)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    whole = config.model_copy(update={"lora": None})
    export(whole, model, tokenizer, frame, pad, out, torch.float32, {"steps": 0})


def write_adapter(
    config: ContrastiveSettings, model: Any, tokenizer: Any, frame: Frame, folder: Path, facts: dict[str, Json]
) -> None:
    """The adapters in a folder that sentence-transformers and AutoModel load on top of the base."""
    shutil.rmtree(folder, ignore_errors=True)
    source, revision = locate_model(config.base.name)
    shape = model.peft_config["default"]
    shape.base_model_name_or_path, shape.revision = source, revision
    shape.target_modules = sorted(shape.target_modules)  # a set, whose order would differ from run to run
    model.save_pretrained(str(folder))
    framed(tokenizer, frame, config.max_length).save_pretrained(str(folder))
    for_older_readers(folder)
    write_layout(config, folder, int(model.config.hidden_size), facts)
    if Path(source).is_dir():
        _write_json(folder / BASE, {"sha256": sha256_of(Path(source))})


def framed(tokenizer: Any, frame: Frame, max_length: int) -> Any:
    """A tokenizer that puts this frame around every text by itself, in whatever library reads it.

    It is saved under the generic class: those of a model family rebuild their post-processor from flags on loading.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    names = {token: backend.id_to_token(token) for token in {*frame.before, *frame.after}}
    before = [names[token] for token in frame.before]
    after = [names[token] for token in frame.after]
    backend.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *before, "$B:1", *(f"{token}:1" for token in after)],
        special_tokens=[(name, token) for token, name in names.items()],
    )
    kinds = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
    special = {kind: str(token) for kind in kinds if (token := getattr(tokenizer, kind, None)) is not None}
    special.setdefault("pad_token", special.get("eos_token", special.get("unk_token", "")))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=max_length, padding_side="right", truncation_side="right", **special
    )


def write_layout(config: ContrastiveSettings, folder: Path, width: int, facts: dict[str, Json]) -> None:
    """The files that make a folder with a transformer of hidden size `width` a sentence-transformers model."""
    modules = ["Transformer", "Pooling", *(["Normalize"] if config.normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    _write_json(
        folder / "modules.json",
        [
            {"idx": place, "name": str(place), "path": paths[place], "type": f"sentence_transformers.models.{module}"}
            for place, module in enumerate(modules)
        ],
    )
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": config.max_length, "do_lower_case": False})
    modes = {"last": "lasttoken", "mean": "mean_tokens", "cls": "cls_token"}
    flags = {f"pooling_mode_{mode}": mode == modes[config.pooling] for mode in modes.values()}
    _write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags, "include_prompt": True}
    )
    if config.normalize:
        (folder / "2_Normalize").mkdir()
        _write_json(folder / "2_Normalize" / "config.json", {})
    _card(config, facts).save(folder / "README.md")
    prompts = instruction_table().prompts(config.instruction) if "{task}" in config.instruction else {}
    _write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _card(config: ContrastiveSettings, facts: dict[str, Json]) -> ModelCard:
    """A model card: how the model was trained, and how to use it."""
    base = Path(config.base.name).name if Path(config.base.name).is_dir() else config.base.name
    tags = ["sentence-transformers", "feature-extraction", "sentence-similarity"]
    head = ModelCardData(library_name="sentence-transformers", base_model=base.partition("@")[0], tags=tags)
    trained = config.model_dump(mode="json", exclude={"base"})
    trained |= {name: recipe(getattr(config, name)) for name in ("sources", "masks")}  # files by content, not by place
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    rows = {**facts, **trained, **packages}
    settings = "\n".join(f"| {name} | {json.dumps(value)} |" for name, value in rows.items())
    example = config.instruction.replace("{task}", "Retrieve semantically similar text.").removesuffix("{query}")
    use = "Queries carry an instruction,\ndocuments stand alone" if example else "Queries and documents stand alone"
    prompt = f", prompt={json.dumps(example)}" if example else ""
    text = CARD.format(base=base, use=use, prompt=prompt, settings=settings)
    return ModelCard(f"---\n{head.to_yaml()}\n---\n{text}")


def _write_json(file: Path, value: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
