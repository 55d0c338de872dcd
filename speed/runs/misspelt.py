"""Groups and options of a command line that are none, with the nearest that are one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path


def misspelt(arguments: Sequence[str], conf: Path, keys: Collection[str]) -> list[str]:
    """A line for each `group=option` whose group or option is none, where there is one that is spelt nearly the same.

    Args:
        arguments: of the command line.
        conf: the folder of all groups; those of the command's own `--config-dir` count as well.
        keys: what may be set beside the groups.
    """
    if any(argument.partition("=")[0] == "hydra.searchpath" for argument in arguments):
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
    return lines


def _config_dirs(arguments: Sequence[str]) -> list[str]:
    """The folders after `--config-dir`, which Hydra also takes as `-cd` and with an equals sign."""
    flags = ("--config-dir", "-cd")
    after = [there for flag, there in pairwise(arguments) if flag in flags]
    joined = [each.partition("=") for each in arguments]
    return after + [there for flag, _, there in joined if there and flag in flags]
