"""Labelled data beside the synthetic, in a plan: which sets are there and how large, and which are missing where."""

from __future__ import annotations

from speed.config import Config
from speed.core.errors import UserError
from speed.runs.tables import WIDTH, Table, paragraph

PAPER = "the paper has 1.28M and 920K: 2.2M (Table 1)"
FEWEST = 0.5
"""Share of the expected records under which a file is taken for another one, or for one that was sampled already."""


def source_lines(config: Config, rows: int) -> list[str]:
    """A table of `embedder.sources` with the records that an epoch sees of each; nothing where there are none.

    Args:
        rows: size of the corpus that they stand beside, before deduplication where it is not given.
    """
    sources = getattr(config.embedder, "sources", ())
    if not sources:
        return []
    table = Table("labelled data", "state", "records", "weight", "an epoch sees", "expected")
    few, an_epoch = [place for place, *_ in small_sources(config)], 0
    for place, source in enumerate(sources):
        lines, seen = source.lines(), source.seen()
        state = "missing" if seen is None else "too few" if place in few else "there"
        counts = (_shown(lines), f"{source.weight:g}", _shown(seen), _shown(source.expected))
        table.add(str(source.path.path.expanduser()), state, *counts)
        an_epoch += (source.expected or 0) if seen is None else seen
    examples, beside = rows, "raw synthetic examples"
    if config.given.parts:
        beside = "given examples"
    elif config.scale.keep is not None:
        examples, beside = config.scale.keep, "synthetic examples (scale.keep)"
    missing = len(missing_sources(config))
    seen, steps = config.embedder.seen(examples), config.embedder.steps(examples)
    labelled = round(seen * an_epoch / max(1, examples + an_epoch))
    absent = f", {missing} of {len(sources)} sets as they are expected, since they are missing" if missing else ""
    told = (
        f"together {labelled:,} labelled records to train on beside {examples:,} {beside}{absent}: "
        f"{steps:,} steps; {PAPER}"
    )
    return ["", table.text(WIDTH), paragraph(told)]


def _shown(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def small_sources(config: Config) -> list[tuple[int, str, int, int]]:
    """Place, file, records an epoch sees and expected ones of the sources that give far fewer than expected."""
    found = []
    for place, source in enumerate(getattr(config.embedder, "sources", ())):
        seen = source.seen()
        if seen is not None and source.expected is not None and seen < FEWEST * source.expected:
            found.append((place, str(source.path.path), seen, source.expected))
    return found


def refuse_small_sources(config: Config) -> None:
    """All labelled sets that give an epoch far fewer records than expected, unless they are asked for by name.

    Raises:
        UserError: naming each file.
    """
    if small := small_sources(config):
        place = small[0][0]
        raise UserError(
            f"labelled sets give an epoch less than half of the records expected ({len(small)}): "
            f"{listed_small(config)}\n"
            f"  fetch the whole set; for a copy that was sampled already set embedder.sources.{place}.weight=1; "
            f"embedder.sources.{place}.expected=null takes it as it is"
        )


def listed_small(config: Config) -> str:
    """The sets that are refused for their size; a plan has them in its table."""
    small = small_sources(config)
    return "; ".join(f"{file}: {seen:,} instead of about {expected:,}" for _, file, seen, expected in small)


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
