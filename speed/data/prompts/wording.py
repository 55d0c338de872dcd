"""The prompt templates: package data in `templates/`, or a user's own in their place.

They are jinja files in a sandbox, compiled once. What is put into a slot stays plain text: slot values are never
parsed as templates and nothing is escaped. `{% filter shuffled("name") %}` shuffles the `- ` lines of a block by the
prompt's own draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from speed.core.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

Shuffle = Callable[[str, str], str]
"""(name of the block, its text) -> the text with its `- ` lines in drawn order."""

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
    }.items()
}
"""Template name -> (slots that it must have, slots that it may have)."""


class Template(NamedTuple):
    """A compiled template."""

    name: str
    sha256: str
    """Of its text."""
    slots: frozenset[str]
    """The slots that its text uses."""
    label: str
    """`synthesis/retrieval@1a2b3c4d`."""
    filled: Callable[[Mapping[str, object]], str]
    """The text with its slots filled; raises UserError when the template does what the sandbox forbids."""


@lru_cache(maxsize=32)
def templates(folder: Path | None) -> Mapping[str, Template]:
    """All templates by name: the package's, with those of `folder` in the place of theirs.

    Read once per process, so that the text which is hashed into keys is the text which is sent.

    Raises:
        UserError: no such folder, no or unknown templates in it, bad syntax, a slot missing or unknown.
    """
    own = {} if folder is None else _own_texts(folder.expanduser())
    environment = _environment()
    return MappingProxyType({name: _template(environment, name, own.get(name)) for name in SLOTS})


def _own_texts(folder: Path) -> dict[str, tuple[Path, str]]:
    if not folder.is_dir():
        raise UserError(
            f"prompts.path={folder} is no folder: give a folder with files such as synthesis/retrieval.jinja"
        )
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.jinja"))}
    unknown = sorted(set(found) - set(SLOTS))
    if unknown or not found:
        what = f"{unknown[0]}.jinja is no template of this project" if unknown else "there is no *.jinja file in it"
        raise UserError(f"prompts.path={folder}: {what}; known names are {', '.join(SLOTS)}")
    try:
        return {name: (path, path.read_text(encoding="utf-8")) for name, path in found.items()}
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


def _template(environment: Environment, name: str, own: tuple[Path, str] | None) -> Template:
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.meta import find_undeclared_variables

    where = str(own[0]) if own else f"speed/data/prompts/templates/{name}.jinja"
    text = own[1] if own else (files("speed.data.prompts") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    try:
        used = find_undeclared_variables(environment.parse(text))
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

    def filled(values: Mapping[str, object]) -> str:
        # `Template.render` copies jinja's globals for each text, half of its time; slots are all that a template uses.
        context = environment.context_class(environment, dict(values), name, compiled.blocks)
        try:
            return "".join(compiled.root_render_func(context))
        except TemplateError as error:
            raise UserError(f"the template {name}.jinja cannot be filled in: {error}: mend it") from error

    return Template(name, sha256, frozenset(used), f"{name}@{sha256[:8]}", filled)


def list_items(text: str) -> list[str]:
    """The `- ` lines of a block, each with its line break; any other line belongs to the one above."""
    first, *rest = ("\n" + text.removesuffix("\n")).split("\n- ")
    return [f"{first[1:]}\n"] * bool(first.strip()) + [f"- {item}\n" for item in rest]
