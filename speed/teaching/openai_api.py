"""Servers that speak OpenAI's API: one POST with a key of the environment, and what its answer means."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from speed.core.spec import Json
from speed.teaching.connections import connections
from speed.teaching.errors import TransportError, failure_of

T = TypeVar("T")

KEY = "OPENAI_COMPATIBLE_API_KEY"
"""Environment variable of a server's key. Not OPENAI_API_KEY: that one must not travel to just any URL."""


async def posted(
    url: str, fields: Mapping[str, Json], seconds: float, remedy: str, key: str = KEY, who: str = "the teacher"
) -> bytes:
    """The body of the 200 that the server gives to one request.

    Args:
        remedy: what to look at where it refuses.
        key: environment variable of the key, which is sent where it is set.
        who: is asked.

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
        raise failure_of(found.status, said, found.headers, remedy, who)
    return found.body


def read_as(body: bytes, read: Callable[[Any], T]) -> T:
    """What `read` makes of the JSON of a 200.

    Raises:
        TransportError: when it is not the API's: an empty body, an error page, half a document.
    """
    try:
        return read(json.loads(body))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        shown = body[:200].decode("utf-8", "replace")
        raise TransportError("bad_response", f"{type(error).__name__} in {len(body)} bytes: {shown!r}") from None
