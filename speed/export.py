"""Export a trained model or the corpus of a run in the form that other programs load, with its card.

python -m speed.export speed_home/runs/DATE/RUN --stage senior --to models/senior     one model, adapters merged
python -m speed.export speed_home/runs/DATE/RUN --stage senior --to models/adapter --adapter
python -m speed.export speed_home/store/junior/KEY --to models/junior --precision bf16
python -m speed.export speed_home/runs/DATE/RUN --stage embedder --to models/embedder
python -m speed.export speed_home/runs/DATE/RUN --stage embedder --to models/embedder --url http://127.0.0.1:8000/v1
python -m speed.export speed_home/runs/DATE/RUN --stage dataset --licence cc-by-4.0 --to data/corpus

A merged generator is what transformers and vLLM load, an adapter what PEFT loads on its base; an embedder is copied as
it is, and refused unless our encoder, sentence-transformers and transformers embed 64 texts with it as its training
meant. With --url a server that has loaded the exported folder is held to the same. A data set is the corpus that
the embedder learned from, as `datasets` and the hub read it. What a manifest says of the training is added to the card.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speed.backends.runtime.older_readers import for_older_readers
from speed.core.cache import write_aside
from speed.core.errors import CorruptArtifact, UserError, explained
from speed.runs.entry import one_message

if TYPE_CHECKING:
    from speed.backends.runtime.precision import Precision
    from speed.core.manifest import Manifest

PAPER = "[Little Giants: Synthesizing High-Quality Embedding Data at Scale](https://arxiv.org/abs/2410.18634)"
ROLES = {
    "junior": "writes embedding examples; trained on the teacher's (section 3.2.2)",
    "senior": "writes embedding examples; the junior, optimised on preferences (section 3.2.3)",
    "revisor": "repairs embedding examples (section 3.2.4)",
    "embedder": "an embedding model, trained on the synthetic examples (section 3.3)",
}
HEADING = "## Parity"
STAGES = ("senior", "junior", "revisor", "embedder")


def parser() -> argparse.ArgumentParser:
    """The arguments that can be typed."""
    out = argparse.ArgumentParser(
        prog="python -m speed.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("artifact", type=Path, help="folder of a run, or of one stage in the store")
    out.add_argument(
        "--stage", choices=(*STAGES, "dataset"), help="what of a run (default: the first of these models that it has)"
    )
    out.add_argument("--licence", "--license", help="of a data set: an identifier of the hub such as cc-by-4.0")
    out.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    out.add_argument("--adapter", action="store_true", help="the adapter alone, for PEFT (default: merged)")
    out.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of merged weights")
    out.add_argument("--url", help="an OpenAI-compatible server of the embedder, such as http://127.0.0.1:8000/v1")
    out.add_argument("--served", metavar="NAME", help="the embedder's name at --url (default: the folder of --to)")
    return out


def payload_of(artifact: Path, stage: str | None) -> Path:
    """The folder of a trained model: the one given, or a stage of the run given.

    Raises:
        UserError: where there is none.
    """
    if (artifact / "model").is_dir():
        return artifact.resolve()
    wanted = STAGES if stage is None else (stage,)
    for name in wanted:
        found = (artifact / "stages").glob(f"{name}*/model")  # of several rounds of seniors the last
        if last := max(found, default=None):
            return last.parent.resolve()
    raise UserError(
        f"{artifact} holds no trained model ({', '.join(wanted)})\n"
        "  give a folder of speed_home/runs (and --stage), or one of speed_home/store/<stage>"
    )


def export_dataset(run: Path, licence: str | None, to: Path) -> Path:
    """Write the corpus of a run and its card into the new folder `to`.

    Raises:
        UserError: without a licence, for a folder that is no finished run, damaged records, or a folder that is not
            empty.
    """
    from speed.runs.cards import write_dataset

    if licence is None:
        raise UserError(
            "--stage dataset needs --licence: whoever publishes decides, and the teacher's terms may bind\n"
            "  give an identifier of the hub, for instance --licence cc-by-4.0"
        )
    refuse_full(to)
    try:
        with write_aside(to) as aside:
            write_dataset(run, licence, aside)
    except CorruptArtifact as corrupt:
        raise UserError(f"{corrupt}\n  build it again: python -m speed.run verify=true") from corrupt
    return to


def refuse_full(to: Path) -> None:
    """Refuse to write into what is there.

    Raises:
        UserError: for a file, or a folder that is not empty.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} is there already: give a new folder, or empty it")


def export(
    artifact: Path,
    stage: str | None,
    to: Path,
    adapter: bool,
    precision: Precision,
    url: str | None = None,
    served: str | None = None,
) -> Path:
    """Write the model and its card into the new folder `to`.

    Args:
        url: of a server that holds the embedder; it may serve `to`, which is then written anew.
        served: the embedder's name there.

    Raises:
        UserError: for an artifact without a model or with a damaged file, a folder that is not empty, an
            `adapter` of a model without one, or an embedder that other programs load as another model.
    """
    from speed.core.manifest import check, read_manifest

    payload = payload_of(artifact, stage)
    embedder = (payload / "model" / "modules.json").is_file()
    if url is not None and not embedder:
        raise UserError(
            f"--url is for an embedder, and {payload} is no embedder\n  leave it out, or give --stage embedder"
        )
    there_already = url is not None and HEADING in _card_of(to)
    if not there_already:
        refuse_full(to)
    try:
        manifest = read_manifest(payload / "manifest.json")
        check(payload, () if manifest is None else manifest.outputs)
    except CorruptArtifact as corrupt:
        raise UserError(f"{corrupt}\n  build it again: python -m speed.run verify=true") from corrupt
    if there_already:
        told = parity(payload, to, manifest, url, served or str(to))
        with write_aside(to / "README.md") as aside:
            aside.write_text(_with_parity(_card_of(to), told), encoding="utf-8")
        return to
    with write_aside(to) as aside:
        if embedder:
            copy_embedder(payload, aside, adapter)
            for_older_readers(aside)
            told = parity(payload, aside, manifest, url, served or str(to))
            (aside / "README.md").write_text(_with_parity(_card_of(aside), told), encoding="utf-8")
        else:
            from speed.backends.alignment.export import write_generator

            write_generator(payload, aside, adapter, precision, "generator" if manifest is None else manifest.label)
            for_older_readers(aside)
        tell_origin(aside / "README.md", manifest)
    return to


