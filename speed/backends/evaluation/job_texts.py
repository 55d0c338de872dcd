"""The texts of a task as mteb has loaded them, to search a corpus for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from speed.backends.evaluation.jobs import Job, characters_of
from speed.backends.evaluation.loaded_gold import SEARCHES, evaluated
from speed.backends.evaluation.mteb_globals import globals_seeded, quiet
from speed.data.quality.contaminated_records import TaskTexts

COLUMNS = (
    *("input_column_name", "input1_column_name", "input2_column_name", "column_names"),
    *("text_column_name", "human_summaries_column_name", "machine_summaries_column_name"),
)
"""mteb's attributes with the names of columns that are texts."""


def task_texts(jobs: Sequence[Job]) -> list[TaskTexts]:
    """The texts of tasks; those of the parts of an aggregate together, under its name."""
    whole = {part.metadata.name: job.task.metadata.name for job in jobs for part in job.parts}
    own: dict[str, list[Job]] = {}
    for job in jobs:
        if not job.parts:
            name = job.task.metadata.name
            own.setdefault(whole.get(name, name), []).append(job)
    out = []
    for name, of_task in own.items():
        counts = [characters_of(job.task, once=False) for job in of_task]
        known = None if None in counts else sum(count or 0 for count in counts)
        out.append(TaskTexts(name, known, partial(_read, of_task)))
    return out


def _read(jobs: Sequence[Job]) -> Iterator[str]:
    for job in jobs:
        yield from texts_of(job)


def texts_of(job: Job) -> Iterator[str]:
    """Every text of the splits that a task is evaluated on; a document begins with its title.

    Raises:
        UserError: where the data cannot be loaded.
    """
    task = job.task
    with quiet(), globals_seeded(task.seed):
        job.load()
        if hasattr(task, "convert_v1_dataset_format_to_v2"):
            task.convert_v1_dataset_format_to_v2(num_proc=None)
    parts = {id(splits[split]): splits[split] for _, splits, split in evaluated(task)}
    for data in parts.values():
        if str(task.metadata.type) in SEARCHES:
            for row in data["corpus"]:
                yield f"{row.get('title') or ''} {row['text']}".strip()
            yield from _strings([row["text"] for row in data["queries"]])
        else:
            named = _columns(task)
            for row in data.select_columns([name for name in data.column_names if name in named]):
                yield from _strings(list(row.values()))
    task.unload_data()


def _columns(task: Any) -> set[str]:
    if str(task.metadata.type) == "BitextMining":  # a column for each side, or for each language
        return {"sentence1", "sentence2", *(side for subset in task.hf_subsets for side in subset.split("-"))}
    return set(_strings([getattr(task, attribute, ()) for attribute in COLUMNS]))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)
