"""What engines have in common that load the weights of transformers' folders themselves."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from speed.backends.engines.given_weights import adopt, base_under, refuse_partial
from speed.backends.engines.weights import load_tokenizer, read_card
from speed.backends.runtime.device import device_of
from speed.backends.runtime.peak_memory import finish_computing, peak_gigabytes
from speed.core.closing import closing
from speed.data.costs.loads import Measured
from speed.ports import Engine, FormatName, Generate, Generated, Lengths, Sampling
from speed.runtime import Context

WARM_UP = 4
"""Tokens of the text that a probe has written first, while kernels are made."""


class LocalWeights(Engine):
    """An engine whose models are folders, or names on the hub, that transformers reads."""

    heavy: ClassVar[tuple[str, ...]] = ("torch", "peft", "transformers.generation", "transformers.modeling_utils")
    """Not vllm: its import changes the environment and PyTorch, and trainings are forked from the same process."""

    @property
    @abstractmethod
    def held_tokens(self) -> int:
        """Tokens, prompts and answers together, that are held at once at most."""

    @abstractmethod
    def generate(
        self,
        weights: Path,
        calls: Iterable[Sequence[Generate]],
        sampling: Sampling,
        ctx: Context,
        *,
        endless: bool = False,
    ) -> Iterator[list[Generated]]:
        """See `speed.ports.Engine`.

        Args:
            endless: whether texts go on to their last token, whatever the model says, for a probe.
        """

    def adopt(self, base: str, out: Path, layout: FormatName = "chat") -> None:
        adopt(base, out, layout)

    def base_under(self, model: str) -> str:
        return base_under(model)

    def check_model(self, base: str) -> None:
        refuse_partial(base)

    def check_base(self, base: str) -> None:
        from speed.backends.engines.base_check import check_generator

        check_generator(base, "chat")

    def probe(self, base: str, lengths: Lengths, sampling: Sampling, out: Path, ctx: Context) -> Measured:
        """One batch: as many texts of random tokens as are held at once, in one block at most."""
        self.adopt(base, out, "plain")
        texts = max(1, min(self.block, self.held_tokens // (lengths.prompt + lengths.answer)))
        asked = random_requests(out, texts, lengths)
        first = asked[0].model_copy(update={"max_tokens": WARM_UP})
        device = device_of(ctx)
        with closing(self.generate(out, iter([[first], asked]), sampling, ctx, endless=True)) as answers:
            next(answers)
            finish_computing(device)
            begun = time.perf_counter()
            written = sum(text.tokens for text in next(answers))
            finish_computing(device)
            seconds = time.perf_counter() - begun
            found = peak_gigabytes(device)
        return Measured(
            gigabytes=found,
            tokens_per_second=written / max(seconds, 1e-9),
            cut=ctx.tally.metrics.get("at_once", ""),
        )


def random_requests(weights: Path, texts: int, lengths: Lengths) -> list[Generate]:
    """Requests with prompts of random tokens; tokenised again they are about as long."""
    import numpy as np

    card = read_card(weights)
    tokenizer, draw = load_tokenizer(weights if card is None or card.trained else card.base), np.random.default_rng(0)
    found = []
    for number in range(texts):
        drawn = tokenizer.decode(draw.integers(0, tokenizer.vocab_size, lengths.prompt), skip_special_tokens=True)
        ids = tokenizer(drawn, add_special_tokens=False)["input_ids"][: lengths.prompt]
        prompt = tokenizer.decode(ids, skip_special_tokens=True)
        found.append(Generate(key=str(number), prompt=prompt, seed=number, max_tokens=lengths.answer))
    return found
