"""The miniature's teacher: rules behind a litellm provider of our own, `miniature/rules`, without network or API key.

Requests pass through litellm, the journal, pacing and the ledger, exactly like those to a paid model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import Field

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.prompts.worked_examples import without_worked_examples
from speed.data.records import Prompt
from speed.miniature.prompt_reading import read_prompt
from speed.miniature.quality import faults_of
from speed.miniature.rules import ERROR_RATE, LENGTH_BIAS, answer_prompt, knows_topic
from speed.ports import Answer, Ask, Check
from speed.runtime import Context, Runtime
from speed.teaching.entry import key
from speed.teaching.errors import Reply
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.requests import Call

PROVIDER = "miniature"

UNKNOWN = "the teacher knows nothing of this topic and writes from its words alone"
"""Detail of an answer on an unknown topic."""


class RulesTeacher(LitellmTeacher):
    """A teacher made of rules, which knows the training half of the miniature world."""

    version: ClassVar[int] = 4
    identity: ClassVar[str | None] = "RulesTeacher"

    model: str = "miniature/rules"
    system: str = ""
    """Rules need no system message."""
    seed: int = 0
    """With another seed, all answers have other words."""
    error_rate: float = Field(default=ERROR_RATE, ge=0.0, le=1.0)
    """Share of judgements that are blind guesses (ours)."""
    length_bias: float = Field(default=LENGTH_BIAS, ge=0.0)
    """Bonus of the longest answer in a judgement, in units of one fault (ours)."""

    def register(self) -> None:
        """Register `miniature` as a provider of litellm, in place of any other of that name."""
        import litellm

        others = [entry for entry in litellm.custom_provider_map if entry["provider"] != PROVIDER]
        litellm.custom_provider_map = [*others, {"provider": PROVIDER, "custom_handler": _provider()}]
        litellm.utils.custom_llm_setup()

    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        """Ask like any teacher. Answers on topics that the world does not have are counted and say so in `detail`."""
        prompts: deque[str] = deque()

        def noted() -> Iterator[tuple[Ask, Check]]:
            for request, check in requests:
                prompts.append(request.prompt)
                yield request, check

        for answer in super().ask(noted(), ctx):
            if knows_topic(prompts.popleft()):
                yield answer
            else:
                ctx.tally.counts["topics_unknown_to_teacher"] += 1
                yield answer.model_copy(update={"detail": "; ".join(filter(None, (answer.detail, UNKNOWN)))})

    def truth(self, prompt: Prompt, text: str) -> list[str] | None:
        """Every fault of an example, of form and of content, by all facts of the world."""
        if prompt.kind is None or prompt.ground is not None:
            return None  # the documents of a user are no part of the world
        return [fault.sentence for fault in faults_of(prompt, text)]

    def options(self, call: Call) -> dict[str, Any]:
        """Options that the rules need beside the prompt."""
        return {"rules": {**self._rules(), "draw": [call.ask.index, call.params.get("retry", 0)]}}

    async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
        """Send one request.

        Raises:
            UserError: for a prompt that the rules cannot read. Otherwise litellm would repeat the request.
        """
        try:
            read_prompt(call.ask.prompt)
        except ValueError as error:
            raise UserError(
                f"the rules of teacher=miniature read only prompts worded like the project's own: {error}\n"
                "  set prompts.path=null, or take another teacher"
            ) from error
        return await super().send(call, runtime, seconds)

    def _call(self, ask: Ask, retry: int, max_tokens: int) -> Call:
        """Make the call of any teacher, with the settings of the rules in its key."""
        call = super()._call(ask, retry, max_tokens)
        params = {**call.params, "rules": {**self._rules(), "version": self.version}}
        return call._replace(params=params, key=key(self.model_name, call.messages, params, ask.index))

    def _rules(self) -> dict[str, Json]:
        return {"seed": self.seed, "error_rate": self.error_rate, "length_bias": self.length_bias}


def _provider() -> Any:
    """Make the handler that litellm calls."""
    from litellm import CustomLLM, ModelResponse
    from litellm.types.utils import Choices, Message, Usage

    class RulesProvider(CustomLLM):  # type: ignore[misc]
        """Answers with `speed.miniature.rules.answer_prompt`. Four characters count as a token."""

        def completion(self, *args: Any, **given: Any) -> Any:
            messages, options = given["messages"], given["optional_params"]
            rules = options.get("rules", {})
            prompt = without_worked_examples(messages[-1]["content"])
            text = answer_prompt(
                prompt,
                seed=(rules.get("seed", 0), rules.get("draw", [0, 0])),
                error_rate=rules.get("error_rate", ERROR_RATE),
                length_bias=rules.get("length_bias", LENGTH_BIAS),
            )
            asked, said = _tokens(prompt), _tokens(text)
            limit = options.get("max_tokens")
            cut = limit is not None and said > limit
            response = ModelResponse(
                model=given["model"],
                choices=[
                    Choices(
                        index=0,
                        finish_reason="length" if cut else "stop",
                        message=Message(role="assistant", content=_first(text, limit) if cut else text),
                    )
                ],
            )
            response.usage = Usage(prompt_tokens=asked, completion_tokens=limit if cut else said)
            return response

        async def acompletion(self, *args: Any, **given: Any) -> Any:
            return self.completion(*args, **given)

    return RulesProvider()


CHARACTERS_A_TOKEN = 4


def _tokens(text: str) -> int:
    """Tokens of a text by the rule of thumb of four characters a token."""
    return -(-len(text) // CHARACTERS_A_TOKEN)


def _first(text: str, tokens: int) -> str:
    return text[: tokens * CHARACTERS_A_TOKEN]
