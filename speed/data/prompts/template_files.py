"""Read and compile the prompt templates: those of a wording, or a user's own instead.

Templates are jinja files that run in a sandbox and are compiled once. Slot values stay plain text: they are never
parsed as templates, and nothing is escaped. `{% filter shuffled("name") %}` shuffles the lines of a block that begin
with `- `, by the draws of the prompt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from speed.core.errors import UserError
from speed.data.prompts.released import released

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.nodes import Template as Tree
    from jinja2.runtime import Context

Shuffle = Callable[[str, str], str]
"""(name of the block, its text) -> the text with its `- ` lines in the drawn order."""

Wording = Literal["paper", "paper_2026", "released"]
"""`paper` means what E5-mistral and the authors' code say; `paper_2026` is what earlier versions sent; `released` is
the text of the authors' repository, which a user has to have."""
FOLDERS = {"paper": ("templates",), "paper_2026": ("paper_2026", "templates")}
"""Wording -> folders of this package in which its templates are looked for, in this order."""

_RETRIEVAL = frozenset({"query_type", "query_length", "clarity", "num_words", "difficulty"})
_BRAINSTORM = ({"topic"}, {"request"})
_DATA = {"task"}

SLOTS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    name: (frozenset(needed), frozenset({"language", *optional}))
    for name, (needed, optional) in {
        "brainstorm/retrieval": _BRAINSTORM,
        "brainstorm/classification": _BRAINSTORM,
        "brainstorm/short_short": _BRAINSTORM,
        "brainstorm/long_long": _BRAINSTORM,
        "synthesis/retrieval": (_DATA, {"topic", *_RETRIEVAL}),
        "synthesis/classification": (_DATA, {"topic", "num_words", "clarity", "difficulty"}),
        "synthesis/sts": ({"topic"}, {"unit", "high_score", "low_score", "difficulty"}),
        "synthesis/short_short": (_DATA, {"topic"}),
        "synthesis/long_long": (_DATA, {"topic", "num_words"}),
        "judge": ({"data_prompt", "data_list"}, set[str]()),
        "revise": ({"data_prompt", "data_example"}, set[str]()),
        "relevance": ({"task", "query", "first", "second"}, set[str]()),
        "graded": ({"task", "query", "num_words"}, set[str]()),
        "grounded/query": ({"task", "passage"}, {"topic", "document", *_RETRIEVAL} - {"num_words"}),
    }.items()
}
"""Template name -> (slots that it must use, slots that it may use)."""
OURS = ("grounded/query", "relevance", "graded")
"""Templates for what the paper does not have."""


class Template(NamedTuple):
    """A compiled template."""

    name: str
    sha256: str
    """Hash of its text."""
    slots: frozenset[str]
    """Slots that its text uses."""
    only_with: Mapping[str, str]
    """Slot -> the slot that must have a value for it to be stated: it stands within `{% if ... %}` only."""
    label: str
    """`synthesis/retrieval@1a2b3c4d`."""
    fill: Callable[[Mapping[str, object]], str]
    """Fill the slots; raises UserError if the template does something that the sandbox forbids."""


@lru_cache(maxsize=32)
def templates(wording: Wording, folder: Path | None) -> Mapping[str, Template]:
    """All templates by name: those of `folder`, and the package's in this wording for the rest.

    They are read once per process, so that the text that is hashed into keys is the text that is sent.

    Raises:
        UserError: no such folder, no or unknown templates in it, bad syntax, a slot missing or unknown.
    """
    if wording == "released" and folder is not None:
        own = {name: (found.where, found.text) for name, found in released(folder).items()}
    else:
        own = {} if folder is None else _own_texts(folder.expanduser())
    environment = _environment()
    return MappingProxyType(
        {name: _template(environment, name, *own.get(name) or _text_of(wording, name)) for name in SLOTS}
    )


def _text_of(wording: Wording, name: str) -> tuple[str, str]:
    """Where a template of the package stands, and its text."""
    for folder in FOLDERS.get(wording, FOLDERS["paper"]):
        file = files("speed.data.prompts") / folder / f"{name}.jinja"
        if file.is_file():
            return f"speed/data/prompts/{folder}/{name}.jinja", file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{name}.jinja of the wording {wording}")


def _own_texts(folder: Path) -> dict[str, tuple[str, str]]:
    if not folder.is_dir():
        raise UserError(
            f"prompts.path={folder} is no folder: give a folder with files such as synthesis/retrieval.jinja"
        )
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.jinja"))}
    unknown = sorted(set(paths) - set(SLOTS))
    if unknown or not paths:
        what = f"{unknown[0]}.jinja is no template of this project" if unknown else "there is no *.jinja file in it"
        raise UserError(f"prompts.path={folder}: {what}; known names are {', '.join(SLOTS)}")
    try:
        return {name: (str(path), path.read_text(encoding="utf-8")) for name, path in paths.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompts.path={folder}: cannot be read as UTF-8 text: {error}") from error


def _environment() -> Environment:
    from jinja2 import StrictUndefined, pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    @pass_context
    def shuffled(context: Context, text: str, name: str) -> str:
        shuffle: Shuffle = context["_shuffle"]
        return shuffle(name, text)

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shuffled"] = shuffled
    return environment


def _template(environment: Environment, name: str, where: str, text: str) -> Template:
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.meta import find_undeclared_variables

    try:
        tree = environment.parse(text)
        used = find_undeclared_variables(tree)
        compiled = environment.from_string(text)
    except TemplateSyntaxError as error:
        raise UserError(f"{where}, line {error.lineno}: {error.message}: mend the template") from error
    needed, optional = SLOTS[name]
    for slot in sorted(needed - used):
        raise UserError(f"{where}: the slot {{{{ {slot} }}}} is missing: every {name} template must have it")
    for slot in sorted(used - needed - optional):
        known = ", ".join(sorted(needed | optional))
        raise UserError(f"{where}: the slot {{{{ {slot} }}}} is unknown: a {name} template may use {known}")
    sha256 = hashlib.sha256(text.encode()).hexdigest()

    def fill(values: Mapping[str, object]) -> str:
        # Not `Template.render`: half of its time goes into copying jinja's globals, and a template uses slots only.
        context = environment.context_class(environment, dict(values), name, compiled.blocks)
        try:
            return "".join(compiled.root_render_func(context))
        except TemplateError as error:
            raise UserError(f"the template {name}.jinja cannot be filled in: {error}: mend it") from error

    return Template(name, sha256, frozenset(used), _only_with(tree), f"{name}@{sha256[:8]}", fill)


def _only_with(tree: Tree) -> dict[str, str]:
    """See `Template.only_with`."""
    from jinja2 import nodes

    everywhere = Counter(found.name for found in tree.find_all(nodes.Name))
    within: dict[str, str] = {}
    for condition in tree.find_all(nodes.If):
        if isinstance(condition.test, nodes.Name):
            inside = Counter(found.name for part in condition.body for found in part.find_all(nodes.Name))
            within.update({name: condition.test.name for name, count in inside.items() if count == everywhere[name]})
    return within


def list_items(text: str) -> list[str]:
    """Items of a block that begin with `- `, each with its line break; any other line belongs to the item above it."""
    first, *rest = ("\n" + text.removesuffix("\n")).split("\n- ")
    return [f"{first[1:]}\n"] * bool(first.strip()) + [f"- {item}\n" for item in rest]
