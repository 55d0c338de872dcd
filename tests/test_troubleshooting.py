"""docs/troubleshooting.md has every refusal of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").replace("\\|", "|")
REFUSALS = ("UserError", "StoreError")


def pieces(node: ast.expr) -> Iterator[str]:
    """The literal parts of a message."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from pieces(value)
    elif isinstance(node, ast.BinOp):
        yield from pieces(node.left)
        yield from pieces(node.right)


def refusals() -> Iterator[tuple[str, str]]:
    """Where each refusal stands, and the longest literal part of its first line; those without words are passed on."""
    for file in sorted((ROOT / "speed").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in REFUSALS and node.args:
                first, *_ = "\0".join(pieces(node.args[0])).split("\n")
                told = max((part.strip(" :;,('\"") for part in re.split(r"\0|; |: ", first)), key=len)
                if len(told) >= 12:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", told


def test_every_refusal_is_on_the_page() -> None:
    found = list(refusals())
    assert len(found) > 100
    missing = [f"{place} says: {told}" for place, told in found if told not in PAGE]
    assert not missing, "\n".join(missing)
