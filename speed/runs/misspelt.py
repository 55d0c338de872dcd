"""Groups, options and keys of a command line that do not exist, each with the nearest name that does."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from yaml import YAMLError, load  # type: ignore[import-untyped]

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader

PACKAGE = re.compile(r"^# @package ([\w.]+)", re.MULTILINE)
"""The comment by which a file of options says where its values stand."""
HELP = "`python -m speed.run --help` for groups and options, `--cfg job` for keys"
NESTED = re.compile(r"\w+(\.\w+)+")


def misspelt(arguments: Sequence[str], conf: Path, keys: Collection[str]) -> list[str]:
    """A line for each `group=option` or `key=value` whose group, option or key is none.

    The nearest is named where there is one that is spelt nearly the same, and the keys beside a nested one. What stands
    behind `+` and is near to nothing is left to the config, which knows what it takes.

    Args:
        arguments: of the command line.
        conf: the folder of all groups; those of the command's own `--config-dir` count as well.
        keys: what may be set beside the groups.
    """
    if any(re.match(r"hydra\.searchpath=|--config-path|-cp", argument) for argument in arguments):
        return []
    folders = [conf, *map(Path, _config_dirs(arguments))]
    lines = []
    for argument in arguments:
        typed, sign, value = argument.partition("=")
        name = typed.lstrip("+")
        if not sign or not name.isidentifier():
            continue
        options = {file.stem for folder in folders for file in (folder / name).glob("*.yaml")}
        if options:
            for option in value.strip("[]").split(","):
                if option not in options and (near := get_close_matches(option, options, 1)):
                    there = ", ".join(sorted(options))
                    lines.append(f"{typed}={option}: did you mean {typed}={near[0]}? The options of {name}: {there}")
        elif name not in keys:
            groups = {folder.name for root in folders for folder in root.glob("*/")}
            if near := get_close_matches(name, groups | set(keys), 1):
                lines.append(f"{argument}: there is no {name}; did you mean {near[0]}={value}?")
            elif typed == name:
                lines.append(f"{argument}: there is no {name}; see {HELP}")
    return lines + _misspelt_keys(arguments, folders, keys)


def _misspelt_keys(arguments: Sequence[str], folders: Sequence[Path], keys: Collection[str]) -> list[str]:
    """The same for nested keys, as `preference.dpo.beta=0.2`: those that no option of any group sets."""
    typed = [(key, value) for key, sign, value in (each.partition("=") for each in arguments) if sign]
    added = tuple(key.lstrip("+") for key, _ in typed if key.startswith("+"))
    nested = [
        (key, value)
        for key, value in typed
        if NESTED.fullmatch(key) and not key.startswith(("hydra.", *(f"{each}." for each in added)))
    ]
    if not nested:
        return []
    known: set[str] = set()
    for folder in folders:
        for depth in ("*.yaml", "*/*.yaml", "*/*/*.yaml"):
            for file in folder.glob(depth):
                known.update(_keys_of(file, folder))
    lines = []
    for key, value in nested:
        if key in known or any(f"{key[: dot.start()]}.*" in known for dot in re.finditer(r"\.", key)):
            continue
        parent, _, name = key.rpartition(".")
        beside = {each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == parent}
        same_parent = [f"{parent}.{each}" for each in get_close_matches(name, beside, 1)]
        if parent in known and not beside:  # it is null in all options
            lines.append(f"{key}={value}: {parent} has no keys yet; +{key}={value} gives it one")
        elif near := same_parent or ([] if beside else get_close_matches(key, known, 1, cutoff=0.8)):
            lines.append(f"{key}={value}: there is no {key}; did you mean {near[0]}={value}?")
        elif beside:
            lines.append(f"{key}={value}: there is no {key}; the keys of {parent}: {', '.join(sorted(beside))}")
        elif (first := key.partition(".")[0]) not in {*keys, *(each.partition(".")[0] for each in known)}:
            lines.append(f"{key}={value}: there is no {first}; see {HELP}")
    return lines


def _keys_of(file: Path, folder: Path) -> Iterator[str]:
    """The keys that a file of options sets; `key.*` where their own keys are not known from it."""
    try:
        text = file.read_text(encoding="utf-8")
        values = load(text, Loader=SafeLoader)
    except (OSError, UnicodeDecodeError, YAMLError):
        return  # Hydra says what is wrong with it, if it reads it at all
    said = PACKAGE.search(text)
    package = said[1] if said else ".".join(file.relative_to(folder).parts[:-1])
    yield from _flattened(values, package.removeprefix("_global_"))


def _flattened(value: Any, key: str) -> Iterator[str]:
    yield key
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("defaults", "hydra"):
                continue
            yield from _flattened(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list) or "${" in str(value):
        yield f"{key}.*"


def _config_dirs(arguments: Sequence[str]) -> list[str]:
    """The folders after `--config-dir`, which Hydra also takes as `-cd` and with an equals sign."""
    flags = ("--config-dir", "-cd")
    after = [there for flag, there in pairwise(arguments) if flag in flags]
    joined = [each.partition("=") for each in arguments]
    return after + [there for flag, _, there in joined if there and flag in flags]
