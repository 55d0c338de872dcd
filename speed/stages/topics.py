"""Topics: the multi-grained categories that keep a teacher's tasks diverse (paper 3.2.1, Appendix D.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from speed.core.stage import Stage
from speed.data.records import Topic
from speed.data.topics.sources import TopicsConfig, read_topics, topic_text
from speed.runtime import Context, Runtime


@dataclass(frozen=True)
class Topics(Stage[Topic]):
    """Read the source, leave out what the config excludes, cut long paths, drop repeats."""

    config: TopicsConfig
    truncate: bool
    """Keep the first two and last two levels of a path deeper than four (paper, Appendix D.1)."""

    name: ClassVar[str] = "topics"

    def check(self, runtime: Runtime) -> None:
        next(read_topics(self.config))

    def run(self, out: Path, ctx: Context) -> None:
        met: Counter[str] = Counter()
        seen: set[str] = set()
        with (out / "topics.jsonl").open("w", encoding="utf-8") as file:
            for path in read_topics(self.config, met):
                topic = topic_text(path, self.truncate, self.config.prettify)
                if topic in seen:
                    met["same when shortened"] += 1
                    continue
                file.write(Topic(row=len(seen), path=path, topic=topic).model_dump_json() + "\n")
                seen.add(topic)
                ctx.progress(len(seen), 0, "topics")
        ctx.tally.counts.update({"in": met.pop("read"), "out": len(seen), "malformed": met.pop("malformed", 0)})
        del met["kept"]
        ctx.tally.rejected.update(met)
