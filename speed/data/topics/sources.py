"""Read topics of the Open Directory Project, shorten them, and draw them (paper, section 3.2.1 and Appendix D.1).

Topics are drawn uniformly and without replacement until all are used, then again in another order. Each kind has its
own draws, and topic i depends on (seed, role, kind, i) only.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from pydantic import Field

from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.spec import Json, Spec, fields_of
from speed.data.draws import shuffled_order
from speed.data.records import Kind
from speed.data.topics.documents import Documents, content_of, passages
from speed.data.topics.file_formats import paths_in

LEVELS = 4
"""Most levels of a shortened topic."""


class TopicsConfig(Spec):
    """Source of the topics, and which of them are used."""

    path: Content | None = None
    """A list, a TSV or an ODP dump (`structure.rdf.u8`, `content.rdf.u8`), plain or packed. None: the built-in list."""
    format: Literal["auto", "list", "tsv", "rdf"] = "auto"
    """`list`: one path per line; `tsv`: the path in the first column; `auto`: decided by the beginning of the file."""
    exclude: tuple[str, ...] = ("World/", "Kids_and_Teens/International/", "Adult/")
    """Branches that are not used; the first two are not in English."""
    drop_single_letters: bool = False
    """Skip topics whose last level is a single character: ODP's alphabetical index pages."""
    min_depth: int = Field(1, ge=1)
    max_depth: int | None = Field(None, ge=1)
    prettify: bool = False
    """Show underscores as spaces in prompts; the paper shows raw paths (Table 7)."""
    documents: Documents | None = None
    """How documents at `path` are cut (topics=corpus); None where it holds topics. In keys only where set."""
    recur: bool = False
    """Pay a teacher even where each topic is used more than five times within a kind; in no key."""

    def recipe(self) -> Json:
        """Identity: these rules, and the content of the source or of the built-in list."""
        fields = {**fields_of(self), **({} if self.path else {"path": {"sha256": _built_in_sha256()}})}
        del fields["recur"]
        if self.documents is None:
            del fields["documents"]
        elif self.path is not None:
            fields["path"] = {"documents": content_of(self.path.path)}
        return fields


@lru_cache(maxsize=1)
def _built_in_sha256() -> str:
    return hashlib.sha256((files("speed.data.topics") / "odp_sample.txt").read_bytes()).hexdigest()


def read_topics(config: TopicsConfig, counts: Counter[str] | None = None) -> Iterator[str]:
    """Read the topics of a source, each once, in order. Memory: one block of the file, and 8 bytes for each topic.

    `counts` is filled with the numbers of topics that were `read`, `kept` and `malformed` (kept without the broken
    characters), and of those that were skipped: `duplicate`, `excluded`, `single_letter`, `too_shallow`, `too_deep`,
    `empty_level`.

    Raises:
        UserError: the file is missing, unreadable, damaged, of another format, or holds no topic that can be used.
    """
    counts = Counter() if counts is None else counts
    where = f"topics.path={config.path.path}" if config.path else "the built-in topics"
    seen: set[int] = set()
    paths = paths_in(config.path.path if config.path else None, config.format, counts)
    if config.documents is not None and config.path is not None:
        cut = passages(config.path.path.expanduser(), config.documents)
        paths = iter(dict.fromkeys(passage.topic for passage in cut if not passage.held_out))
    for path in paths:
        counts["read"] += 1
        cause = _cause_to_skip(path, config)
        if cause is None:
            mark = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big")
            cause = "duplicate" if mark in seen else None
            seen.add(mark)
        if cause is not None:
            counts[cause] += 1
            continue
        counts["kept"] += 1
        yield path
    if not counts["kept"]:
        met = ", ".join(f"{count} {cause}" for cause, count in sorted(counts.items()) if count) or "nothing was in it"
        raise UserError(
            f"{where}: no topic is left ({met})\n"
            "  give a file with one topic path per line, a TSV with the path in its first column, or an ODP RDF dump,\n"
            "  and look at topics.format, topics.exclude, topics.min_depth and topics.max_depth"
        )


def _cause_to_skip(path: str, config: TopicsConfig) -> str | None:
    levels = path.split("/")
    if not all(levels):
        return "empty_level"
    if any(f"{path}/".startswith(f"{branch.strip('/').removeprefix('Top/')}/") for branch in config.exclude):
        return "excluded"
    if config.drop_single_letters and len(levels[-1]) == 1:
        return "single_letter"
    if len(levels) < config.min_depth:
        return "too_shallow"
    return "too_deep" if config.max_depth is not None and len(levels) > config.max_depth else None


def shorten(path: str) -> str:
    """Keep the first two and the last two levels of a topic with more than four (paper, Appendix D.1)."""
    levels = path.split("/")
    return path if len(levels) <= LEVELS else "/".join(levels[:2] + levels[-2:])


def topic_text(path: str, truncate: bool, prettify: bool = False) -> str:
    """Topic as prompts show it."""
    shown = shorten(path) if truncate else path
    return shown.replace("_", " ") if prettify else shown


@lru_cache(maxsize=16)
def topic_order(topics: int, seed: int, role: str, kind: Kind, epoch: int = 0) -> Sequence[int]:
    """Order in which `topics` topics are drawn for a role and kind, in one pass over all of them."""
    return array("Q", shuffled_order(topics, seed, "topics", role, kind.value, epoch))


def topic_index(index: int, topics: int, seed: int, role: str, kind: Kind) -> int:
    """Topic of draw `index` of a role and kind. No topic is repeated before all have been drawn."""
    epoch, place = divmod(index, topics)
    return topic_order(topics, seed, role, kind, epoch)[place]
