"""Refuse an embedder as the judge of what it was trained on: it finds near what it was taught.

Weights are recognised by their content, so a copy or an export of an embedder counts as itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from speed.core.content import sha256_of
from speed.core.errors import CorruptArtifact, UserError
from speed.core.manifest import Manifest, read_manifest
from speed.core.stage import Node, Take
from speed.ports import Retriever

RECORDS = ("corpus", "samples")
"""Fields by which a stage that writes records names those that they were made from."""


def refuse_own_judge(judge: Retriever, corpus: Node, home: Path) -> None:
    """Refuse a judge that was trained on the records that it would judge, or on some of them.

    Raises:
        UserError: with the remedy.
    """
    own = set(_keys_of_records(corpus))
    trained = _own_weights(judge, home, lambda recipe: own & set(_built_from(recipe, home / "store")))
    if trained is not None:
        raise UserError(
            f"filter.judge.model={trained} was trained on the records of this run, or on some of them, and would judge "
            "its own training\n  name an embedder that was not, or leave filter.judge.model=null for the embedder's "
            "base before its training"
        )


def refuse_own_probe(probe: Retriever, root: Node, home: Path) -> None:
    """Refuse a probe that was trained on what came of the same root data or its writer.

    Raises:
        UserError: with the remedy.
    """
    junior = root.upstream.get("junior")
    own = {root.key, *([junior.key] if isinstance(junior, Node) else [])}
    trained = _own_weights(probe, home, lambda recipe: own & set(_stands_on(recipe, home / "store", set())))
    if trained is not None:
        raise UserError(
            f"judge.retriever.model={trained} was trained on what the junior of this run wrote, or what came of it, "
            "and would judge its own training\n  name an embedder that was not, or leave judge.retriever.model=null "
            "for the embedder's base before its training"
        )


def _own_weights(judge: Retriever, home: Path, is_own: Callable[[dict[str, Any]], object]) -> Path | None:
    """Folder of a judge whose weights are those of an embedder in the store with such a recipe; None for any other."""
    weights = {sha256_of(file): file for file in judge.weights()}
    for manifest in _manifests(home / "store" / "embedder") if weights else ():
        files = {output.sha256 for output in manifest.outputs if output.path.endswith(".safetensors")}
        if (same := files & set(weights)) and is_own(manifest.recipe):
            return weights[min(same)].parent
    return None


def _stands_on(recipe: dict[str, Any], store: Path, seen: set[str]) -> Iterator[str]:
    """Keys of everything that something built was built from, by the manifests in the store."""
    for read in recipe.values():
        stage = (read.get("stage") or read.get("pool")) if isinstance(read, dict) and "key" in read else None
        if stage and read["key"] not in seen:
            seen.add(read["key"])
            yield read["key"]
            if found := next(_manifests(store / stage, read["key"][:20]), None):
                yield from _stands_on(found.recipe, store, seen)


def _keys_of_records(node: Node) -> Iterator[str]:
    """Keys of a corpus and of the pools that its records were made from."""
    yield node.key
    for name in RECORDS:
        read = node.upstream.get(name)
        if read is not None:
            yield from _keys_of_records(read.pool if isinstance(read, Take) else read)


def _built_from(recipe: dict[str, Any], store: Path) -> Iterator[str]:
    """The same of something built, by the manifests in the store."""
    for read in (recipe[name] for name in RECORDS if name in recipe):
        yield read["key"]
        folder = store / (read.get("stage") or read["pool"]) / read["key"][:20]
        if found := next(_manifests(folder.parent, folder.name), None):
            yield from _built_from(found.recipe, store)


def _manifests(stage: Path, key: str = "*") -> Iterator[Manifest]:
    """Manifests of what a stage has built; of a pool, of its shards. A damaged one is told elsewhere."""
    for pattern in ("manifest.json", "rows-*.json"):
        for file in sorted(stage.glob(f"{key}/{pattern}")):
            try:
                found = read_manifest(file)
            except CorruptArtifact:
                continue
            if found is not None:
                yield found
