"""A folder of evaluation tasks, read and checked without the hub or a download cache.

    tasks/
      tasks.json            optional: [{"name", "type", "mteb": name in mteb or null, "instruction"}]
      MyTask/README.md      optional: YAML with the data files; lines "- type: STS", "- mteb task: NAME"
      MyTask/test.jsonl     rows; a retrieval or reranking task has corpus.jsonl, queries.jsonl, qrels/test.jsonl
                            (and top_ranked.jsonl)

Files may be .parquet or .csv as well, and lie in MyTask/data/ or where README.md says.

Rows are read into memory: parallel evaluations share no cache and write nothing outside their own folder.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from speed.backends.evaluation.gold import Rows, refuse_undefined, with_values
from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.core.spec import Json, Spec, digest

TaskType = Literal[
    "Classification", "Clustering", "PairClassification", "Reranking", "Retrieval", "STS", "Summarization"
]
"""The seven types of the paper's Table 1."""

SUFFIXES = (".jsonl", ".parquet", ".csv")

COLUMNS: dict[TaskType, tuple[tuple[str, ...], ...]] = {
    "Classification": (("text",), ("label",)),
    "Clustering": (("sentences", "text"), ("labels", "label")),
    "PairClassification": (("sentence1", "sent1"), ("sentence2", "sent2"), ("labels", "label")),
    "STS": (("sentence1",), ("sentence2",), ("score",)),
    "Summarization": (("text",), ("human_summaries",), ("machine_summaries",), ("relevance",)),
    "Reranking": (("query-id",), ("corpus-id",), ("score",)),
    "Retrieval": (("query-id",), ("corpus-id",), ("score",)),
}
"""Columns of the rows of each type, each with the names that are understood; mteb's own name first."""

EVALUATED = ("test", "validation", "dev")
"""Splits to evaluate on, in order of preference."""

SEARCH_COLUMNS = {
    "corpus": (("_id", "id"), ("text",)),
    "queries": (("_id", "id"), ("text",)),
    "top_ranked": (("query-id",), ("corpus-ids",)),
}

TEXTS: dict[TaskType, tuple[str, ...]] = {
    "Classification": ("text",),
    "Clustering": ("sentences",),
    "PairClassification": ("sentence1", "sentence2"),
    "STS": ("sentence1", "sentence2"),
    "Summarization": ("text", "human_summaries", "machine_summaries"),
    "Reranking": (),
    "Retrieval": (),
}
"""Which of these columns are texts, not labels, scores or ids; texts of a search are in `corpus` and `queries`."""


class TaskFolder(Spec):
    """One task: its type, and the file of every split of every configuration."""

    name: str
    folder: Path
    type: TaskType
    mteb: str | None
    """Its name in mteb, when it is one of mteb's tasks; None for a task of our own."""
    instruction: str | None
    files: dict[str, dict[str, Path]]
    """Configuration (`default`, `corpus`, ...) to split to file."""
    revision: str
    """`local-` and 12 digits of the sha256 of the folder and of its entry in tasks.json."""

    def split(self, wanted: Sequence[str]) -> str:
        """The split to evaluate on: the first of the wanted ones that exists, or the only one."""
        splits = self.files["default"]
        split = next((split for split in wanted if split in splits), None)
        if split is None and len(splits) == 1:
            split = next(iter(splits))
        if split is None:
            raise UserError(
                f"{self.folder}: no split {' or '.join(wanted)}; it has {', '.join(sorted(splits)) or 'none'}"
            )
        return split

    def rows(self, split: str, config: str = "default", limit: int | None = None) -> Rows:
        """The checked rows of a split, or the first few, with mteb's names of the columns."""
        file = self.files[config][split]
        columns = COLUMNS[self.type] if config == "default" else SEARCH_COLUMNS.get(config, ())
        rows = checked(file, read_rows(file, limit), columns)
        return with_values(file, self.type if config == "default" else "", rows)

    def gold(self, split: str) -> Rows:
        """All rows of a split that a model is scored on, or a classifier trained on.

        Raises:
            UserError: for labels or scores that no score can come from.
        """
        rows = self.rows(split)
        refuse_undefined(self.files["default"][split], self.type, rows)
        return rows

    def check(self) -> None:
        """Check gold values and the first rows of every file, so that the last task's mistake is known at the start."""
        evaluated = next((split for split in EVALUATED if split in self.files["default"]), None)
        trained = "train" if self.type == "Classification" else None
        for config, splits in self.files.items():
            for split in splits:
                if config == "default" and split in (evaluated, trained):
                    self.gold(split)
                else:
                    self.rows(split, config, limit=100)

    def only_rows(self, config: str) -> Rows:
        """The rows of a configuration with one split, such as `corpus`."""
        return self.rows(next(iter(self.files[config])), config)

    @property
    def characters(self) -> int:
        """About as many as its files have bytes."""
        return sum(file.stat().st_size for splits in self.files.values() for file in splits.values())

    def texts(self) -> Iterator[str]:
        """Every text that a model is judged on: those of all splits but `train`; a document begins with its title.

        Raises:
            UserError: for rows that cannot be read (file and line are named).
        """
        for split in self.files["default"] if TEXTS[self.type] else ():
            for row in self.rows(split) if split != "train" else ():
                for column in TEXTS[self.type]:
                    values = row[column] if isinstance(row[column], list) else [row[column]]
                    yield from (value for value in values if isinstance(value, str))
        for config in ("corpus", "queries"):
            for split in self.files.get(config, ()):
                for row in self.rows(split, config):
                    yield f"{row.get('title', '')} {row['text']}".strip()


