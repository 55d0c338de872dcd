"""Refuse an embedder as the judge of what it was trained on: it finds near what it was taught.

Weights are recognised by their content, so a copy or an export of an embedder counts as itself, and a merge as each of
its parts. Records are recognised by the stages that they came from, by files, and once they are there by their texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed.core.content import digests_of_weights
from speed.core.errors import CorruptArtifact, UserError
from speed.core.manifest import Manifest, read_manifest
from speed.core.spec import Json
from speed.core.stage import Node, Take
from speed.data.hard_negatives import read_records, text_code
from speed.ports import Retriever

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

RECORDS = ("corpus", "samples")
"""Fields by which a stage that writes records names those that they were made from."""
FILES = ("file", "parts")
"""Fields by which a given corpus names its files."""
SAME = 0.01
"""Share of a corpus that a judge must have learnt to be refused: some short records are written twice by chance."""


def refuse_own_judge(judge: Retriever, corpus: Node, home: Path) -> None:
    """Refuse a judge that was trained on the records that it would judge, or on some of them.

    Raises:
        UserError: with the remedy.
    """
    own = {*_keys_of_records(corpus), *_files_of(_given(corpus))}

    def is_own(recipe: dict[str, Any]) -> bool:
        sources = _files_of(recipe.get("trainer", {}).get("sources", []))
        return bool(own & {*_built_from(recipe, home / "store"), *sources})

    trained = next(_own_weights(judge, home, is_own), None)
    if trained is not None:
        raise _own_judge(trained[0])


def refuse_same_records(judge: Retriever, corpus: Path, home: Path) -> None:
    """Refuse a judge that was trained on records with the texts of this corpus, whatever way they took.

    Raises:
        UserError: with the remedy, where they are at least `SAME` of the corpus.
    """
    import numpy

    for folder, recipe in _own_weights(judge, home, lambda _: True):
        read = recipe["corpus"]
        learnt = home / "store" / read["stage"] / read["key"][:20] / "examples.jsonl"
        if not learnt.is_file():
            continue
        both = numpy.isin(_texts_of(corpus), _texts_of(learnt))
        if both.size and both.mean() >= SAME:
            raise _own_judge(folder)


def _own_judge(folder: Path) -> UserError:
    return UserError(
        f"filter.judge.model={folder} was trained on the records of this run, or on some of them, and would judge its "
        "own training\n  name an embedder that was not, or leave filter.judge.model=null for the embedder's base "
        "before its training"
    )


def refuse_own_probe(probe: Retriever, root: Node, home: Path) -> None:
    """Refuse a probe that was trained on what came of the same root data or its writer.

    Raises:
        UserError: with the remedy.
    """
    junior = root.upstream.get("junior")
    own = {root.key, *([junior.key] if isinstance(junior, Node) else [])}
    trained = next(_own_weights(probe, home, lambda recipe: own & set(_stands_on(recipe, home / "store", set()))), None)
    if trained is not None:
        raise UserError(
            f"judge.retriever.model={trained[0]} was trained on what the junior of this run wrote, or what came of it, "
            "and would judge its own training\n  name an embedder that was not, or leave judge.retriever.model=null "
            "for the embedder's base before its training"
        )


def _own_weights(
    judge: Retriever, home: Path, is_own: Callable[[dict[str, Any]], object]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder of a judge and the recipe of each embedder in the store that has such a recipe and is the judge, or went
    into it."""
    weights = {
        digest: folder for folder in {file.parent for file in judge.weights()} for digest in digests_of_weights(folder)
    }
    for manifest in _manifests(home / "store" / "embedder") if weights else ():
        files = {output.sha256 for output in manifest.outputs if output.path.endswith(".safetensors")}
        if (same := files & set(weights)) and is_own(manifest.recipe):
            yield weights[min(same)], manifest.recipe


def _given(corpus: Node) -> list[Json]:
    """What names the files of a given corpus, in the recipes of the stages from which a corpus comes."""
    read = corpus.upstream.get("corpus")
    upstream = _given(read) if isinstance(read, Node) else []
    return [*upstream, *(corpus.own_recipe[name] for name in FILES if name in corpus.own_recipe)]


def _files_of(named: Json) -> Iterator[str]:
    """Every sha256 of a file in a part of a recipe."""
    if isinstance(named, dict):
        if isinstance(digest := named.get("sha256"), str):
            yield digest
        named = list(named.values())
    for inner in named if isinstance(named, list) else ():
        yield from _files_of(inner)


def _texts_of(corpus: Path) -> NDArray[numpy.uint64]:
    """A number for the query and positive of each record, so that a million records take eight megabytes."""
    import numpy

    codes = (text_code(f"{record.query}\n{record.positive}") for record in read_records(corpus))
    return numpy.fromiter(codes, numpy.uint64)


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
    """The same of something built, by the manifests in the store; and the sha256 of the files that it was given."""
    yield from _files_of([recipe[name] for name in FILES if name in recipe])
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
