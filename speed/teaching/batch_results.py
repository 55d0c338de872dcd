"""What a server says of each request of a batch that has ended: the lines of its files of results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.teaching.entry import Entry
from speed.teaching.envelope import json_in, status_in
from speed.teaching.errors import TransportError, failure_of
from speed.teaching.pending import Batch

TOO_MUCH = "token_limit_exceeded"
"""OpenAI's code for a batch that is refused since too many tokens of this model wait already."""
NO_ROOM = "no_room"
"""Cause of the failure of its requests, which were not even tried."""


class Failure(NamedTuple):
    """What came of a request that has no answer."""

    why: TransportError | UserError
    """A failure of this request, or what every further one would meet."""
    resent: int
    """Times that it had failed before."""
    words: dict[str, Json]
    """The parameters as they were sent, where the server wants them worded otherwise; else empty."""


Outcome: TypeAlias = "Entry | Failure"


class Said(NamedTuple):
    """One line of results."""

    key: str
    """Of the request that it is about."""
    status: int | None
    """HTTP status; None where the line has none that can be read."""
    body: Json
    error: Json

    @property
    def answered(self) -> bool:
        """Whether it holds an answer: a body that looks like one is believed where nothing is said of its status."""
        return self.status == 200 or (self.status is None and isinstance(self.body, dict) and "choices" in self.body)

    def failure(self, batch: Batch, remedy: str) -> TransportError | UserError:
        """Why there is no answer in it."""
        if self.status is not None:
            return failure_of(self.status, json.dumps(self.body), {}, remedy, each_alone=True)
        if str(self.error.get("code") if isinstance(self.error, dict) else self.error).startswith("batch_"):
            return lost(batch)
        return failure_of(status_in(self.error) or 500, json.dumps({"error": self.error}), {}, remedy, each_alone=True)


def results_in(path: Path) -> Iterator[Said]:
    """The lines of a file of results, in whatever order; none where there is no file.

    Raises:
        TransportError: for a file that is not one of results; what was answered must not pass for lost.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield _said(json_in(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                shown = line[:200].decode("utf-8", "replace")
                raise TransportError("bad_response", f"line {number} of a batch's results: {shown!r}") from None


def _said(line: Json) -> Said:
    response = line.get("response")
    response = response if isinstance(response, dict) else {}
    status = re.match(r"\s*([1-5][0-9][0-9])\b", str(response.get("status_code")))
    return Said(str(line["custom_id"]), int(status[1]) if status else None, response.get("body"), line.get("error"))


def lost(batch: Batch) -> TransportError | UserError:
    """Why a batch that has ended says nothing of one of its requests."""
    if batch.status == "expired":
        return TransportError("timeout", f"batch {batch.server_id} expired before it was answered")
    if batch.status == "cancelled":
        return UserError(
            f"batch {batch.server_id} was cancelled at {batch.endpoint}: what it had answered by then is kept\n"
            "  the same command asks for the rest again"
        )
    if batch.status == "failed" and batch.code == TOO_MUCH:
        return TransportError(NO_ROOM, batch.why)
    if batch.status == "failed":
        return UserError(
            f"{batch.endpoint} refused batch {batch.server_id} ({batch.code or 'no code'}): {batch.why}\n"
            "  nothing of it was answered or paid for; mend that, and run the same command again"
        )
    return TransportError("bad_response", f"batch {batch.server_id} tells neither an answer nor an error")
