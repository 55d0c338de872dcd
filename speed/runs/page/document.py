"""A page as one HTML file: its own script and style inside, nothing fetched, nothing but that script allowed to run.

A policy in the page's head names the script and the style by their hashes and forbids everything else. Templates escape
whatever they are given; texts of records stand in compressed data (`packing`), from which the script makes text nodes.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from speed.core.escape import escape
from speed.runs.tables import Table

FOLDER = files("speed.runs.page")


@lru_cache(maxsize=1)
def _templates() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(lambda name: (FOLDER / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: escape(value) if type(value) is str else value,
    )
    made.filters["slug"] = slug
    made.filters["right"] = Table.to_the_right
    return made


def slug(text: str) -> str:
    """A name that a link may lead to."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def page(template: str, **values: Any) -> str:
    """A page from a template of this folder."""
    script, style = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    policy = f"default-src 'none'; script-src {_allowed(script)}; style-src {_allowed(style)}; img-src data:"
    policy += "; base-uri 'none'; form-action 'none'"
    return str(_templates().get_template(template).render(script=script, style=style, policy=policy, **values))
