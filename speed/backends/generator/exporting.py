"""A payload of the store as other programs load it: a merged model, or an adapter on its base; with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from speed.backends.generator.prompt_format import LAYOUTS
from speed.backends.generator.weights import Precision, WeightsCard, end_tokens, load, read_card, resolved
from speed.core.errors import UserError
from speed.core.manifest import Manifest

PAPER = "[Little Giants: Synthesizing High-Quality Embedding Data at Scale](https://arxiv.org/abs/2410.18634)"
ROLES = {
    "junior": "writes embedding examples; trained on the teacher's (section 3.2.1)",
    "senior": "writes embedding examples; the junior, optimised on preferences (section 3.2.2)",
    "revisor": "repairs embedding examples (section 3.2.3)",
    "embedder": "an embedding model, trained on the synthetic examples (section 3.4)",
}


def write_generator(payload: Path, to: Path, adapter: bool, precision: Precision, manifest: Manifest | None) -> None:
    """Junior, senior or revisor into the folder `to`, which may hold the rest of an interrupted export.

    Raises:
        UserError: for an adapter of weights that are none, or whose base is itself an adapter.
    """
    card = read_card(payload)
    if card is None:
        raise UserError(f"{payload} has no weights.json: it is no trained generator, or its training has not ended")
    shutil.rmtree(to, ignore_errors=True)
    if adapter:
        base = base_of_adapter(payload, card)
        shutil.copytree(payload / "model", to)
        config = json.loads((to / "adapter_config.json").read_text())
        (to / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}, indent=2) + "\n")
    else:
        write_merged(payload, to, precision)
    (to / "README.md").write_text(generator_card(card, adapter, manifest), encoding="utf-8")


def write_merged(payload: Path, to: Path, precision: Precision) -> None:
    """A generator as one whole model with its tokenizer, an adapter merged into its base.

    Its texts end where the training ended them, also under a base whose generation config names another end.
    """
    loaded = load(payload, precision, "cpu")
    loaded.model.config.use_cache = True
    loaded.model.generation_config.eos_token_id = end_tokens(loaded.tokenizer, loaded.model.generation_config)
    loaded.model.save_pretrained(str(to))
    loaded.tokenizer.save_pretrained(str(to))


def write_embedder(payload: Path, to: Path, adapter: bool, manifest: Manifest | None) -> None:
    """An embedder: it stands in the layout of sentence-transformers already.

    Raises:
        UserError: for the adapter of an embedder that was trained without one.
    """
    source = payload / ("adapter" if adapter else "model")
    if not source.is_dir():
        raise UserError(f"{payload} has no adapter: it was trained on all weights; leave --adapter out")
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to)
    load_it = (
        "model = PeftModel.from_pretrained(BASE, PATH)  # from peft"
        if adapter
        else "model = SentenceTransformer(PATH)  # from sentence_transformers"
    )
    about = front_matter(None, "peft" if adapter else "sentence-transformers")
    (to / "README.md").write_text("\n".join([about, "# embedder", *body(load_it, manifest, "")]), encoding="utf-8")


def base_of_adapter(payload: Path, card: WeightsCard) -> str:
    """What PEFT loads under the adapter: a folder, or a name on the hub.

    Raises:
        UserError: when there is no adapter, or nothing that PEFT could load under it.
    """
    if not card.adapter:
        raise UserError(f"{payload} holds all weights and no adapter: leave --adapter out")
    if not card.base.startswith("relative:"):
        return resolved(card.base)[0]
    base = (payload / card.base.removeprefix("relative:")).resolve()
    inner = read_card(base)
    if inner is None or inner.adapter:
        raise UserError(f"{payload} is an adapter on an adapter, which PEFT does not load: leave --adapter out")
    return str(base / "model")


def generator_card(card: WeightsCard, adapter: bool, manifest: Manifest | None) -> str:
    """The README.md of an exported generator."""
    layout = LAYOUTS.get(card.prompt_format.name, "the tokenizer's chat template, one user turn")
    prompt = f"Prompts are laid out as `{json.dumps(layout)}`; under another layout the model writes worse text."
    load_it = (
        "model = AutoPeftModelForCausalLM.from_pretrained(PATH)  # from peft"
        if adapter
        else "model = AutoModelForCausalLM.from_pretrained(PATH)  # from transformers; or vllm.LLM(PATH)"
    )
    about = front_matter(card.base, "peft" if adapter else "transformers")
    name = manifest.label if manifest else "generator"
    return "\n".join([about, f"# {name}", *body(load_it, manifest, prompt)])


def front_matter(base: str | None, library: str) -> str:
    """The header that the hub reads."""
    named = base is not None and not base.startswith(("package:", "relative:", "/", "~"))
    lines = [f"base_model: {str(base).partition('@')[0]}"] if named else []
    lines += [f"library_name: {library}", "tags:", "- speed", "- synthetic-data"]
    return "\n".join(["---", *lines, "---"])


def body(load_it: str, manifest: Manifest | None, prompt: str) -> list[str]:
    """What the model is, how it is loaded, and what its training was."""
    role = ROLES.get(manifest.stage, "") if manifest else ""
    lines = ["", f"Made by the method of {PAPER}: {role}." if role else f"Made by the method of {PAPER}.", ""]
    lines += [prompt, ""] if prompt else []
    lines += ["```python", load_it, "```", ""]
    if manifest is None:
        return lines
    rejected = ", ".join(f"{count} {cause}" for cause, count in sorted(manifest.rejected.items())) or "none"
    lines += ["## Training", "", f"- rows: {manifest.counts.get('in', 'unknown')} (left out: {rejected})"]
    lines += [f"- {name}: {_short(value)}" for name, value in manifest.metrics.items()]
    lines += [f"- seconds: {manifest.seconds:.0f}", f"- key: `{manifest.key}`", f"- finished: {manifest.finished}"]
    if manifest.maker is not None:
        packages = ", ".join(f"{name} {version}" for name, version in manifest.maker.packages.items())
        lines += [f"- code: {manifest.maker.commit}, Python {manifest.maker.python}, {packages}"]
    recipe = json.dumps(manifest.recipe, indent=1, ensure_ascii=False, sort_keys=True)
    return [*lines, "", "## Recipe", "", "```json", recipe, "```", ""]


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
