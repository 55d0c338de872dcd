"""Preferences: the teacher says which root answer fits its prompt best and which worst (paper 3.2.2, Figure 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from speed.core.context import Context
from speed.core.stage import Pool, Work
from speed.data.cost import EXPECTED_TOKENS
from speed.data.draws import shuffled_order
from speed.data.parse import judgement
from speed.data.prompts import RolePrompts, judge_prompt
from speed.data.records import Candidates, Pair, Rejected
from speed.ports import Answer, Ask, Check, Teacher, in_step


@dataclass(frozen=True)
class Preferences(Pool[Pair]):
    """One row, one list, one judgement. Candidates are shown in an order drawn per call: judges favour places."""

    root: Pool[Candidates]
    teacher: Teacher
    prompts: RolePrompts
    temperature: float
    """0.0 in the paper (Appendix B)."""
    max_tokens: int
    seed: int

    name: ClassVar[str] = "preferences"
    row: ClassVar[type[Pair]] = Pair

    def work(self, start: int, stop: int) -> Work:
        tokens_in, tokens_out = EXPECTED_TOKENS["judge"]
        return self.teacher.price(stop - start, tokens_in * (stop - start), tokens_out * (stop - start))

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Pair]:
        lists = (found for found in ctx.rows(self.root.take(stop)) if found.row >= start)
        requests = ((item, self._request(*item)) for item in map(self._shown, lists))
        for done, ((found, pair), answer) in enumerate(in_step(self.teacher, requests, ctx), 1):
            yield self._row(found, pair, answer)
            ctx.progress(done, stop - start, "judgements")

    def _shown(self, found: Candidates) -> tuple[Candidates, Pair]:
        order = shuffled_order(len(found.texts), self.seed, "judge", found.row)
        shown = [found.texts[index] for index in order]
        text = judge_prompt(found.prompt.text, shown, self.prompts.config).text
        return found, Pair(row=found.row, prompt=found.prompt, order=tuple(order), judge_prompt=text)

    def _request(self, found: Candidates, pair: Pair) -> tuple[Ask, Check] | None:
        if found.rejected is not None:
            return None

        def fault(text: str) -> str | None:
            outcome = judgement(text, len(found.texts), "stop")
            return outcome.cause if isinstance(outcome, Rejected) else None

        ask = Ask(
            prompt=pair.judge_prompt,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            purpose="judge",
            kind=found.prompt.kind,
        )
        return ask, fault

    def _row(self, found: Candidates, pair: Pair, answer: Answer | None) -> Pair:
        if answer is None:
            return pair.turned_away(found.rejected or "no_candidates")
        pair = pair.model_copy(update={"answer": answer.text})
        if answer.cause == "ok":
            pair = pair.noted(answer.detail)
        if answer.cause != "ok":
            return pair.turned_away(answer.cause, answer.detail)
        verdict = judgement(answer.text, len(found.texts), answer.finish_reason)
        if isinstance(verdict, Rejected):
            return pair.turned_away(verdict.cause, verdict.detail)
        best, worst = pair.order[verdict.best], pair.order[verdict.worst]
        chosen, worse = found.texts[best], found.texts[worst]
        pair = pair.model_copy(update={"best": best, "worst": worst, "chosen": chosen, "rejected_text": worse})
        same = " ".join(chosen.split()) == " ".join(worse.split())
        return pair.turned_away("identical", "the best and the worst answer are the same text") if same else pair
