"""Lists to be judged, and a teacher that says what a test wants to hear."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import PrivateAttr

from speed.core.build import build
from speed.core.graph import Goal, goals
from speed.core.manifest import Manifest
from speed.core.stage import Pool, silence
from speed.core.store import Store
from speed.core.work import Work
from speed.data.prompts.rendering import Choices, Lengths, PromptsConfig, data_prompt
from speed.data.records import Candidates, Kind, Pair
from speed.miniature.quality import points
from speed.miniature.rules import answer_prompt
from speed.miniature.world import world
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context, Runtime

PROMPTS = PromptsConfig(
    lengths=Lengths(retrieval_words=(12,), classification_words=Choices(values=("at least 12",)), long_words=24)
)


@dataclass(frozen=True)
class Lists(Pool[Candidates]):
    """Root data that is given."""

    given: tuple[Candidates, ...]

    name: ClassVar[str] = "root data"
    row: ClassVar[type[Candidates]] = Candidates

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Candidates]:
        yield from self.given[start:stop]


class Scripted(Teacher):
    """Answers by a function of (model, request)."""

    model: str = "scripted"
    script: str = ""
    """Name of the function, so that another one is another teacher."""
    _says: Callable[[str, Ask], str] = PrivateAttr()
    _heard: list[tuple[str, Ask]] = PrivateAttr(default_factory=list)

    @classmethod
    def saying(cls, says: Callable[[str, Ask], str]) -> Scripted:
        made = cls(script=says.__name__)
        made._says = says
        return made

    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        for ask, check in requests:
            self._heard.append((self.model, ask))
            text = self._says(self.model, ask)
            ctx.tally.cost["calls"] += 1
            yield Answer(text=text, cause=check(text) or "ok", finish_reason="stop", tokens_out=1)

    def named(self, model: str) -> Scripted:
        return self.model_copy(update={"model": model})

    def price(self, calls: int, tokens_in: int, tokens_out: int) -> Work:
        return Work(calls, tokens_in, tokens_out, 0.0)


def names(best: int, worst: int) -> str:
    """A judgement by places."""
    return json.dumps({"reason": "r", "best": best, "worst": worst})


def built(store: Store, pool: Pool[Any], rows: int, **runtime: Any) -> tuple[list[Any], list[Manifest]]:
    """The rows of a pool that is built here, and the manifests of its shards."""
    for goal in goals([pool.take(rows)]):
        build(Goal(goal.node, goal.rows, ()), store, Runtime(home=store.home, **runtime), silence)
    manifests = (store.shard_manifest(pool, span) for span in store.shards(pool))
    return list(store.rows(pool.take(rows))), [manifest for manifest in manifests if manifest is not None]


def known_list(row: int) -> Candidates:
    """A right answer, three about something else, and one that cannot be read."""
    entities = world().half("train")
    prompt, other = (
        data_prompt(Kind.STS, "", entities[place].topic, PROMPTS, random.Random(row))
        for place in (row, row + len(entities) // 2)
    )
    right = answer_prompt(prompt.text, row)
    texts = (
        answer_prompt(other.text, 1),
        answer_prompt(other.text, 2),
        right,
        right[:-9],
        answer_prompt(other.text, 3),
    )
    return Candidates(row=row, prompt=prompt, texts=texts, finish_reasons=("stop",) * 5)


def truthful(rows: list[Pair], given: list[Candidates]) -> tuple[float, float]:
    """Share of the kept pairs that name a truly best and a truly worst answer, and share of the lists kept."""
    right, kept = 0, [pair for pair in rows if pair.rejected is None]
    for pair in kept:
        truth = [points(pair.prompt, text) for text in given[pair.row].texts]
        right += truth[pair.best] == max(truth) and truth[pair.worst] == min(truth)
    return right / len(kept), len(kept) / len(rows)
