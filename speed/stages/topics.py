"""Topics: the multi-grained categories that keep a teacher's tasks diverse (paper 3.2.1, Appendix D.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from speed.core.spec import Json
from speed.core.stage import Stage
from speed.data.records import Topic
from speed.data.topics.documents import PASSAGES, Documents, passages
from speed.data.topics.sources import TopicsConfig, read_topics, topic_text
from speed.runtime import Context, Runtime


@dataclass(frozen=True)
class Topics(Stage[Topic]):
    """Read the source, leave out what the config excludes, cut long paths, drop repeats."""

    config: TopicsConfig
    truncate: bool
    """Keep the first two and last two levels of a path deeper than four (paper, Appendix D.1)."""

    name: ClassVar[str] = "topics"

    @cached_property
    def own_recipe(self) -> Mapping[str, Json]:
        """Without truncation there was another list once, which told all paths apart; and of documents one with hidden
        folders, and with passages on both sides of the test."""
        distinct = {} if self.truncate else {"distinct": "when shortened"}
        read = {} if self.config.documents is None else {"documents": "not hidden, passages on one side"}
        return {**super().own_recipe, **distinct, **read}

    def check(self, runtime: Runtime) -> None:
        next(read_topics(self.config))

    def topics(self, met: Counter[str] | None = None) -> Iterator[Topic]:
        """The topics in the order of the source; `met` counts what was read and skipped (`read_topics`).

        Paths that are the same when shortened count once, whether they are shortened or not: so both draw the same
        paths, and differ in the text of the long ones alone (paper, Table 3).
        """
        met = Counter() if met is None else met
        seen: set[str] = set()
        for path in read_topics(self.config, met):
            short = topic_text(path, True, self.config.prettify)
            if short in seen:
                met["same when shortened"] += 1
                continue
            topic = short if self.truncate else topic_text(path, False, self.config.prettify)
            yield Topic(row=len(seen), path=path, topic=topic)
            seen.add(short)

    def _write_passages(self, how: Documents, file: Path, ctx: Context) -> None:
        """All passages, with their topics as prompts show them."""
        assert self.config.path is not None
        documents: dict[str, bool] = {}
        with file.open("w", encoding="utf-8") as lines:
            for passage in passages(self.config.path.path.expanduser(), how):
                documents[passage.document] = passage.held_out
                shown = topic_text(passage.topic, self.truncate, self.config.prettify)
                lines.write(passage.model_copy(update={"topic": shown}).model_dump_json() + "\n")
                ctx.tally.counts["passages_held_out" if passage.held_out else "passages"] += 1
        ctx.tally.counts.update({"documents": len(documents), "documents_held_out": sum(documents.values())})

    def run(self, out: Path, ctx: Context) -> None:
        met: Counter[str] = Counter()
        count = 0
        with (out / "topics.jsonl").open("w", encoding="utf-8") as file:
            for topic in self.topics(met):
                file.write(topic.model_dump_json() + "\n")
                count += 1
                if count % 1_000 == 0:
                    ctx.progress(count, 0, "topics")
        ctx.progress(count, count, "topics")
        if self.config.documents is not None:
            self._write_passages(self.config.documents, out / PASSAGES, ctx)
        ctx.tally.counts.update({"in": met.pop("read"), "out": count, "malformed": met.pop("malformed", 0)})
        del met["kept"]
        ctx.tally.rejected.update(met)
