"""A server that takes requests in batches, as OpenAI words it: `/files` and `/batches`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from speed.core.cache import write_aside
from speed.core.errors import UserError
from speed.core.spec import Json
from speed.teaching.envelope import count_in, refuse_login_page
from speed.teaching.errors import TransportError, failure_of, public_url, redacted
from speed.teaching.openai_teacher import read_as

T = TypeVar("T")

TAG = "speed"
"""Name of the metadata under which a server keeps our own name of a batch."""
ROAD = "/v1/chat/completions"
"""What each request of a batch is for; every server calls it so, wherever it lies."""
PAGE = 100
"""Batches on a page of the server's list."""
WORKING = ("validating", "queued", "pending", "running", "in_progress", "finalizing", "cancelling")
ENDS = ("completed", "failed", "expired", "cancelled")
_ALSO = {"canceling": "cancelling", "canceled": "cancelled", "succeeded": "completed"}
"""Other servers' words for the same."""
SLOWEST = 50_000.0
"""Bytes per second of an upload that is still waited for."""
_CHUNK = 1 << 20


class Told(NamedTuple):
    """What the server says of a batch."""

    id: str
    status: str
    """One of `WORKING`, or how it ended: one of `ENDS`; or a word that only the server knows."""
    file: str
    """Of its requests."""
    tag: str
    """Our own name of it."""
    output: str
    """File of the requests that were answered; empty where there is none (yet)."""
    errors: str
    """File of those that were not."""
    answered: int
    """Requests that are answered by now, as far as the server counts them."""
    done: int
    """The same with those that failed."""
    code: str
    """Why all of it was refused."""
    why: str

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.status in ENDS


class UnknownStatus(UserError):
    """A batch that may have ended, so it is not waited for, and may have answers, so they are not asked for again."""


