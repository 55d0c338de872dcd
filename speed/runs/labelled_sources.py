"""Labelled data beside the synthetic, in a plan: which sets are there and how large, and which are missing where."""

from __future__ import annotations

from speed.config import Config
from speed.core.errors import UserError
from speed.data.text_files import text_lines
from speed.runs.tables import WIDTH, Table, paragraph

PAPER = "the paper has 1.28M and 920K: 2.2M (Table 1)"


def source_lines(config: Config) -> list[str]:
    """A table of `embedder.sources` with the records that an epoch sees of each; nothing where there are none."""
    sources = getattr(config.embedder, "sources", ())
    if not sources:
        return []
    table, seen, missing = Table("labelled data", "state", "records", "weight", "an epoch sees"), 0, 0
    for source in sources:
        file = source.path.path.expanduser()
        if not file.is_file():
            missing += 1
            table.add(str(file), "missing", "-", f"{source.weight:g}", "-")
            continue
        records = sum(1 for line in text_lines(file) if line.text.strip())
        seen += round(records * source.weight)
        table.add(str(file), "there", f"{records:,}", f"{source.weight:g}", f"{round(records * source.weight):,}")
    synthetic = round(config.scale.examples * config.scale.factor)
    told = [
        f"together {seen:,} labelled records an epoch beside {synthetic:,} raw synthetic examples; {PAPER}"
        + (
            f". {missing} of {len(sources)} sets are missing: python -m speed.labelled FILE --to PATH writes one"
            if missing
            else ""
        )
    ]
    return ["", table.text(WIDTH), *map(paragraph, told)]


def missing_sources(config: Config) -> list[str]:
    """The files of `embedder.sources` that are not there."""
    files = (source.path.path for source in getattr(config.embedder, "sources", ()))
    return [str(file) for file in files if not file.expanduser().is_file()]


def refuse_missing_sources(config: Config) -> None:
    """All labelled sets that are missing, in one message.

    Raises:
        UserError: naming each file.
    """
    if missing := missing_sources(config):
        raise UserError(
            f"labelled sets are missing ({len(missing)}): {', '.join(missing)}\n"
            "  python -m speed.labelled FILE --to PATH writes one (docs/topics_and_data.md), or take it out of "
            "embedder.sources"
        )