def task_folders(root: Path) -> list[TaskFolder]:
    """The tasks of a folder, by name.

    Raises:
        UserError: when it is missing or empty, or a task's type cannot be told.
    """
    if not root.is_dir():
        raise UserError(f"{root} does not exist: eval.tasks must be a folder of tasks")
    listed = {str(entry["name"]): entry for entry in _listed(root / "tasks.json")}
    tasks = [_task(path, listed.get(path.name, {})) for path in sorted(root.iterdir()) if _holds_task(path)]
    if not tasks:
        raise UserError(f"{root} holds no tasks: each is a folder with JSONL files (test.jsonl; see docs/evaluate.md)")
    return tasks


def read_rows(file: Path, limit: int | None = None) -> Rows:
    """The rows of a JSONL, Parquet or CSV file, or the first few.

    Raises:
        UserError: for a line that is no JSON object, or a table that cannot be read.
    """
    if file.suffix in (".parquet", ".csv"):
        return _table_rows(file, limit)
    out: Rows = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if len(out) == limit:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{file}, line {number} must be a JSON object with named columns")
            out.append(row)
    if not out:
        raise UserError(f"{file} is empty")
    return out


def _table_rows(file: Path, limit: int | None) -> Rows:
    """Rows of a table, read into memory through `datasets`; empty cells of a CSV are empty texts."""
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        try:
            if file.suffix == ".csv":
                table = datasets.Dataset.from_csv(
                    str(file), cache_dir=cache, keep_in_memory=True, keep_default_na=False
                )
            else:
                table = datasets.Dataset.from_parquet(str(file), cache_dir=cache, keep_in_memory=True)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error.__cause__ or error).split("\n")[0]
            raise UserError(f"{file} cannot be read as {file.suffix[1:]}: {reason}") from error
        rows: Rows = (table if limit is None else table.take(min(limit, len(table)))).to_list()
    if not rows:
        raise UserError(f"{file} is empty")
    return rows


def checked(file: Path, rows: Rows, columns: Sequence[tuple[str, ...]]) -> Rows:
    """The rows with exactly these columns, read under any of their names and stored under the first.

    Raises:
        UserError: naming file, line and column that is missing or null.
    """
    out: Rows = [{} for _ in rows]
    for names in columns:
        for number, (row, kept) in enumerate(zip(rows, out, strict=True), start=1):
            value = next((row[name] for name in names if row.get(name) is not None), None)
            if value is None:
                raise UserError(
                    f"{file}: column {names[0]!r} is missing in row {number}; it has {', '.join(map(repr, row))}"
                )
            kept[names[0]] = value
    if columns == SEARCH_COLUMNS["corpus"]:
        for row, kept in zip(rows, out, strict=True):
            kept["title"] = row.get("title") or ""
    return out


def _holds_task(path: Path) -> bool:
    files = (file for place in (path, path / "data") for file in place.glob("*"))
    return path.is_dir() and not path.name.startswith(".") and any(file.suffix in SUFFIXES for file in files)


def _listed(file: Path) -> list[dict[str, Json]]:
    if not file.is_file():
        return []
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "name" in e for e in entries):
        raise UserError(f'{file} must be a list of objects with a "name"')
    return entries


