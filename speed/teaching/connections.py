"""Kept-alive connections, one client session each, so that an answer can be told from the echo of the one before.

A server (or a proxy in between) that sends an answer twice would otherwise hand the second copy to whoever asks next
on that connection, and every later answer to the wrong prompt. A body equal to the one before it on the same
connection is therefore thrown away with its connection, and the request is sent again on a fresh one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from speed.core.errors import UserError
from speed.teaching.errors import TransportError
from speed.teaching.loop import teaching_loop
from speed.teaching.secrets import public_url, redacted

if TYPE_CHECKING:
    import aiohttp


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
    """Idle connections of a process. Lives on the teaching loop; not thread-safe."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Response:
        """POST within so many seconds.

        Raises:
            TransportError: timeout, no or a lost connection, or an answer that was there before.
            UserError: the URL is none.
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
            # Error pages may repeat; a whole answer, with its own id and time, does not.
            whole = found.status == 200 and b'"choices"' in found.body and found.body.rstrip().endswith(b"}")
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

    async def close(self) -> None:
        """Give the idle connections back."""
        while self._idle:
            await self._idle.pop().session.close()


def _opened() -> _Connection:
    import aiohttp

    return _Connection(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), cookie_jar=aiohttp.DummyCookieJar())
    )


_connections: dict[int, Connections] = {}


def connections() -> Connections:
    """The connections of this process."""
    if os.getpid() not in _connections:
        _connections[os.getpid()] = Connections()
        atexit.register(partial(_close, os.getpid()))
    return _connections[os.getpid()]


def _close(process: int) -> None:
    found: Any = _connections.pop(process, None)
    if found is not None and process == os.getpid():
        asyncio.run_coroutine_threadsafe(found.close(), teaching_loop()).result(5.0)
