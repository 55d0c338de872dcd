"""The E5 protocol as data: which instruction is put before which texts (SPEED, §4.1; E5-mistral, appendix)."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from functools import cache, cached_property

from speed.core.spec import Spec, digest, fields_of


class InstructionTable(Spec):
    """`instructions.json`: mteb's own task prompts where it has them, the paper's for STS, E5-mistral's for
    CQADupstack and SummEval."""

    source: str
    tasks: dict[str, dict[str, str]]
    """Instruction by task type and mteb task name."""
    published: dict[str, dict[str, str]]
    """E5-mistral's instructions of tasks for which mteb has none: they replace those of `tasks`. They stand beside
    these, so that evaluations without such tasks keep their keys."""
    further: dict[str, dict[str, str]]
    """Instructions of tasks beyond MTEB: BRIGHT's as its authors wrote them for E5-mistral (Su et al. 2024,
    `configs/e5` of github.com/xlang-ai/BRIGHT at d99e8391; mteb's are those of another model), and ours for the types
    of MMTEB that `types` does not have. They are in no digest but those of evaluations with such tasks, and in no
    exported model."""
    types: dict[str, str]
    """Instruction for tasks that the table does not name, by task type."""
    both_sides: tuple[str, ...]
    """Task types whose documents get the instruction too: all but retrieval (E5-mistral's evaluation)."""
    not_normalized: tuple[str, ...]
    """Task types whose vectors are not normalised: classification (E5-mistral's evaluation)."""
    max_length: int
    """Maximum tokens of a text, unless the config sets another (SPEED, §4.1)."""

    def of(self, name: str, kind: str) -> str | None:
        """The instruction of a task: under its type, else under any type that names it; None without one."""
        every = [*self.named.values(), *self.further.values()]
        return self.named.get(kind, {}).get(name) or next((tasks[name] for tasks in every if name in tasks), None)

    def prompts(self, template: str) -> dict[str, str]:
        """Prefixes by the names that mteb looks up: `Task`, or `Task-query` where documents stand alone.

        Args:
            template: how a query is written, with {task} and, at its end, {query}.
        """
        before = template.removesuffix("{query}")
        return {
            name if kind in self.both_sides else f"{name}-query": before.replace("{task}", text)
            for kind, tasks in self.named.items()
            for name, text in tasks.items()
        }

    @cached_property
    def named(self) -> dict[str, dict[str, str]]:
        """The instruction that each task is evaluated with, by type and name."""
        return {kind: tasks | self.published.get(kind, {}) for kind, tasks in self.tasks.items()}

    def identity(self, names: Iterable[str] | None) -> str:
        """Digest of the instructions of tasks of these names; None for all of MTEB."""
        names, fields = None if names is None else set(names), fields_of(self)
        if names is not None and names.isdisjoint(_names_in(self.published)):
            del fields["published"]
        if names is None or names.isdisjoint(_names_in(self.further)):
            del fields["further"]
        return digest(fields)


def _names_in(tasks: dict[str, dict[str, str]]) -> set[str]:
    return {name for of_type in tasks.values() for name in of_type}


@cache
def instruction_table() -> InstructionTable:
    """The table that ships with the package."""
    table = importlib.resources.files("speed.backends.encoding").joinpath("instructions.json")
    return InstructionTable.model_validate_json(table.read_text(encoding="utf-8"))
