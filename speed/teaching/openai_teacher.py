"""A lean road to OpenAI-compatible servers (vLLM, llama.cpp, Ollama ...): aiohttp instead of litellm's 8 ms a call.

Each connection is a client session of its own and kept alive, so that an answer can be told from the echo of the one
before. A server (or a proxy in between) that sends an answer twice would otherwise hand the second copy to whoever asks
next on that connection, and every later answer to the wrong prompt. A body equal to the one before it on the same
connection is therefore thrown away with its connection, and the request is sent again on a fresh one.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.runtime import Runtime
from speed.teaching.envelope import json_in, refuse_login_page, reply_in
from speed.teaching.errors import Reply, TransportError, failure_of, public_url, redacted
from speed.teaching.requests import Call
from speed.teaching.teacher import JournaledTeacher

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

_ERROR = re.compile(rb'"error"\s*:\s*[^\sn]|"choices"\s*:\s*(?:null|\[\s*\])')
"""An error inside a 200. A quote inside a text is escaped, so that no text is taken for one."""

KEY = "OPENAI_COMPATIBLE_API_KEY"
"""Environment variable of a server's key. Not OPENAI_API_KEY: that one must not travel to just any URL."""


class OpenAICompatibleTeacher(JournaledTeacher):
    """Asks `<runtime.api_base>/chat/completions`; `model` as the server names it."""

    heavy: ClassVar[tuple[str, ...]] = ("aiohttp",)

    def prepare(self, runtime: Runtime) -> None:
        """Look for the server's URL.

        Raises:
            UserError: when there is none.
        """
        if reason := self.unready(runtime):
            raise UserError(reason)

    def unready(self, runtime: Runtime) -> str:
        """Whether there is no URL."""
        if runtime.api_base is not None and runtime.api_base.startswith(("http://", "https://")):
            return ""
        return (
            f"runtime.api_base={runtime.api_base}: teacher=openai_compatible needs the URL of its server\n"
            "  for example runtime.api_base=http://127.0.0.1:8000/v1"
        )

    def endpoint(self, runtime: Runtime) -> str:
        """The server's URL without credentials."""
        return public_url(runtime.api_base) if runtime.api_base else ""

    def address(self, runtime: Runtime) -> tuple[str, str]:
        """The server's URL, and the environment variable of its key."""
        return str(runtime.api_base).rstrip("/"), KEY

    def served_as(self, runtime: Runtime) -> str:
        """The model as the server names it."""
        return self.model

    async def send(self, call: Call, runtime: Runtime, seconds: float) -> Reply:
        """One POST."""
        fields: dict[str, Json] = {"model": self.served_as(runtime), "messages": call.messages, **call.params}
        fields.pop("retry", None)
        url, key = self.address(runtime)
        server = self.endpoint(runtime)
        look_at = f"runtime.api_base={server}, teacher.model={self.model}"
        body = await post(f"{url}/chat/completions", fields, seconds, look_at, key, each_alone=True)
        remedy = f"check {look_at} and the key in {key} ({'set' if os.environ.get(key) else 'not set'})"
        refuse_login_page(body, remedy)
        return read_as(body, lambda answer: reply_in(answer, server, remedy))


async def post(
    url: str,
    fields: Mapping[str, Json],
    seconds: float,
    remedy: str,
    key: str = KEY,
    who: str = "the teacher",
    *,
    each_alone: bool = False,
) -> bytes:
    """The body of the 200 that the server gives to one request.

    Args:
        remedy: what to look at where it refuses.
        key: environment variable of the key, which is sent where it is set.
        who: is asked.
        each_alone: see `failure_of`.

    Raises:
        TransportError: trouble that another try may mend, or that ends this request alone.
        UserError: what every further request would meet.
    """
    secret = os.environ.get(key)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    found = await connections().post(url, json.dumps(fields).encode("ascii"), headers, seconds)
    if found.status != 200:
        said = found.body.decode("utf-8", "replace")
        remedy = f"check {remedy} and the key in {key} ({'set' if secret else 'not set'})"
        raise failure_of(found.status, said, found.headers, remedy, who, each_alone=each_alone)
    return found.body


def read_as(body: bytes, read: Callable[[Any], T]) -> T:
    """What `read` makes of the JSON of a 200.

    Raises:
        TransportError: when it is not the API's: an empty body, an error page, half a document.
    """
    try:
        return read(json_in(body))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        shown = body[:200].decode("utf-8", "replace")
        raise TransportError("bad_response", f"{type(error).__name__} in {len(body)} bytes: {shown!r}") from None


class Response(NamedTuple):
    """What a server said, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Connection:
    session: aiohttp.ClientSession
    last: tuple[str, bytes] | None = None
    """URL and body of the whole answer before, where there was one."""


class Connections:
    """Idle connections. Lives on the event loop that it is made on; not thread-safe."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []
        self._loop = asyncio.get_running_loop()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Response:
        """POST within so many seconds.

        Raises:
            TransportError: timeout, no or a lost connection, or an answer that was there before.
            UserError: for a URL that is not valid.
        """
        import aiohttp

        connection = self._idle.pop() if self._idle else _opened()
        sound = False
        try:
            timeout = aiohttp.ClientTimeout(total=seconds)
            async with connection.session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                found = Response(response.status, response.headers, await response.read())
            if found.body and (url, found.body) == connection.last:
                raise TransportError("connection", "the answer before came a second time")
            # Errors may repeat; a whole answer, with its own id and time, does not.
            whole = found.status == 200 and b'"choices"' in found.body and found.body.rstrip().endswith(b"}")
            whole = whole and not _ERROR.search(found.body)
            connection.last = (url, found.body) if whole else None
            sound = True
            return found
        except TimeoutError:
            raise TransportError("timeout", f"no answer in {seconds:g} s", crowded=True) from None
        except aiohttp.InvalidURL:
            raise UserError(f"{public_url(url)} is not a URL: give runtime.api_base=http://host:port/v1") from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError("connection", redacted(f"{type(error).__name__}: {error}")) from None
        finally:
            if sound:
                self._idle.append(connection)
            else:
                await connection.session.close()

    def close(self, process: int) -> None:
        """Give the idle connections back, at the end of the process that made them."""

        async def close_all() -> None:
            while self._idle:
                await self._idle.pop().session.close()

        if process == os.getpid() and self._loop.is_running():
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(close_all(), self._loop).result(5.0)


def _opened() -> _Connection:
    import aiohttp

    return _Connection(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), cookie_jar=aiohttp.DummyCookieJar())
    )


_connections: dict[int, Connections] = {}
"""By process: a forked child opens its own. At module level, since a teacher is a frozen value, and endpoints of
embeddings use them too."""


def connections() -> Connections:
    """The connections of this process; to be called on the event loop."""
    if os.getpid() not in _connections:
        found = _connections[os.getpid()] = Connections()
        atexit.register(found.close, os.getpid())
    return _connections[os.getpid()]
