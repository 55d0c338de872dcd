"""A teacher behind the batch API of OpenAI, or of a server that has the same: half the price, answers within a day."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr

from speed.core.errors import UserError, mistakes_of, refuse_for
from speed.core.spec import Json
from speed.data.costs import prices as cost
from speed.ports import Answer, Ask, Check
from speed.runtime import Context, Runtime
from speed.teaching.batch_ask import WINDOW, BatchAsking
from speed.teaching.batch_server import BatchServer
from speed.teaching.batches import SETTLED, Batches
from speed.teaching.errors import Patience, public_url
from speed.teaching.journal import Journal
from speed.teaching.openai_teacher import KEY, OpenAICompatibleTeacher
from speed.teaching.pending import Batch, Pending
from speed.teaching.session import session_at
from speed.teaching.spending import Account

OPENAI, OPENAI_KEY = "https://api.openai.com/v1", "OPENAI_API_KEY"
HOW = ("wait", "poll_seconds", "window", "requests", "megabytes")
"""Fields that say how answers come, and decide over none of them."""


class OpenAIBatchTeacher(OpenAICompatibleTeacher):
    """Asks by `<url>/files` and `<url>/batches`: OpenAI, or the server that `runtime.api_base` names."""

    wait: bool = True
    """Whether a run waits for its batches; otherwise it ends when they are handed over. In no key."""
    poll_seconds: float = Field(default=60.0, gt=0)
    """Between two looks at a batch. In no key."""
    window: str = "24h"
    """Within what time the server is to answer, in its own word. In no key."""
    requests: int = Field(default=50_000, ge=1)
    """Of a batch at most (OpenAI's limit). In no key."""
    megabytes: float = Field(default=200.0, gt=0)
    """Of the file of a batch at most (OpenAI's limit), in units of 10^6 bytes. In no key."""

    _patience: Patience = PrivateAttr(default_factory=lambda: Patience(attempts=3))
    _settled: float = PrivateAttr(default=SETTLED)

    def recipe(self) -> Json:
        """Identity: that of any teacher; answers that come in batches are the same answers."""
        fields = super().recipe()
        assert isinstance(fields, dict)
        return {name: value for name, value in fields.items() if name not in HOW}

    @property
    def settled(self) -> float:
        """See `speed.teaching.batches.SETTLED`."""
        return self._settled

    @property
    def reads_ahead(self) -> int:
        """See `speed.ports.Teacher`: batches are large where much is read before the first answer."""
        return WINDOW

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        """Price in a batch, from the dated table; None when it has none for the model."""
        return cost.dollars(self.model_name, tokens_in, tokens_out, batch=True)

    def remarks(self) -> list[str]:
        """An unknown price."""
        if self.dollars(1, 1) is None:
            date = cost.price_table().date
            return [f"the price of {self.model_name} in batches is unknown (not in the table of {date})"]
        return []

    def lasting(self) -> str:
        """See `speed.ports.Teacher`."""
        return (
            f"answers of the teacher come in batches, each within {self.window}: one or more for each stage that asks, "
            "and another for its answers of no use"
        )

    def under_way(self, home: Path) -> str:
        """See `speed.ports.Teacher`."""
        batches = Pending(home / "journal").all()
        if not batches:
            return ""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(batch.begun for batch in batches)))
        return (
            f"{sum(batch.requests for batch in batches):,} requests are in {len(batches):,} batches, the first since "
            f"{since} (python -m speed.journal batches); a run that needs their answers takes them"
        )

    def costs_money(self, runtime: Runtime) -> bool:
        """OpenAI is paid for even where its price is unknown."""
        return super().costs_money(runtime) or (self.dollars(1, 1) is None and self.asks_openai(runtime))

    def asks_openai(self, runtime: Runtime) -> bool:
        """See `JournaledTeacher`."""
        return runtime.api_base is None or super().asks_openai(runtime)

    def served_as(self, runtime: Runtime) -> str:
        """The model as the server names it."""
        return self.model.removeprefix("openai/") if self.asks_openai(runtime) else self.model

    def unready(self, runtime: Runtime) -> str:
        """Whether there is no URL, or no key for OpenAI."""
        if runtime.api_base is not None and (reason := super().unready(runtime)):
            return reason.replace("openai_compatible", "openai_batch")
        if self.asks_openai(runtime) and not os.environ.get(OPENAI_KEY):
            return f"teacher=openai_batch asks {self.endpoint(runtime)} and needs {OPENAI_KEY} in the environment"
        return ""

    def endpoint(self, runtime: Runtime) -> str:
        """The server's URL without credentials."""
        return public_url(runtime.api_base or OPENAI)

    def address(self, runtime: Runtime) -> tuple[str, str]:
        """See `OpenAICompatibleTeacher`; OpenAI's key goes to OpenAI alone."""
        return (runtime.api_base or OPENAI).rstrip("/"), key_for(self.endpoint(runtime))

    def server(self, runtime: Runtime) -> BatchServer:
        """The server of the batches."""
        return BatchServer(*self.address(runtime), runtime.request_seconds)

    def ask(self, requests: Iterable[tuple[Ask, Check]], ctx: Context) -> Iterator[Answer]:
        """See `speed.ports.Teacher`. What can be handed over is handed over at once, before an answer is read.

        Raises:
            Later: where the answers are to be taken by a later run (`wait`).
        """
        session = session_at(ctx.store.home, ctx.say)
        self._check_price(session, ctx)
        return BatchAsking(session, self, ctx, requests).answers()


def take_all(journal: Journal, say: Callable[[str], None]) -> None:
    """Take the answers of all batches of a journal that have ended, whether any run still needs them or not.

    Raises:
        UserError: behind all others, for servers that do not tell of their batches, and results that cannot be had.
    """
    pending = Pending(journal.folder)
    with pending.lock():
        places = dict.fromkeys((batch.endpoint, batch.model) for batch in pending.all())
        refuse_for(mistakes_of(partial(_take_from, journal, pending, *place, say) for place in places))


def _take_from(journal: Journal, pending: Pending, endpoint: str, model: str, say: Callable[[str], None]) -> None:
    server = BatchServer(endpoint, key_for(endpoint), Runtime().request_seconds)
    price = partial(cost.dollars, model, batch=True)
    silence = Runtime().watchdog_seconds
    batches = Batches(journal, Account(journal), pending, server, endpoint, model, price, say, Patience(), silence)

    def checks() -> Iterator[Callable[[], None]]:
        yield batches.finish
        yield batches.recover
        yield from (partial(_take, batches, batch) for batch in batches.mine() if batch.server_id)

    refuse_for(mistakes_of(checks()))


def _take(batches: Batches, batch: Batch) -> None:
    try:
        if (told := batches.look(batch)).ended:
            batches.take(batch, told)
    except UserError:
        batches.silence = 0.0  # it may be out of reach: its other batches are tried once each, and not waited for
        raise


def key_for(endpoint: str) -> str:
    """The environment variable of the key for a server."""
    parts = urlsplit(endpoint)
    return OPENAI_KEY if (parts.scheme, parts.hostname) == ("https", "api.openai.com") else KEY
