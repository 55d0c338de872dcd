"""Merge embedders that were trained from one base into one, by their weights.

python -m speed.merge speed_home/runs/DATE/A0 speed_home/runs/DATE/A1 --to models/merged           the mean of two seeds
python -m speed.merge models/synthetic models/labelled --weights 3 1 --to models/merged
python -m speed.merge models/synthetic models/labelled --how slerp --to models/merged

Each is the folder of a run, of an embedder, or a name on the hub; an adapter is merged into its base first. The new
folder is loaded by speed.evaluate, sentence-transformers and transformers as its parts are, and its card names them.
Refused are parts of other bases, poolings, instructions, lengths or tokenizers, and weights that are not in
safetensors. They are read a tensor of each part at a time; for an adapter its whole base is loaded once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from speed.core.cache import write_aside
from speed.core.errors import UserError
from speed.runs.entry import one_message
from speed.runs.tables import Table


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    out = argparse.ArgumentParser(
        prog="python -m speed.merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("parts", nargs="+", metavar="RUN_OR_FOLDER", help="at least two embedders")
    out.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    out.add_argument("--how", choices=("mean", "slerp"), default="mean", help="slerp takes two (default: mean)")
    out.add_argument("--weights", type=float, nargs="+", metavar="W", help="shares of the parts (default: equal)")
    return out


def run(given: argparse.Namespace) -> str:
    """Run the command; returns what it has to say.

    Raises:
        UserError: for parts that cannot be merged, or a folder that is there.
    """
    count, weights = len(given.parts), given.weights or [1.0] * len(given.parts)
    if count < 2 or (given.how == "slerp" and count > 2):
        wanted = "exactly two" if given.how == "slerp" else "at least two"
        raise UserError(f"--how {given.how} takes {wanted} embedders, and {count} are given: name as many")
    if len(weights) != count or not all(0 < weight < float("inf") for weight in weights):
        typed = " ".join(f"{weight:g}" for weight in weights)
        raise UserError(f"--weights {typed}: give a number above 0 for each of the {count} embedders")
    if given.to.exists():
        raise UserError(f"{given.to} already exists: give a new folder")

    from speed.backends.embedder.merge import merge, told
    from speed.backends.embedder.merge_parts import Part
    from speed.backends.evaluation.evaluated_model import model_at

    models = [model_at(part) for part in given.parts]
    parts = [
        Part(model.name, model.folder, weight / sum(weights)) for model, weight in zip(models, weights, strict=True)
    ]
    with write_aside(given.to) as aside:
        merged = merge(parts, given.how, aside)
    table = Table("part", "weight", "cosine with the first")
    for part, cosine in zip(parts, merged.cosines, strict=True):
        table.add(part.name, f"{part.weight:.4g}", f"{cosine:.6f}")
    return f"{table.text()}\n\n{told(given.how, merged)}\nwritten: {given.to}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    given = parser().parse_args(arguments)
    with one_message("merging"):
        print(run(given))


if __name__ == "__main__":
    main()
