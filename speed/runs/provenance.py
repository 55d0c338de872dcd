"""What a card says of where a model, data set or table of results comes from: teachers, other people's models and
files, licences, whether texts of tests were found in the corpus, and scores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from speed.core.ledger import total
from speed.core.manifest import read_manifest
from speed.core.spec import Json, digest
from speed.data.evaluation_record import shown
from speed.data.quality.contaminated_records import Contamination
from speed.runs.cards import folder_of, inputs_of, manifests_of, reported
from speed.runs.stage_lines import StageLine
from speed.runs.tables import Table, escaped

HEADING = "## Provenance"
PUBLISHED = "published: "
SCORES = "## Scores"
UNCHECKED = "not searched for texts of tests (--against FOLDER ... searches it)"
"""What is said of a corpus without a search."""
_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)+[\w.@+-]+")


def what(run: Path, stage: str) -> str:
    """What is published, in words that tell it from anything else."""
    summary, _ = reported(run)
    return f"{stage} of the run {escaped(summary['name'])}, key {summary['about'].get('key') or digest(summary)[:60]}"


def held_by(card: str) -> str:
    """What a card says that it is of; empty where it does not say."""
    found = re.search(rf"^- {PUBLISHED}(.+)$", card, re.MULTILINE)
    return "" if found is None else found[1]


def searched_by_evaluation(run: Path) -> str:
    """What the evaluation found of its tasks' texts in the corpus, in words; `UNCHECKED` where it did not look."""
    _, lines = reported(run)
    found = next((line.metrics["contamination"] for line in lines if line.metrics.get("contamination")), None)
    held = Contamination.model_validate(found) if found else None
    if held is None or not held.tasks:
        return UNCHECKED
    searched = "searched" if held.every == 1 else f"searched, one record in {held.every},"
    beside = f", labelled records beside it included ({held.labelled} files)" if held.labelled else ""
    without = f"; not for those of {', '.join(held.left_out)}" if held.left_out else ""
    return (
        f"{searched} for the texts of {len(held.tasks)} tasks of its evaluation ({', '.join(held.tasks)}){beside}: "
        f"{held.contaminated:,} of {held.records:,} records share a run of {held.words} words with one or nearly "
        f"repeat it{without}"
    )


def provenance(run: Path, stage: str, licence: str, contamination: str) -> str:
    """The section of a card, in Markdown.

    Args:
        stage: what of the run.
        contamination: what a search for texts of tests in the corpus found, or `UNCHECKED`.

    Raises:
        UserError: for a folder that is no finished run, or one whose stages are gone from the store.
    """
    _, lines = reported(run)
    manifests = {line.label: manifests_of(run, line) for line in lines}
    recipes = {label: found[0].recipe for label, found in manifests.items() if found}
    bases = sorted({value for path, value in inputs_of(recipes) if path.endswith(("base", "model"))})
    files = [f"{name}: {value}" for name, value in inputs_of(recipes) if not name.endswith(("base", "model"))]
    told = [
        f"{PUBLISHED}{what(run, stage)}",
        f"licence: {escaped(licence)}, chosen by whoever publishes this",
        f"teacher: {escaped(', '.join(_teachers(lines)) or 'none was asked')}; the terms of who serves it may bind "
        "what is made of its answers",
        f"other models, each under its own licence: {escaped(', '.join(bases) or 'none')}",
        f"other files: {escaped(', '.join(files) or 'none')}",
        f"contamination: the corpus was {contamination}",
    ]
    return "\n".join([HEADING, "", *(f"- {each}" for each in told), ""])


def _teachers(lines: Iterable[StageLine]) -> Iterator[str]:
    """Each model that was asked, with its requests."""
    asked = [line for stage in lines for line in stage.ledger]
    for model in sorted({line.model for line in asked}):
        requests = total(line for line in asked if line.model == model).requests
        yield f"{model} ({requests:,} requests)"


def results_of(run: Path) -> Path | None:
    """The folder of a run's evaluation; None where it has none."""
    _, lines = reported(run)
    found = (folder_of(run, line) for line in lines)
    return next((folder for folder in found if (folder / "scores.json").is_file()), None)


def scores(run: Path) -> str:
    """The section with the scores of the run's embedder; empty where it was not evaluated."""
    folder = results_of(run)
    manifest = None if folder is None else read_manifest(folder / "manifest.json")
    if manifest is None or "judged" not in manifest.metrics:
        return ""
    judged: Json = manifest.metrics["judged"]
    table = Table("task", "type", "score")
    for task, score in judged["scores"]["tasks"].items():
        table.add(task, judged["kinds"].get(task, ""), shown(score))
    table.add("mean over tasks", "", shown(judged["scores"]["mean"]))
    pins = judged["pins"]
    how = f"mteb {pins['mteb']}, protocol {judged['protocol']}, {pins['precision']}; main scores, 0 to 100."
    return "\n".join([SCORES, "", escaped(how), "", table.markdown(), ""])


def own_paths(folder: Path) -> list[tuple[str, str]]:
    """(file, path) of each place of this machine that a card or a JSON file of the folder names."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".md", ".json") and file.is_file() and not file.name.startswith("tokenizer"):
            for path in dict.fromkeys(_PATH.findall(file.read_text(encoding="utf-8", errors="replace"))):
                if Path(path).exists():
                    found.append((str(file.relative_to(folder)), path))
    return found