class BatchServer:
    """One server, with one key."""

    def __init__(self, url: str, key: str, seconds: float) -> None:
        """
        Args:
            key: environment variable of the key, which is sent where it is set.
            seconds: how long the server may say nothing while it is asked something.
        """
        self._url, self._key, self._seconds = url.rstrip("/"), key, seconds

    def upload(self, requests: Path) -> str:
        """Hand over a file of requests; the server's id of it.

        Raises:
            TransportError: when it did not arrive.
            UserError: when the server does not take it; so do all that follow.
        """
        with requests.open("rb") as content:

            def form() -> Any:
                import aiohttp

                name = f"{requests.parent.name}.jsonl"
                fields = aiohttp.FormData()
                fields.add_field("purpose", "batch")
                fields.add_field("file", content, filename=name, content_type="application/jsonl")
                return fields

            # that nothing is read is not noticed while a body is sent: the whole upload has a limit
            most = self._seconds + requests.stat().st_size / SLOWEST
            return self._read(lambda answer: _text(answer["id"]), "POST", "/files", form, most=most)

    def create(self, file: str, tag: str, window: str) -> Told:
        """Have a batch of the requests of a file answered.

        Args:
            tag: our own name of it.
            window: within what time, in the server's word: `24h`.

        Raises:
            TransportError: when nobody knows whether there is such a batch now; where `limited`, there is none.
            UserError: when there is none.
        """
        body = {"input_file_id": file, "endpoint": ROAD, "completion_window": window, "metadata": {TAG: tag}}
        return self._read(_told, "POST", "/batches", lambda: json.dumps(body).encode("ascii"), "application/json")

    def batch(self, server_id: str) -> Told:
        """How a batch stands.

        Raises:
            UnknownStatus: where the server calls that a word that is not known.
        """
        told = self._read(_told, "GET", f"/batches/{server_id}")
        if not told.ended and told.status not in WORKING:
            raise UnknownStatus(
                f"its status {told.status[:100]!r} is none that is known ({', '.join((*WORKING, *ENDS))}): look there "
                "how it stands; `python -m speed.journal batches --take` takes its answers when its status is one of "
                f"{', '.join(ENDS)}"
            )
        return told

    def find(self, tag: str, file: str) -> Told | None:
        """The batch with our name, or with a file of requests; None where the server has none.

        Every page of its list is looked at: nothing is known of the order.
        """
        after, seen = "", set[str]()
        while after not in seen:
            seen.add(after)
            road = f"/batches?limit={PAGE}{f'&after={after}' if after else ''}"
            found, after = self._read(lambda page: _searched(page, tag, file), "GET", road)
            if found is not None:
                return found
        return None

    def download(self, file: str, to: Path) -> None:
        """Copy a file of the server; it is there whole or not at all."""
        with write_aside(to) as aside:
            asyncio.run(self._asked("GET", f"/files/{file}/content", None, "", aside))

    def _read(
        self,
        read: Callable[[Any], T],
        method: str,
        road: str,
        body: Callable[[], Any] | None = None,
        kind: str = "",
        most: float | None = None,
    ) -> T:
        answer = asyncio.run(self._asked(method, road, body, kind, None, most))
        refuse_login_page(answer, self._remedy)
        return read_as(answer, read)

    @property
    def _remedy(self) -> str:
        is_set = "set" if os.environ.get(self._key) else "not set"
        return f"check runtime.api_base={public_url(self._url)}, teacher.model and the key in {self._key} ({is_set})"

    async def _asked(
        self,
        method: str,
        road: str,
        body: Callable[[], Any] | None,
        kind: str,
        into: Path | None,
        most: float | None = None,
    ) -> bytes:
        """The body of a 200, within `most` seconds where that is limited; nothing where it goes into a file."""
        import aiohttp

        secret = os.environ.get(self._key)
        headers = ({"Content-Type": kind} if kind else {}) | ({"Authorization": f"Bearer {secret}"} if secret else {})
        timeout = aiohttp.ClientTimeout(total=most, sock_connect=self._seconds, sock_read=self._seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(
                    method,
                    self._url + road,
                    data=body() if body is not None else None,
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                if not 200 <= response.status < 300:
                    said = (await response.read()).decode("utf-8", "replace")
                    raise failure_of(response.status, said, response.headers, self._remedy, "the teacher's server")
                if into is None:
                    return await response.read()
                with into.open("wb") as file:
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        file.write(chunk)
                return b""
        except TimeoutError:
            limit = f"nothing in {self._seconds:g} s{f', or not all in {most:,.0f} s' if most is not None else ''}"
            raise TransportError("timeout", f"{method} {road.partition('?')[0]}: {limit}") from None
        except aiohttp.InvalidURL:
            raise UserError(
                f"{public_url(self._url)} is not a URL: give runtime.api_base=http://host:port/v1"
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise TransportError("connection", redacted(f"{type(error).__name__}: {error}")) from None


def _told(answer: Json) -> Told:
    """Raises: KeyError, TypeError, ValueError for what is no batch."""
    counts = answer.get("request_counts") or {}
    listed = (answer.get("errors") or {}).get("data") or [{}]
    metadata = answer.get("metadata") or {}
    first = listed[0] if isinstance(listed[0], dict) else {}
    answered, failed = (count_in(counts.get(name)) or 0 for name in ("completed", "failed"))
    status = _text(answer["status"]).lower()
    return Told(
        id=_text(answer["id"]),
        status=_ALSO.get(status, status),
        file=str(answer.get("input_file_id") or ""),
        tag=str(metadata.get(TAG) or ""),
        output=str(answer.get("output_file_id") or ""),
        errors=str(answer.get("error_file_id") or ""),
        answered=answered,
        done=answered + failed,
        code=str(first.get("code") or ""),
        why=redacted(" ".join(str(first.get("message") or first.get("code") or "it does not say why").split()))[:300],
    )


def _searched(page: Json, tag: str, file: str) -> tuple[Told | None, str]:
    """What is wanted of a page of the list, and the id behind which the next one begins, empty where there is none.

    What other programs have there may be listed in any words.

    Raises: KeyError, TypeError, ValueError, AttributeError for what is no page, or where a wanted batch cannot be read.
    """
    listed, last = page["data"] or [], ""
    if not isinstance(listed, list):
        raise TypeError("a list of batches is none")
    for each in listed:
        fields = each if isinstance(each, dict) else {}
        metadata = fields.get("metadata")
        if fields.get("input_file_id") == file or (isinstance(metadata, dict) and metadata.get(TAG) == tag):
            return _told(fields), ""
        last = str(fields.get("id") or last)
    if page.get("has_more") and not last:
        raise ValueError("a page without ids, and more behind it")
    return None, last if page.get("has_more") is not False else ""


def _text(value: Json) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("an id or a status is missing")
    return value