def _task(folder: Path, entry: dict[str, Json]) -> TaskFolder:
    readme = folder / "README.md"
    try:
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{readme} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    files = _files_of_card(folder, text) or _files_by_name(folder)
    if not files.get("default"):
        raise UserError(
            f"{folder}: no rows to evaluate on; expected test.jsonl, or qrels/test.jsonl beside corpus.jsonl"
        )
    kind = entry.get("type") or _line(text, "type") or _inferred(folder, files)
    if kind not in get_args(TaskType):
        raise UserError(f"{folder}: unknown task type {kind!r}; one of {', '.join(get_args(TaskType))}")
    known = entry["mteb"] if "mteb" in entry else (_line(text, "mteb task") or "").partition(" ")[0]
    return TaskFolder(
        name=folder.name,
        folder=folder,
        type=kind,
        mteb=known if known and known not in ("none", "None", "null", "-") else None,
        instruction=entry.get("instruction") or _line(text, "instruction"),
        files=files,
        revision=f"local-{(digest([sha256_of(folder), entry]) if entry else sha256_of(folder))[:12]}",
    )


def _line(readme: str, key: str) -> str | None:
    line = re.search(rf"^- {re.escape(key)}:[ \t]*(\S.*?)\s*$", readme, re.MULTILINE)
    return line.group(1) if line else None


def _files_of_card(folder: Path, readme: str) -> dict[str, dict[str, Path]]:
    """The files that the YAML header of the card names, each as `split` and `path`; a path may hold wildcards."""
    import yaml  # type: ignore[import-untyped]

    place = folder / "README.md"
    head = re.match(r"---\r?\n(.*?)\n---\s", readme, re.DOTALL)
    try:
        card = yaml.safe_load(head.group(1)) if head else None
    except yaml.YAMLError as error:
        raise UserError(f"{place}: its header is no YAML: {error}") from error
    try:
        named = [
            (str(config.get("config_name", "default")), str(data["split"]), data["path"])
            for config in (card or {}).get("configs") or ()
            for data in config.get("data_files") or ()
        ]
    except (AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{place}: its header must hold `configs`, a list with `data_files`, each with `split` and `path`"
        ) from error
    out: dict[str, dict[str, Path]] = {}
    for config, split, path in named:
        given = path[0] if isinstance(path, list) and len(path) == 1 else path
        if not isinstance(given, str) or Path(given).is_absolute() or ".." in Path(given).parts:
            raise UserError(f"{place} names {given}, which is not a file of this task")
        found = sorted(folder.glob(given)) if set(given) & set("*?[") else [folder / given]
        if len(found) > 1:
            raise UserError(f"{place} names {given}, which is {len(found)} files: join them into one")
        if not found or not found[0].resolve().is_relative_to(folder.resolve()) or not found[0].is_file():
            raise UserError(f"{place} names {given}, which is not a file of this task")
        out.setdefault(config, {})[split] = found[0]
    return out


def _files_by_name(folder: Path) -> dict[str, dict[str, Path]]:
    there = [file for suffix in SUFFIXES for file in sorted(folder.glob(f"*{suffix}"))]
    root = folder if there else folder / "data"
    search = {
        name: root / f"{name}{suffix}"
        for name in SEARCH_COLUMNS
        for suffix in reversed(SUFFIXES)
        if (root / f"{name}{suffix}").is_file()
    }
    rows = root / "qrels" if "corpus" in search else root
    files = [file for suffix in reversed(SUFFIXES) for file in sorted(rows.glob(f"*{suffix}"))]
    default = {file.stem: file for file in files if file.stem not in SEARCH_COLUMNS}
    return {"default": default, **{name: {name: file} for name, file in search.items()}}


def _inferred(folder: Path, files: dict[str, dict[str, Path]]) -> str:
    if "corpus" in files:
        return "Reranking" if "top_ranked" in files else "Retrieval"
    file = next(iter(files["default"].values()))
    first = read_rows(file, limit=1)[0]
    order: tuple[TaskType, ...] = ("Summarization", "STS", "PairClassification", "Clustering", "Classification")
    for kind in order:
        if kind == "Clustering" and "sentences" not in first:
            continue
        if all(any(name in first for name in names) for names in COLUMNS[kind]):
            return kind
    raise UserError(
        f"{folder}: the task's type cannot be told from the columns {', '.join(map(repr, first))} of {file.name}; "
        'state it in tasks.json ({"name": ..., "type": ...})'
    )
