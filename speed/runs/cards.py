"""The corpus of a run as a data set for others: its records, and a card for the hub written from the run's manifests.

The card says who wrote the records and how, what each stage took in and gave out, what was spent, and which files went
in, by their hashes. Recipes hold no path and no address, so neither does the card. The licence is a decision of whoever
publishes, so it has no default.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import DatasetCard, DatasetCardData
from pydantic import ValidationError

from speed.core.errors import UserError
from speed.core.escape import escape
from speed.core.manifest import Maker, Manifest, check, read_manifest
from speed.core.spec import Json, canonical
from speed.runs.ledger_table import ledger_table
from speed.runs.report import remarks, stages_table
from speed.runs.stage_lines import StageLine
from speed.runs.tables import Table, escaped

RECORDS = "examples.jsonl"
CITATION = """\
@inproceedings{chen2025little,
  title = {Little Giants: Synthesizing High-Quality Embedding Data at Scale},
  author = {Chen, Haonan and Wang, Liang and Yang, Nan and Zhu, Yutao and Zhao, Ziliang and Wei, Furu and
            Dou, Zhicheng},
  booktitle = {Proceedings of NAACL},
  year = {2025},
  url = {https://arxiv.org/abs/2410.18634}
}"""
REPEAT = "run the same experiment again, it builds what is missing"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_EXAMPLES = 3
_LONG = 100
"""Bytes of a part of a recipe that is not printed twice."""


def write_dataset(run: Path, licence: str, to: Path) -> None:
    """`examples.jsonl` and `README.md` into the folder `to`, which may hold the rest of an interrupted export.

    Raises:
        UserError: for a folder that is no finished run, or a licence that is no identifier.
        CorruptArtifact: for records that are not those that were built.
    """
    refuse_licence(licence)
    summary, lines = _summary(run)
    manifests = {line.label: manifests_of(run, line) for line in lines}
    payload = folder_of(run, lines[-1])
    check(payload, manifests[lines[-1].label][0].outputs)
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    shutil.copyfile(payload / RECORDS, to / RECORDS)
    DatasetCard(dataset_card(licence, summary, lines, manifests, to / RECORDS)).save(to / "README.md")


def reported(run: Path) -> tuple[dict[str, Any], list[StageLine]]:
    """What a run reported, and its stages, upstream first.

    Raises:
        UserError: for a folder that is no finished run.
    """
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        return summary, [StageLine.model_validate(line) for line in summary["stages"]]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"{run} is no finished run: its summary.json cannot be read\n  give a folder of speed_home/runs/DATE"
        ) from error


def _summary(run: Path) -> tuple[dict[str, Any], list[StageLine]]:
    """What a run reported, and the stages that its corpus came from: those up to the one that holds it.

    Of several that hold records (deduplication, then a filter) the embedder learns from the last.
    """
    summary, lines = reported(run)
    holds = [place for place, line in enumerate(lines) if (folder_of(run, line) / RECORDS).is_file()]
    if not holds:
        raise UserError(f"the corpus of {run} is gone from the store: {REPEAT}")
    return summary, lines[: holds[-1] + 1]


def folder_of(run: Path, line: StageLine) -> Path:
    """Where a run shows the artifact of a stage."""
    return run / "stages" / line.label.replace(" ", "-")


def manifests_of(run: Path, line: StageLine) -> list[Manifest]:
    """Of a stage, or of the shards of a pool that the run reads."""
    folder = folder_of(run, line)
    files = [folder / "manifest.json"] if (folder / "manifest.json").is_file() else sorted(folder.glob("rows-*.json"))
    found = [manifest for manifest in map(read_manifest, files) if manifest is not None]
    if not found:
        raise UserError(f"{folder} is gone from the store: {REPEAT}")
    return [each for each in found if each.start is None or each.start < (line.rows_in or 0)]


def dataset_card(
    licence: str,
    summary: dict[str, Any],
    lines: list[StageLine],
    manifests: dict[str, list[Manifest]],
    records: Path,
) -> str:
    """The README.md of a data set.

    Args:
        lines: the stages that the records came from, upstream first.
        manifests: theirs, by label.
        records: the file.
    """
    counts, rows = _looked_through(records)
    recipes = {label: found[0].recipe for label, found in manifests.items()}
    languages = sorted({value for path, value in _leaves(recipes) if path[-1] == "language"})
    about = summary["about"]
    spent = [each for line in lines for each in line.ledger]
    models = sorted({each.model for each in spent})
    by_kind = Table("kind", "records")
    for kind, count in counts.items():
        by_kind.add(kind, f"{count:,}")
    by_kind.add("all", f"{counts.total():,}")
    parts = [
        _header(licence, languages, counts.total()),
        f"# {escaped(summary['name'])}",
        "Training data for text embedding models, written by language models with the method of "
        "[Little Giants: Synthesizing High-Quality Embedding Data at Scale](https://arxiv.org/abs/2410.18634). Each "
        "line of `examples.jsonl` has a `kind`, the instruction (`task`), a `query`, a `positive` and, where there are "
        "any, a hard `negative`, several (`negatives`), or documents of falling relevance (`graded`). Nobody has read "
        "them all: models err, and repeat what they were trained on.",
        by_kind.markdown(),
        "## How it was made",
        "\n".join(
            [
                f"- language: {escaped(', '.join(languages))}",
                f"- teacher: {escaped(', '.join(models)) or 'none was asked'}",
                *(f"- {name}: {escaped(value)}" for name, value in inputs_of(recipes)),
                f"- preset {escaped(str(about['preset']))}, seeds: {escaped(str(about['seeds']))}",
                *(f"- code: {escaped(made)}" for made in _makers(manifests)),
            ]
        ),
        "What each stage took in, gave out and rejected:",
        stages_table(lines).markdown(),
        *map(escaped, remarks(lines)),
    ]
    parts += ["Requests to teachers:", ledger_table(spent).markdown()] if spent else []
    parts += ["Settings:", fenced(_settings(recipes), "yaml")]
    parts += ["## Examples", *(fenced(json.dumps(row, indent=1, ensure_ascii=False), "json") for row in rows)]
    parts += ["## Keys", "\n".join(f"- {line.label}: `{line.key}`" for line in lines)]
    return "\n\n".join([*parts, "## Citation", fenced(CITATION, "bibtex")]) + "\n"


def refuse_licence(licence: str) -> None:
    """Refuse what is no identifier of a licence.

    Raises:
        UserError: naming some that are.
    """
    if not _LICENCE.fullmatch(licence):
        raise UserError(
            f"--licence {licence!r} is no licence: give an identifier of the hub such as cc-by-4.0, odc-by, apache-2.0"
        )


def _header(licence: str, languages: list[str], records: int) -> str:
    """What the hub reads. It wants languages as codes; of one that is not English the text speaks alone."""
    about = DatasetCardData(
        license=licence,
        language=["en"] if languages == ["English"] else None,
        size_categories=[size_category(records)],
        task_categories=["sentence-similarity", "feature-extraction"],
        tags=["speed", "synthetic", "embeddings"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": RECORDS}]}],
    )
    return f"---\n{about.to_yaml()}\n---"


def size_category(records: int) -> str:
    """The hub's word for so many records."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    place = next((place for place in range(len(names)) if records < 1_000 * 10**place), len(names))
    if place == 0:
        return "n<1K"
    return f"{names[place - 1]}<n<{names[place]}" if place < len(names) else "n>1B"


def fenced(text: str, language: str) -> str:
    """A block in which nothing is markup and which nothing in it can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{escape(text.rstrip())}\n{fence}"


def _looked_through(records: Path) -> tuple[Counter[str], list[Json]]:
    """Records by kind, and some to show: the first of each kind, and where kinds are few the first of all."""
    counts: Counter[str] = Counter()
    firsts: list[Json] = []
    others: list[Json] = []
    with records.open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            counts[row["kind"]] += 1
            if counts[row["kind"]] == 1:
                firsts.append(row)
            elif len(others) < _EXAMPLES:
                others.append(row)
    return counts, [*firsts, *others][:_EXAMPLES]


def inputs_of(recipes: dict[str, Json]) -> Iterator[tuple[str, str]]:
    """Whatever came from outside: files by their sha256, models of the hub by their name."""
    for path, value in _leaves(recipes):
        if path[-1] in ("sha256", "hub"):
            yield f"{path[0]}, {'.'.join(path[1:-1])}", value if path[-1] == "hub" else f"sha256 {value}"


def _leaves(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for place, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(place)))
    elif path:
        yield path, str(value)


def _makers(manifests: dict[str, list[Manifest]]) -> list[str]:
    """Each code, with the packages beside it, that had a hand in it."""
    makers: Iterable[Maker | None] = (each.maker for found in manifests.values() for each in found)
    told = (
        f"{maker.commit}, Python {maker.python}, {', '.join(f'{name} {at}' for name, at in maker.packages.items())}"
        for maker in makers
        if maker is not None
    )
    return list(dict.fromkeys(told))


def _settings(recipes: dict[str, Json]) -> str:
    """The recipes as YAML; what stands there twice is named and referred to."""
    seen: dict[bytes, Json] = {}

    def once(value: Json) -> Json:
        if not isinstance(value, dict):
            return value
        if "key" in value and ("stage" in value or "pool" in value):
            return {name: inner for name, inner in value.items() if name != "key"}
        text = canonical(value)
        whole = {name: once(inner) for name, inner in value.items()}
        return seen.setdefault(text, whole) if len(text) > _LONG else whole

    return str(yaml.safe_dump(once(recipes), sort_keys=False, allow_unicode=True, width=120))
