"""vLLM with one model in memory, started again with half as much at once where that did not fit, once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from speed.backends.runtime.at_once import AtOnce
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.runtime import Context

T = TypeVar("T")


class NoRoom(Exception):
    """Memory does not suffice."""


class Amounts(NamedTuple):
    """What vLLM holds and computes at once, by the engine's names."""

    cache_tokens: int
    step_tokens: int
    step_texts: int

    def halved(self, longest: int) -> Amounts:
        """Half of each, but enough for a text of the longest kind: which texts are taken, and how long they may be,
        stays as it is. vLLM cuts no prompt into pieces here, so a pass has room for the longest one."""
        texts = max(1, self.step_texts // 2)
        return Amounts(max(longest, self.cache_tokens // 2), max(longest, self.step_tokens // 2), texts)

    def __str__(self) -> str:
        return " ".join(f"engine.{name}={value}" for name, value in self._asdict().items())


class Server:
    """Starts vLLM, and does work with it; a context manager, since it must be taken down.

    Memory is taken by the keys and values of `cache_tokens` when it starts, and by a pass over `step_tokens` with the
    logits of `step_texts`, which it tries when it starts and repeats while it writes. That half of all fits is
    remembered for the rest of the stage, its other workers, and the same stage after a kill.
    """

    def __init__(self, start: Callable[[Amounts], Any], most: Amounts, longest: int, what: Json, ctx: Context) -> None:
        """
        Args:
            start: starts vLLM, a `vllm.LLM`.
            longest: tokens of the longest text that may be asked for.
            what: names model and settings; see `AtOnce`.
        """
        self.start, self.most, self.less, self.ctx = start, most, most.halved(longest), ctx
        # by texts, since tokens may be as few as the longest text from the first
        self.at_once = AtOnce(ctx, what, most.step_texts, "texts a pass", lambda value: str(self.amounts))
        self._llm: Any = None

    @property
    def amounts(self) -> Amounts:
        """What it is started with."""
        return self.most if self.at_once.value == self.most.step_texts else self.less

    def __enter__(self) -> Server:
        self.do(lambda llm: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self.at_once.tell()

    def do(self, work: Callable[[Any], T]) -> T:
        """Do work with vLLM, and begin it again where memory did not suffice for it at first.

        Raises:
            UserError: where half as much does not fit either, or vLLM cannot serve the model.
        """
        while True:
            try:
                with explain_errors():
                    if self._llm is None:
                        self._llm = self.start(self.amounts)
                    return work(self._llm)
            except NoRoom as error:
                if self.at_once.value == self.less.step_texts:
                    raise UserError(
                        f"the model and the keys and values of engine.cache_tokens={self.less.cache_tokens} do not fit "
                        "into memory\n  lower engine.cache_tokens, engine.step_tokens or engine.step_texts, have more "
                        "GPUs share the model (a smaller runtime.device_gb),\n  or take engine.quantization=fp8"
                    ) from error
            # not above: what failed is kept in memory by the error
            self._stop()
            self.ctx.say(self.at_once.lower(self.less.step_texts))

    def _stop(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()
        cleanup_dist_env_and_memory()


@contextmanager
def explain_errors() -> Iterator[None]:
    """Raise what vLLM says of an unsuitable machine or model as one UserError with a remedy.

    Raises:
        NoRoom: where memory did not suffice. Of several GPUs that share a model vLLM passes on what their processes
            say, but for the loading of the weights, where less at once would not help: that stays an error of vLLM's.
    """
    import torch

    try:
        yield
    except ImportError as error:
        raise UserError(f"vLLM is installed and cannot be imported: {error}\n  install it again") from error
    except torch.OutOfMemoryError as error:
        raise NoRoom from error
    except (ValueError, RuntimeError) as error:
        if "memory" in str(error).lower() and "illegal memory" not in str(error):
            raise NoRoom from error
        if isinstance(error, ValueError | NotImplementedError):
            raise UserError(f"vLLM cannot serve this model: {error}\n  take engine=gpu for it") from error
        raise  # a fault, whose traceback is needed
