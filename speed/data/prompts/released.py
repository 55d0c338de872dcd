"""Read the prompts of the authors' released repository (github.com/haon-chen/SPEED) from a checkout, word for word.

Its three files are Python functions that draw slots, collect guidelines and fill an f-string. They are parsed and never
run: each function becomes one of our templates, with the same slots, the same shuffled lists and the same guideline
that appears with a probability; what it draws from is told beside it, to be compared with the config. A statement of
another shape than these is refused rather than guessed at.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from speed.core.errors import UserError

FUNCTIONS = {
    "brainstorm/retrieval": ("prompts_tasks.py", "get_brainstorm_retrieval_tasks_prompt_with_topic_ICL"),
    "brainstorm/classification": ("prompts_tasks.py", "get_brainstorm_classify_tasks_prompt_with_topic"),
    "brainstorm/short_short": ("prompts_tasks.py", "get_brainstorm_s2s_tasks_prompt_with_topic"),
    "brainstorm/long_long": ("prompts_tasks.py", "get_brainstorm_p2p_tasks_prompt_with_topic"),
    "synthesis/retrieval": ("prompts_synthesis.py", "get_create_retrieval_data_prompt"),
    "synthesis/classification": ("prompts_synthesis.py", "get_create_classify_data_prompt"),
    "synthesis/sts": ("prompts_synthesis.py", "get_sts_prompt_with_topic"),
    "synthesis/short_short": ("prompts_synthesis.py", "get_create_s2s_p2p_data_prompt"),
    "synthesis/long_long": ("prompts_synthesis.py", "get_create_s2s_p2p_data_prompt"),
    "judge": ("prompts_aligning.py", "get_create_dpo_data_prompt"),
    "revise": ("prompts_aligning.py", "get_create_all_revise_data_prompt"),
}
"""Template -> the file and the function that it is made from."""
ARGUMENTS = {
    "judge": {"prompt": "data_prompt", "data": "data_list"},
    "revise": {"prompt": "data_prompt", "data": "data_example"},
}
"""Arguments that have another name as a slot."""
TASK_TYPES = {"synthesis/short_short": "s2s", "synthesis/long_long": "p2p"}

Draw = tuple[tuple[str, ...], tuple[float, ...]]
"""Values and their weights; no weights where all are as likely."""


class Released(NamedTuple):
    """One function of the authors' as a template."""

    where: str
    text: str
    draws: dict[str, Draw]
    """Slot -> what it is drawn from."""
    share: float | None
    """How often the guideline on difficulty appears; None if there is none."""


@lru_cache(maxsize=8)
def released(folder: Path) -> dict[str, Released]:
    """All templates of a checkout.

    Raises:
        UserError: if a file or function is not there, or holds what this reader does not know.
    """
    trees: dict[str, dict[str, ast.FunctionDef]] = {}
    for file, _ in FUNCTIONS.values():
        if file not in trees:
            trees[file] = _functions(folder.expanduser() / file)
    made = {}
    for name, (file, function) in FUNCTIONS.items():
        path = folder.expanduser() / file
        if function not in trees[file]:
            raise UserError(f"{path} has no function {function}: give a checkout of github.com/haon-chen/SPEED")
        made[name] = _Reading(name, path).template(trees[file][function])
    return made


def _functions(path: Path) -> dict[str, ast.FunctionDef]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"prompts=released cannot read {path} ({error}): "
            "set prompts.path to a checkout of github.com/haon-chen/SPEED"
        ) from error
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


