"""Several trainings of one base become one embedder: their weights, averaged or interpolated along the sphere.

The mean is that of "Model soups" (Wortsman et al. 2022, arXiv 2203.05482). Spherical interpolation (Shoemake 1985) goes
tensor by tensor as mergekit does it, and is the mean where two tensors point the same way but for `PARALLEL`.

Weights of two models can be mixed only where both came from the same ones: so everything beside the weights must be
equal, and the weights themselves must point the same way (`LEAST`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError, safe_open
from torch import Tensor

from speed.backends.embedder.merge_parts import Part, read_json, refuse_unlike
from speed.backends.encoding.embedding_model import ADAPTER, BASE, transformer
from speed.backends.runtime.device import quietly
from speed.backends.runtime.older_readers import for_older_readers
from speed.core.cache import aside_name
from speed.core.content import MERGED_FROM, digests_of_weights, sha256_of
from speed.core.errors import UserError

How: TypeAlias = Literal["mean", "slerp"]

PARALLEL = 0.9995
"""Cosine of two tensors from which on slerp is the mean (mergekit's `DOT_THRESHOLD`)."""
LEAST = 0.5
"""Lowest cosine of the weights of two parts (ours): trainings of one base are far above it, those of two near 0."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
LEFT_OUT = ("*.safetensors", "*.bin", "*.h5", "*.msgpack", "*.gguf", "onnx", "openvino", "README.md", ".*")
"""Of the first part: weights in any form, and the card of one training."""
CARD = """# Embedder merged by speed

{how} of {count} embedders, which were trained from one base:

| part | weight | cosine with the first | sha256 |
|---|---:|---:|---|
{parts}

{tensors}

Queries and documents are written as for its parts.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
```
"""
NAMES: dict[How, str] = {
    "mean": "The weighted mean (model soup, arXiv 2203.05482)",
    "slerp": "Spherical interpolation (slerp, tensor by tensor)",
}


@dataclass
class Merged:
    """What came out of a merge."""

    equal: int = 0
    """Tensors that all parts have in common."""
    mixed: int = 0
    near: int = 0
    """Of the mixed ones, those that slerp took the mean of."""
    cosines: list[float] = field(default_factory=list)
    """Of the weights of each part with those of the first."""


def merge(parts: Sequence[Part], how: How, out: Path) -> Merged:
    """Write an embedder into the new folder `out`: the first part's files with the weights of all. Memory is that of a
    few tensors; of an adapter, that of its whole base.

    Args:
        parts: at least two; for `slerp` exactly two.

    Raises:
        UserError: for a part that is no embedder, or that cannot be mixed with the first.
    """
    scratch = aside_name(out)  # of a killed merge, the next one removes it
    try:
        whole = [part._replace(folder=_whole(part, scratch / str(n))) for n, part in enumerate(parts)]
        refuse_unlike(whole)
        shutil.copytree(whole[0].folder, out, ignore=shutil.ignore_patterns(*LEFT_OUT))
        merged = _merge_weights(whole, how, out)
        for_older_readers(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    digests = {digest for part in parts for digest in digests_of_weights(part.folder)}
    (out / MERGED_FROM).write_text(json.dumps({"sha256": sorted(digests)}, indent=1) + "\n", encoding="utf-8")
    _card(parts, how, merged).save(out / "README.md")
    return merged


def _whole(part: Part, scratch: Path) -> Path:
    """The folder of a part with all its weights: an adapter is merged into its base first.

    Raises:
        UserError: for an adapter that cannot be merged, or whose weights or base are pickled.
    """
    if not (part.folder / ADAPTER).is_file():
        return part.folder
    read_json(part.folder / ADAPTER)
    if not (part.folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{part.folder} lacks {ADAPTER_WEIGHTS}: a merge reads weights in safetensors only")
    model, _ = transformer(str(part.folder), None, "auto", pickled=False)
    shutil.copytree(part.folder, scratch, ignore=shutil.ignore_patterns("adapter_*", BASE))
    with quietly():
        model.save_pretrained(str(scratch))
    return scratch


def _merge_weights(parts: Sequence[Part], how: How, out: Path) -> Merged:
    """Write the files of weights of the first part with the tensors of all parts.

    Raises:
        UserError: for parts with other tensors, or without a common origin.
    """
    merged = Merged()
    inner = [[0.0, 0.0] for _ in parts]
    """For each part: its product with the first, and with itself."""
    opened, weights = _opened(parts), [part.weight for part in parts]
    for file, places in _copied(parts[0].folder, out):
        with file.open("r+b") as target:
            for name, place in places.items():
                tensors = [files[name].get_tensor(name) for files in opened]
                _refuse_other_form(parts, name, tensors)
                if all(torch.equal(tensors[0], other) for other in tensors[1:]):
                    merged.equal += 1
                else:
                    value, near = mixed(tensors, weights, how)
                    merged.mixed += 1
                    merged.near += near
                    target.seek(place)
                    target.write(value.to(tensors[0].dtype).reshape(-1).view(torch.uint8).numpy().tobytes())
                if tensors[0].ndim > 1:  # vectors, of norms and biases, are alike in unlike models
                    for sums, tensor in zip(inner, tensors, strict=True):
                        sums[0] += _dot(tensors[0], tensor)
                        sums[1] += _dot(tensor, tensor)
    merged.cosines = [product / math.sqrt(own * inner[0][1] or 1.0) for product, own in inner]
    for part, cosine in zip(parts, merged.cosines, strict=True):
        if not cosine >= LEAST:
            raise UserError(
                f"{part.name} cannot be merged with {parts[0].name}: the cosine of their weights is {cosine:.2f}, so "
                f"they do not come from one base (trainings of one base are above {LEAST:g})\n"
                "  give embedders that were trained from the same weights"
            )
    return merged


def mixed(tensors: Sequence[Tensor], weights: Sequence[float], how: How) -> tuple[Tensor, bool]:
    """(fp32 tensor, whether slerp took the mean).

    Args:
        tensors: of one shape.
        weights: one for each; their sum is 1.
    """
    if how == "slerp":
        one, other = (tensor.float() for tensor in tensors)
        lengths = float(one.norm() * other.norm())
        cosine = _dot(one, other) / lengths if lengths else 1.0
        if abs(cosine) < PARALLEL:
            angle = math.acos(cosine)
            shares = [math.sin(weight * angle) / math.sin(angle) for weight in weights]
            return shares[0] * one + shares[1] * other, False
    whole = torch.zeros(tensors[0].shape)
    for tensor, weight in zip(tensors, weights, strict=True):
        whole.add_(tensor.float(), alpha=weight)
    return whole, how == "slerp"


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.reshape(-1).float(), other.reshape(-1).float()))


def _opened(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """For each part the open file of each tensor, by the tensor's name. A tensor is read when it is asked for.

    Raises:
        UserError: for a damaged file, or parts that have not the same tensors.
    """
    opened: list[dict[str, Any]] = []
    for part in parts:
        files: dict[str, Any] = {}
        for file in _files(part.folder):
            try:
                content: Any = safe_open(file, framework="pt")
            except SafetensorError as error:
                raise UserError(f"{file} is damaged ({error}): fetch or export the model again") from error
            files |= dict.fromkeys(content.keys(), content)
        opened.append(files)
        if unlike := sorted(files.keys() ^ opened[0].keys()):
            raise UserError(
                f"{part.name} cannot be merged with {parts[0].name}: only one of them has the tensor {unlike[0]}"
                f"{f' and {len(unlike) - 1} others' if len(unlike) > 1 else ''}"
            )
    return opened


def _refuse_other_form(parts: Sequence[Part], name: str, tensors: Sequence[Tensor]) -> None:
    """Refuse tensors of other shapes, and numbers that cannot be mixed.

    Raises:
        UserError: naming them.
    """
    for part, tensor in zip(parts, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            differ = f"the shapes {list(tensors[0].shape)} and {list(tensor.shape)}"
        elif not (tensor.is_floating_point() or torch.equal(tensor, tensors[0])):
            differ = "whole numbers that differ"
        else:
            continue
        raise UserError(f"{part.name} cannot be merged with {parts[0].name}: their tensors {name} have {differ}")


def _files(folder: Path) -> list[Path]:
    """The files of a model's weights.

    Raises:
        UserError: where there are none in safetensors, or one is missing.
    """
    index = read_json(folder / INDEX).get("weight_map") or {}
    names = set(map(str, index.values())) if isinstance(index, dict) else None
    if names is None or any(Path(name).name != name for name in names):
        raise UserError(f"{folder / INDEX} is damaged (its weight_map): fetch or export the model again")
    files = [folder / name for name in sorted(names)] or [folder / WEIGHTS]
    for file in files:
        if not file.is_file():
            raise UserError(f"{folder} lacks {file.name}: a merge reads whole embedders, in safetensors only")
    return files


def _copied(folder: Path, out: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """Copies of a model's files of weights in `out`, each with the place of each tensor's bytes.

    A file of safetensors is a number of 8 bytes, so many bytes of JSON, and then the tensors.
    """
    for file in _files(folder):
        with file.open("rb") as source:
            size = int.from_bytes(source.read(8), "little")
            header = json.loads(source.read(size))
        shutil.copyfile(file, out / file.name)
        tensors = {name: about for name, about in header.items() if name != "__metadata__"}
        yield out / file.name, {name: 8 + size + about["data_offsets"][0] for name, about in tensors.items()}


def _card(parts: Sequence[Part], how: How, merged: Merged) -> ModelCard:
    """A model card that names the parts."""
    tags = ["sentence-transformers", "feature-extraction", "sentence-similarity", "merge", "speed"]
    head = ModelCardData(library_name="sentence-transformers", tags=tags)
    rows = [
        f"| {part.name} | {part.weight:.4g} | {cosine:.6f} | `{sha256_of(part.folder)}` |"
        for part, cosine in zip(parts, merged.cosines, strict=True)
    ]
    text = CARD.format(how=NAMES[how], count=len(parts), parts="\n".join(rows), tensors=told(how, merged))
    return ModelCard(f"---\n{head.to_yaml()}\n---\n{text}")


def told(how: How, merged: Merged) -> str:
    """How many tensors became what, as a sentence."""
    near = f", {merged.near} of them by the mean, since they are almost parallel" if how == "slerp" else ""
    return f"{merged.mixed} tensors are mixed{near}; {merged.equal} are the same in all parts."