def copy_embedder(payload: Path, to: Path, adapter: bool) -> None:
    """An embedder, with the card of its training: it has the layout of sentence-transformers already.

    Raises:
        UserError: for the adapter of an embedder that was trained without one.
    """
    source = payload / ("adapter" if adapter else "model")
    if not source.is_dir():
        raise UserError(f"{payload} has no adapter: it was trained on all weights; leave --adapter out")
    shutil.copytree(source, to)


def parity(payload: Path, folder: Path, manifest: Manifest | None, url: str | None, served: str) -> str:
    """The section of an embedder's card that says how near every program comes to the training's vectors.

    Raises:
        UserError: for a program that embeds otherwise.
    """
    from speed.backends.encoding.endpoint import EndpointModel
    from speed.backends.encoding.parity import LEAST, agreements, meant, usage
    from speed.backends.runtime.device import device_for
    from speed.core.store import Store
    from speed.runtime import Context, Runtime

    runtime = Runtime()
    device = device_for(runtime)
    expected = meant(payload / "model", manifest.recipe.get("trainer", {}) if manifest else {}, device)
    model = None if url is None else EndpointModel(url, served)
    ctx = Context(store=Store(runtime.home), runtime=runtime)
    rows = [
        f"| {row.program} | {row.lowest:.6f} | {row.mean:.6f} | {row.texts} |"
        for row in agreements(folder, expected, device, model, ctx)
    ]
    return "\n".join(
        [
            HEADING,
            "",
            f"Cosines with the vectors that the training meant; below {LEAST:g} nothing is exported. Texts are of one "
            "character to beyond the limit, with and without the instruction; those that a server refuses as too long "
            "are left out.",
            "",
            "| loaded by | lowest cosine | mean | texts |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            "With transformers alone:",
            "",
            usage(expected),
            "",
        ]
    )


def _card_of(folder: Path) -> str:
    file = folder / "README.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _with_parity(card: str, section: str) -> str:
    """The card with this section in the place of the one that it has, or at its end."""
    before, found, rest = card.partition(HEADING)
    _, _, after = rest.partition("\n## ") if found else ("", "", "")
    return f"{before.rstrip()}\n\n{section}" + (f"\n## {after}" if after else "")


def tell_origin(file: Path, manifest: Manifest | None) -> None:
    """Add to a model card what the model is, and what the manifest says of its training."""
    from huggingface_hub import ModelCard

    card = ModelCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    card.data["tags"] = [*(card.data.get("tags") or ()), "speed", "synthetic-data"]
    role = ROLES.get(manifest.stage, "") if manifest else ""
    lines = ["", "## Origin", "", f"Made by the method of {PAPER}{': ' if role else ''}{role}.", ""]
    card.text = "\n".join([card.text.rstrip(), *lines, *(_training(manifest) if manifest else ())])
    file.write_text(str(card), encoding="utf-8")


def _training(manifest: Manifest) -> list[str]:
    """Lines of Markdown: rows, figures, code and recipe."""
    rejected = ", ".join(f"{count} {cause}" for cause, count in sorted(manifest.rejected.items())) or "none"
    lines = [f"- rows: {manifest.counts.get('in', 'unknown')} (left out: {rejected})"]
    for name, value in manifest.metrics.items():
        lines.append(f"- {name}: {f'{value:.6g}' if isinstance(value, float) else json.dumps(value)}")
    lines += [f"- seconds: {manifest.seconds:.0f}", f"- key: `{manifest.key}`", f"- finished: {manifest.finished}"]
    if manifest.maker is not None:
        packages = ", ".join(f"{name} {version}" for name, version in manifest.maker.packages.items())
        lines.append(f"- code: {manifest.maker.commit}, Python {manifest.maker.python}, {packages}")
    recipe = json.dumps(manifest.recipe, indent=1, ensure_ascii=False, sort_keys=True)
    return [*lines, "", "## Recipe", "", "```json", recipe, "```", ""]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the command."""
    given = parser().parse_args(arguments)
    with one_message("exporting"):
        try:
            if given.stage == "dataset":
                written = export_dataset(given.artifact, given.licence, given.to)
            else:
                written = export(
                    given.artifact, given.stage, given.to, given.adapter, given.precision, given.url, given.served
                )
        except OSError as error:
            place = error.filename or given.to
            raise explained(error, "exporting") or UserError(
                f"{place} cannot be written: {error.strerror or error}\n  give another folder as --to"
            ) from error
        print(f"written: {written}")


if __name__ == "__main__":
    main()