class _Reading:
    """One function, read statement by statement."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.lists: dict[str, list[str]] = {}
        self.shuffled: set[str] = set()
        self.texts: dict[str, str] = {}
        self.joined: dict[str, str] = {}
        """Variable -> the list whose lines it joins."""
        self.draws: dict[str, Draw] = {}
        self.share: float | None = None

    def template(self, function: ast.FunctionDef) -> Released:
        """The template of a function: what it assigns to `prompt`, when all its statements are read."""
        for statement in function.body:
            self._read(statement)
        if "prompt" not in self.texts:
            raise self._unknown(function)
        text = re.sub(r"about \d+ elements", "about {{ request }} elements", self.texts["prompt"])
        if self.name == "synthesis/long_long" and (asked := re.search(r"at least (\d+) words", text)):
            self.draws["num_words"] = ((asked[1],), ())
            text = text.replace(asked[0], "at least {{ num_words }} words")
        return Released(f"{self.path}, {function.name}", text, self.draws, self.share)

    def _read(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assert() | ast.Return():
                pass
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                self._assign(name, value)
            case ast.If(test=ast.Compare(left=ast.Name(id="language"))):
                pass  # the language is always given
            case ast.If(
                test=ast.Compare(left=ast.Name(id="task_type"), comparators=[ast.Constant(value=one)]),
                body=body,
                orelse=other,
            ):
                for chosen in body if TASK_TYPES[self.name] == one else other:
                    self._read(chosen)
            case ast.If(
                test=ast.Compare(left=ast.Call() as draw, ops=[ast.Lt()], comparators=[ast.Constant(value=share)]),
                body=[
                    ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[item]))
                ],
                orelse=[],
            ) if ast.unparse(draw) == "random.random()" and "{{ difficulty }}" in (line := self._text(item)):
                self.share = float(str(share))
                self.lists[name].append(f"{{% if difficulty %}}\n{line}\n{{% endif %}}")
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr="shuffle"), args=[ast.Name(id=name)])):
                self.shuffled.add(name)
            case _:
                raise self._unknown(statement)

    def _assign(self, name: str, value: ast.expr) -> None:
        if isinstance(value, ast.Subscript):  # random.choices([...], weights=[...])[0]
            value = value.value
        match value:
            case ast.List(elts=elements) if name == "messages":
                pass
            case ast.List(elts=elements):
                self.lists[name] = [self._text(element) for element in elements]
            case ast.JoinedStr() | ast.Constant(value=str()):
                self.texts[name] = self._text(value)
            case ast.Call(func=ast.Attribute(attr="join"), args=[ast.Name(id=listed)]):
                self.joined[name] = listed
            case ast.Call(func=ast.Attribute(attr="choice" | "choices"), args=[ast.List(elts=values)], keywords=more):
                weights = next((each.value for each in more if each.arg == "weights"), ast.List(elts=[]))
                self.draws[name] = (tuple(map(str, self._constants(values))), tuple(self._numbers(weights)))
            case _:
                raise self._unknown(value)

    def _constants(self, values: list[ast.expr]) -> Iterator[object]:
        for value in values:
            if not isinstance(value, ast.Constant):
                raise self._unknown(value)
            yield value.value

    def _numbers(self, weights: ast.expr) -> Iterator[float]:
        for value in self._constants(weights.elts if isinstance(weights, ast.List) else [weights]):
            yield float(str(value))

    def _text(self, value: ast.expr) -> str:
        """A string or f-string as text of a template."""
        text, behind_block = "", False
        for part in value.values if isinstance(value, ast.JoinedStr) else [value]:
            match part:
                case ast.Constant(value=str(literal)) if not behind_block or literal.startswith("\n"):
                    # The line break behind a block is that of its last line.
                    text += (literal[1:] if behind_block else literal).replace("{", "{{ '{' }}")
                    behind_block = False
                case ast.FormattedValue(value=ast.Name(id=name), conversion=-1, format_spec=None) if not behind_block:
                    if name in self.joined and text.endswith("\n"):
                        text, behind_block = text + self._block(self.joined[name]), True
                    else:
                        text += self.texts.get(name) or f"{{{{ {ARGUMENTS.get(self.name, {}).get(name, name)} }}}}"
                case _:  # the line of the whole string, since Pythons before 3.12 know that of no part
                    raise self._unknown(value)
        return text

    def _block(self, listed: str) -> str:
        lines = "\n".join(self.lists[listed]) + "\n"
        block = "examples" if listed.startswith("example") else listed
        return f'{{% filter shuffled("{block}") %}}\n{lines}{{% endfilter %}}\n' if listed in self.shuffled else lines

    def _unknown(self, node: ast.AST) -> UserError:
        where = f"{self.path}, line {getattr(node, 'lineno', '?')}"
        return UserError(
            f"{where}: not the layout of github.com/haon-chen/SPEED that this version reads: "
            "write the templates into a folder of your own (prompts=paper prompts.path=FOLDER)"
        )
