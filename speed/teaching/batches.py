"""Batches from their beginning to the journal: sent, found again after a kill, fetched, and written down.

Every step is on the disk before the next one, so that a process may end at any moment:

    written down, not uploaded          forgotten: the server knows nothing of it
    uploaded                            looked for in the server's list, by our name of it; forgotten if it is not there
    begun by the server                 asked for until it has ended
    fetched                             written into the journal from the disk, once
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, TypeVar

from speed.core.errors import UserError
from speed.teaching.batch_results import Failure, Outcome, Said, lost, results_in
from speed.teaching.batch_server import BatchServer, Told, UnknownStatus
from speed.teaching.entry import Entry, Spending
from speed.teaching.envelope import answered, reply_in
from speed.teaching.errors import Patience, TransportError
from speed.teaching.journal import Journal
from speed.teaching.pending import ERRORS, OUTPUT, UPLOAD, Batch, Pending
from speed.teaching.spending import Account

T = TypeVar("T")

SETTLED = 60.0
"""Seconds after which a batch that the server was asked to begin stands in its list, if it was begun (ours)."""


class Sending(NamedTuple):
    """One request on its way into a batch."""

    entry: Entry
    """As the journal will keep it; it has no answer yet."""
    line: bytes
    """As the server is sent it."""
    highest: Spending


@dataclass
class Batches:
    """The batches of one server and model that a journal waits for. All but `look` is done under `pending.lock()`."""

    journal: Journal
    account: Account
    pending: Pending
    server: BatchServer
    endpoint: str
    model: str
    price: Callable[[int, int], float | None]
    say: Callable[[str], None]
    patience: Patience
    silence: float
    """Seconds for which the server may fail to answer."""
    settled: float = SETTLED

    def submit(self, some: Sequence[Sending], window: str, *, held: bool) -> None:
        """Begin a batch.

        Args:
            held: whether its cost is held already.

        Raises:
            UserError: when the server does not take it, or cannot be reached. Nothing is lost, and nothing twice there.
        """
        highest = total(each.highest for each in some)
        lines = [each.line for each in some]
        try:
            batch = self.pending.begin(self.endpoint, self.model, [each.entry for each in some], lines, highest)
        except BaseException:
            if held:
                self.account.release(highest)
            raise
        self.account.hand_over(batch.name, highest, held=held)
        cost = f"${highest.dollars:,.2f} at most" if self.price(1, 1) is not None else "at a price that is not known"
        size = sum(map(len, lines)) / 1e6
        self.say(f"{len(some):,} requests ({size:,.1f} MB, {cost}) go to {self.endpoint} as batch {batch.id}")
        try:
            file = self.patiently(lambda: self.server.upload(self.pending.folder_of(batch) / UPLOAD))
        except UserError:
            self._forget(batch)
            raise
        self._create(self.pending.update(batch, file=file), window)

    def recover(self) -> None:
        """Find out what became of batches whose beginning is not written down: some process was killed over it."""
        for batch in self.mine():
            if not batch.server_id and not batch.file:
                self._forget(batch)
            elif not batch.server_id:
                there = self._look_for(batch)
                found = "the server has it" if there else "the server never began it, and its requests are sent again"
                self.say(f"batch {batch.id} was left between two steps: {found}")

    def finish(self) -> None:
        """Write down what was fetched by a process that was killed over writing it down."""
        for batch in self.mine():
            if batch.status:
                self._into_journal(batch)

    def look(self, batch: Batch) -> Told:
        """How a batch stands at the server."""
        try:
            return self.patiently(lambda: self.server.batch(batch.server_id))
        except UserError as error:
            told = (
                f"{self.endpoint} does not tell how batch {batch.server_id} stands, where {batch.requests:,} requests "
                f"are: {error}"
            )
            if not isinstance(error, UnknownStatus):  # else its answers would be paid for twice
                told += f"\n  if it is gone for good, delete {self.pending.folder_of(batch)}, and they are asked again"
            raise UserError(told) from error

    def take(self, batch: Batch, told: Told) -> tuple[Batch, dict[str, Outcome]]:
        """Fetch what came of a batch that has ended and write its answers into the journal.

        Returns:
            The batch with its end, and what became of each request, by key.

        Raises:
            UserError: when the results cannot be had, or are not whole; they are fetched again by the next run.
        """
        folder = self.pending.folder_of(batch)
        try:
            keys = self._download(batch, told.output, OUTPUT) | self._download(batch, told.errors, ERRORS)
        except UserError as error:
            raise UserError(
                f"{self.endpoint} does not hand over the results of batch {batch.server_id}, where {batch.requests:,} "
                f"requests are: {error}\n  if they are gone for good, delete {folder}, and the requests are asked again"
            ) from error
        answers = len(keys & self.pending.keys_of(batch))
        if answers < told.answered:
            raise UserError(
                f"{self.endpoint} says that {told.answered:,} requests of batch {batch.server_id} are answered, and "
                f"its files hold {answers:,}: nothing is asked again as long as that is so\n  run the same command "
                f"later; if they are lost for good, delete {folder}, and the requests are asked again"
            )
        batch = self.pending.update(batch, status=told.status, code=told.code, why=told.why)
        return batch, self._into_journal(batch)

    def patiently(self, do: Callable[[], T], *, only_limited: bool = False) -> T:
        """Ask the server something until it answers.

        Args:
            only_limited: other failures than that the server is asked too often are passed on.

        Raises:
            UserError: when it has not answered for too long, or refuses this.
        """
        begun = time.monotonic()
        for tries in count():
            try:
                return do()
            except TransportError as trouble:
                if only_limited and not trouble.limited:
                    raise
                if not trouble.again:
                    raise UserError(f"{self.endpoint} refused a batch: {trouble.detail}\n  {trouble.remedy}") from None
                if time.monotonic() - begun > self.silence:
                    raise UserError(
                        f"{self.endpoint} has not answered for {self.silence:g} s (runtime.watchdog_seconds), the last "
                        f"time with {trouble.cause} ({trouble.detail})\n  batches that it has go on there; run the "
                        "same command again when it is back"
                    ) from None
                left = max(0.0, begun + self.silence - time.monotonic())  # whatever Retry-After says
                time.sleep(min(self.patience.pause(trouble, tries), left + 0.1))
        raise AssertionError("unreachable")

    def mine(self) -> list[Batch]:
        """Those that have not ended."""
        return [each for each in self.pending.all() if (each.endpoint, each.model) == (self.endpoint, self.model)]

    def _forget(self, batch: Batch) -> None:
        self.pending.drop(batch)
        self.account.forget(batch.name)

    def _create(self, batch: Batch, window: str) -> None:
        def create() -> Told:
            self.pending.update(batch, begun=time.time())
            return self.server.create(batch.file, batch.id, window)

        try:
            told = self.patiently(create, only_limited=True)
        except UserError:
            self._forget(batch)
            raise
        except TransportError as trouble:  # it may have been begun all the same
            if not self._look_for(self.pending.update(batch, begun=time.time())):
                raise UserError(
                    f"{self.endpoint} did not begin a batch of {batch.requests:,} requests: {trouble.detail}\n  run "
                    "the same command again; what it has begun and what is answered is not paid for again"
                ) from None
        else:
            self.pending.update(batch, server_id=told.id)

    def _look_for(self, batch: Batch) -> bool:
        """Look for a batch in the server's list; forget it where it is not there."""
        last = time.monotonic() + min(self.settled, max(0.0, self.settled - (time.time() - batch.begun)))
        while True:
            late = time.monotonic() >= last  # the list is looked at once more behind this moment
            try:
                told = self.patiently(lambda: self.server.find(batch.id, batch.file))
            except UserError as error:
                raise UserError(
                    f"{self.endpoint} may have begun a batch with the metadata speed={batch.id}, and its list of "
                    f"batches cannot be read: {error}\n  look there; if there is none, delete "
                    f"{self.pending.folder_of(batch)}, and its {batch.requests:,} requests are sent again"
                ) from error
            if told is not None:
                self.pending.update(batch, server_id=told.id)
                return True
            if late:
                self._forget(batch)
                return False
            time.sleep(1.0)

    # -- results -------------------------------------------------------------------------------------------------------

    def _download(self, batch: Batch, file: str, name: str) -> set[str]:
        """Fetch a file of results, if there is one; keys of the requests that it answers."""
        path = self.pending.folder_of(batch) / name

        def fetch() -> set[str]:
            self.server.download(file, path)
            return {said.key for said in results_in(path) if said.answered}

        return self.patiently(fetch) if file else set()

    def _into_journal(self, batch: Batch) -> dict[str, Outcome]:
        """Write the answers of a fetched batch down, and end it."""
        self.journal.refresh()  # with those that another process wrote down before it was killed
        entries = {entry.key: entry for entry in self.pending.entries(batch)}
        found: dict[str, Outcome] = {}
        failed: dict[str, TransportError | UserError] = {}
        strangers = 0
        for name in (OUTPUT, ERRORS):
            for said in results_in(self.pending.folder_of(batch) / name):
                key = said.key
                strangers += key not in entries
                if key in entries and key not in found:
                    outcome = self._outcome(entries[key], said, batch)
                    if isinstance(outcome, Entry):
                        found[key] = outcome
                    else:
                        failed[key] = outcome
        words = self.pending.words(batch, {key for key, why in failed.items() if getattr(why, "wants", "")})
        for key in entries.keys() - found.keys():
            found[key] = Failure(failed.get(key) or lost(batch), entries[key].resent, words.get(key, {}))
        self.journal.flush()
        answers = [each for each in found.values() if isinstance(each, Entry)]
        prices = [each.dollars for each in answers]
        dollars = None if None in prices else sum(price or 0.0 for price in prices)
        lacking = len(found) - len(answers)
        self.pending.end(batch, answered=len(answers), failed=lacking, dollars=dollars)
        self.account.forget(batch.name)
        cost = "at a price that is not known" if dollars is None else f"${dollars:,.4f}"
        odd = f"; {strangers:,} lines are about requests that are not in it" if strangers else ""
        self.say(f"batch {batch.id} is {batch.status}: {len(answers):,} answers ({cost}), {lacking:,} failed{odd}")
        return found

    def _outcome(self, entry: Entry, said: Said, batch: Batch) -> Entry | TransportError | UserError:
        """What became of one request; an answer is in the journal then."""
        known = self.journal.get(entry.key)
        if known is not None and known.batch == batch.id:  # written by a process that was killed behind it
            return known
        remedy = f"check teacher.model={self.model}; batch {batch.server_id} at {self.endpoint}"
        if not said.answered:
            return said.failure(batch, remedy)
        try:
            reply = reply_in(said.body, self.endpoint, remedy)
        except (TransportError, UserError) as trouble:
            return trouble
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as odd:
            return TransportError("bad_response", f"{type(odd).__name__} in {json.dumps(said.body)[:200]}")
        now = time.time()
        fields = {**answered(entry.messages, reply, self.price), "answered": True, "detail": "", "batch": batch.id}
        entry = entry.model_copy(update={**fields, "seconds": round(now - batch.begun, 4), "time": round(now, 3)})
        self.journal.append(entry)
        return entry


def total(amounts: Iterator[Spending]) -> Spending:
    """The sum of some amounts."""
    whole = Spending()
    for each in amounts:
        whole = whole.plus(each)
    return whole
