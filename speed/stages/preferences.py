"""Preferences: the teacher says which root answer fits its prompt best and which worst (paper 3.2.3, Figure 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import ClassVar, NamedTuple

from speed.core.spec import Json
from speed.core.stage import Pool
from speed.core.work import Work
from speed.data.answers.parse import parse_judgement
from speed.data.answers.schemas import judgement_form
from speed.data.judging import statistics
from speed.data.judging.votes import (
    CHOICES,
    Judge,
    Shortlist,
    draw_orders,
    first_alike,
    read_candidates,
    shortlist,
    verdict,
)
from speed.data.prompts.rendering import RolePrompts, judge_prompt
from speed.data.quality.guidelines import Guidelines
from speed.data.records import Candidates, Pair, Rejected, Sample, Vote
from speed.ports import Answer, Ask, Check, Teacher
from speed.runtime import Context
from speed.stages.asking import ask_all_in_order, readable
from speed.stages.base import in_its_round, price_of, tokens_about


class Drawn(NamedTuple):
    """A list with the votes that it will be asked for."""

    found: Candidates
    read: Sequence[Sample]
    short: Shortlist | Rejected
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Preferences(Pool[Pair]):
    """One row, one list, one pair. Candidates are shown in an order drawn per call: judges favour places."""

    root: Pool[Candidates]
    teacher: Teacher
    judge: Judge
    prompts: RolePrompts
    max_tokens: int
    seed: int
    guidelines: Guidelines
    """An answer that breaks one of those that drop is never the chosen one."""

    name: ClassVar[str] = "preferences"
    row: ClassVar[type[Pair]] = Pair
    choices: ClassVar[frozenset[str]] = CHOICES
    purpose: ClassVar[str] = "judge"

    @property
    def label(self) -> str:
        return in_its_round(self.name, self.root)

    @property
    def judges(self) -> list[Teacher]:
        """Who votes, in turn."""
        return [self.teacher.named(model) for model in self.judge.models] or [self.teacher]

    def work(self, start: int, stop: int) -> Work:
        turns = Counter(vote % len(self.judges) for vote in range(self.judge.votes))
        calls = {judge: (stop - start) * times for judge, times in turns.items()}
        tokens = tokens_about(self.root, self.purpose)
        prices = (price_of(self.judges[judge], self.purpose, n, tokens) for judge, n in calls.items())
        return sum(prices, Work())

    def figures(self, counts: Mapping[str, int], rejected: Mapping[str, int]) -> dict[str, Json]:
        return statistics.list_figures(counts, rejected)

    def sample_prompts(self, rows: int, ctx: Context) -> Iterator[tuple[str, str]]:
        built = list(ctx.rows(self.take(rows)))
        if built:
            return ((pair.prompt.kind, pair.votes[0].prompt) for pair in built if pair.prompt.kind and pair.votes)
        lists = self.root.sample_rows(rows, ctx)
        asked = ((found.prompt, judge_prompt(found.prompt.text, found.texts, self.prompts.config)) for found in lists)
        return ((about.kind, prompt.text) for about, prompt in asked if about.kind)

    def known_asks(self, start: int, stop: int, ctx: Context) -> Iterator[tuple[Teacher, Ask] | None]:
        judges = self.judges
        for one in map(self._drawn, ctx.rows(self.root.take(stop), start)):
            for place in range(self.judge.votes):
                asked = place < len(one.votes)
                yield (judges[place % len(judges)], self._request(one, place)[0]) if asked else None

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Pair]:
        drawn = map(self._drawn, ctx.rows(self.root.take(stop), start))
        kept, *given = tee(drawn, len(self.judges) + 1)
        answers = (self._answers(place, lists, ctx) for place, lists in enumerate(given))
        for done, (one, *answered) in enumerate(zip(kept, *answers, strict=True), 1):
            in_turn = [answered[place % len(answered)].pop(0) for place in range(len(one.votes))]
            votes = [self._read(vote, answer, ctx) for vote, answer in zip(one.votes, in_turn, strict=True)]
            yield self._pair(one, tuple(votes), ctx)
            ctx.progress(done, stop - start, "lists")

    def _drawn(self, found: Candidates) -> Drawn:
        """Renders everything that will be asked about a list."""
        if found.rejected is not None or not found.texts:
            return Drawn(found, (), Rejected(cause=found.rejected or "no_candidates"), ())
        read = read_candidates(found)
        short = shortlist(read, self.judge)
        if isinstance(short, Rejected) or not short.shown:
            return Drawn(found, read, short, ())
        models = self.judge.models or ("",)
        votes = []
        for place, order in enumerate(
            draw_orders(short.shown, len(found.texts), self.judge.votes, self.seed, found.row)
        ):
            shown = [found.texts[index] for index in order]
            text = judge_prompt(found.prompt.text, shown, self.prompts.config).text
            votes.append(Vote(model=models[place % len(models)], order=order, prompt=text))
        return Drawn(found, read, short, tuple(votes))

    def _answers(self, judge: int, lists: Iterator[Drawn], ctx: Context) -> Iterator[list[Answer]]:
        """For each list the answers of one judge to its share of the votes."""
        step = len(self.judges)
        items = ((one, [self._request(one, place) for place in range(judge, len(one.votes), step)]) for one in lists)
        return (answers for _, answers in ask_all_in_order(self.judges[judge], items, ctx))

    def _request(self, one: Drawn, place: int) -> tuple[Ask, Check]:
        vote = one.votes[place]
        ask = Ask(
            prompt=vote.prompt,
            temperature=self.judge.temperature,
            max_tokens=self.max_tokens,
            purpose=self.purpose,
            kind=one.found.prompt.kind,
            index=one.votes[:place].count(vote),
            form=judgement_form(len(vote.order)),
        )
        return ask, readable(lambda text: parse_judgement(text, len(vote.order), "stop"))

    def _read(self, vote: Vote, answer: Answer, ctx: Context) -> Vote:
        vote = vote.model_copy(update={"answer": answer.text, "detail": answer.detail})
        if answer.cause != "ok":
            return vote.model_copy(update={"cause": answer.cause})
        found = parse_judgement(answer.text, len(vote.order), answer.finish_reason, ctx.tally.counts)
        if isinstance(found, Rejected):
            return vote.model_copy(update={"cause": found.cause, "detail": found.detail})
        return vote.model_copy(update={"best": vote.order[found.best], "worst": vote.order[found.worst]})

    def _pair(self, one: Drawn, votes: tuple[Vote, ...], ctx: Context) -> Pair:
        found = one.found
        pair = Pair(row=found.row, prompt=found.prompt, votes=votes)
        if not one.read:
            return pair.reject(found.rejected or "no_candidates")
        same = first_alike(one.read)
        chosen = one.short if isinstance(one.short, Rejected) else verdict(votes, one.short, same, self.judge)
        if isinstance(chosen, Rejected):
            pair = pair.reject(chosen.cause, chosen.detail)
        else:
            pair = self._named(pair, one, *chosen)
        ctx.tally.counts.update(statistics.list_counts(pair, same))
        return pair

    def _named(self, pair: Pair, one: Drawn, best: int, worst: int) -> Pair:
        """The pair of two candidates, with their faults."""
        faults = [(row.rejected,) if row.rejected else row.faults for row in one.read]
        named = pair.model_copy(
            update={
                "best": best,
                "worst": worst,
                "chosen": one.found.texts[best],
                "rejected_text": one.found.texts[worst],
                "chosen_faults": faults[best],
                "rejected_faults": faults[worst],
            }
        )
        if dropped := next(filter(self.guidelines.drops, faults[best]), None):
            return named.reject(dropped, "the best answer breaks a guideline that drops")
        remarks = (vote.detail for vote in pair.votes if vote.detail and not vote.cause)
        return named.with_remark("; ".join(dict.fromkeys(remarks)))
