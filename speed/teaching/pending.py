"""Batches that a server has, or may have: all that must be known of them when the process that sent them is gone.

    <home>/journal/batches/<id>/requests.jsonl   its requests: lines of the journal, without their answers yet
    <home>/journal/batches/<id>/upload.jsonl     the same in the words of the server
    <home>/journal/batches/<id>/batch.json       how far it has come
    <home>/journal/batches/<id>/output.jsonl, errors.jsonl    what came of it, from its end until the journal has it
    <home>/journal/batches/ended.jsonl           a line for each that has ended

A folder appears whole before anything is uploaded, and goes when the journal has the answers.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from speed.core.cache import write_aside
from speed.core.errors import UserError
from speed.core.spec import Json, Spec
from speed.teaching.entry import Entry, Spending, entry_of, json_of
from speed.teaching.lines import line_of, lines_from, sync_folder

REQUESTS, UPLOAD, STATE, OUTPUT, ERRORS = "requests.jsonl", "upload.jsonl", "batch.json", "output.jsonl", "errors.jsonl"
ENDED = "ended.jsonl"


class Batch(Spec):
    """One batch, and how far it has come."""

    id: str
    """Our own name of it, which the server keeps with it."""
    endpoint: str
    model: str
    requests: int
    dollars: float
    """Its highest possible cost, held from the caps; 0 where the price is unknown."""
    tokens: int
    """The same in tokens."""
    begun: float
    """Seconds since the epoch."""
    file: str = ""
    """The server's id of the uploaded requests; from then on the server may have the batch."""
    server_id: str = ""
    """The server's id of the batch."""
    status: str = ""
    """How it ended, in the server's word, once its results lie here."""
    code: str = ""
    """Why the server refused it, where it did, in its code."""
    why: str = ""
    """The same in its words."""

    @property
    def name(self) -> str:
        """Under which its cost is held: its folder, below that of the journal."""
        return f"batches/{self.id}"

    @property
    def highest(self) -> Spending:
        """Its highest possible cost."""
        return Spending(self.dollars, self.tokens, self.requests)


class Pending:
    """The batches below the folder of a journal. What changes them is done under `lock`."""

    def __init__(self, journal: Path) -> None:
        self.folder = journal / "batches"
        self._keys: dict[str, frozenset[str]] = {}

    def lock(self) -> FileLock:
        """Held while a batch is begun, looked for or ended: one process at a time does any of these."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")

    def all(self) -> list[Batch]:
        """Batches that have not ended, oldest first.

        Raises:
            UserError: for a file that is no batch's any more.
        """
        found = []
        for path in sorted(self.folder.glob(f"*/{STATE}")):
            if path.parent.suffix == ".partial":  # one that a killed process was about to begin
                continue
            with suppress(FileNotFoundError):
                try:
                    found.append(Batch.model_validate_json(path.read_text(encoding="utf-8")))
                except ValueError as error:
                    raise UserError(
                        f"{path} is damaged: look at the server's list of batches for the one with the metadata "
                        f"speed={path.parent.name}, cancel it or note that its answers are lost, and delete the folder"
                    ) from error
        return found

    def by_key(self) -> dict[str, Batch]:
        """The batch of each request that has no answer yet."""
        return {key: batch for batch in self.all() for key in self.keys_of(batch)}

    def refuse_elsewhere(self, keys: Iterable[str], endpoint: str = "") -> None:
        """Refuse to ask for what a server is answering in a batch, unless it is this one.

        Raises:
            UserError: naming the batch.
        """
        placed = self.by_key()
        batch = next((placed[key] for key in keys if key in placed and placed[key].endpoint != endpoint), None)
        if batch is None:
            return
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(batch.begun))
        raise UserError(
            f"requests of this run are with {batch.endpoint} in a batch, and would be paid for twice: batch "
            f"{batch.server_id or batch.id}, {batch.requests:,} requests, {since}\n  teacher=openai_batch takes the "
            "answers from there; to ask elsewhere, cancel it there and run `python -m speed.journal batches --take`"
        )

    def folder_of(self, batch: Batch) -> Path:
        """Where its files lie."""
        return self.folder / batch.id

    def entries(self, batch: Batch) -> Iterator[Entry]:
        """Its requests."""
        for found in lines_from(self.folder_of(batch) / REQUESTS):
            if found.entry is not None and (entry := entry_of(found.entry)) is not None:
                yield entry

    def words(self, batch: Batch, keys: Set[str]) -> dict[str, dict[str, Json]]:
        """The parameters of some of its requests as the server was sent them, by key."""
        found = dict[str, dict[str, Json]]()
        if keys:
            with (self.folder_of(batch) / UPLOAD).open("rb") as file:
                for line in map(json.loads, file):
                    if line["custom_id"] in keys:
                        unworded = ("model", "messages")
                        found[line["custom_id"]] = {
                            name: value for name, value in line["body"].items() if name not in unworded
                        }
        return found

    def begin(
        self, endpoint: str, model: str, entries: Sequence[Entry], upload: Sequence[bytes], highest: Spending
    ) -> Batch:
        """Write a batch down, before the server hears of it.

        Args:
            entries: its requests, as the journal will keep them.
            upload: the line of each that the server is sent.
        """
        batch = Batch(
            id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:12]}",
            endpoint=endpoint,
            model=model,
            requests=len(entries),
            dollars=highest.dollars,
            tokens=highest.tokens,
            begun=time.time(),
        )
        with write_aside(self.folder_of(batch)) as aside:
            aside.mkdir()
            with (aside / REQUESTS).open("wb") as file:
                file.writelines(line_of(json_of(entry)) for entry in entries)
            with (aside / UPLOAD).open("wb") as file:
                file.writelines(upload)
            (aside / STATE).write_text(batch.model_dump_json(indent=1), encoding="utf-8")
        sync_folder(self.folder)
        return batch

    def update(self, batch: Batch, **fields: Json) -> Batch:
        """Write down how far a batch has come."""
        batch = batch.model_copy(update=fields)
        path = self.folder_of(batch) / STATE
        with write_aside(path) as aside:
            aside.write_text(batch.model_dump_json(indent=1), encoding="utf-8")
        sync_folder(path.parent)
        return batch

    def drop(self, batch: Batch) -> None:
        """Forget a batch of which the server has, or will have, nothing more to tell."""
        folder = self.folder_of(batch)
        (folder / STATE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        self._keys.pop(batch.id, None)

    def end(self, batch: Batch, **figures: Json) -> None:
        """Note what came of a batch, whose answers the journal has on the disk, and forget it."""
        line = {**batch.model_dump(exclude={"dollars", "tokens"}, exclude_defaults=True), **figures}
        with (self.folder / ENDED).open("ab", buffering=0) as file:
            file.write(json.dumps({**line, "ended": time.time()}).encode() + b"\n")
        self.drop(batch)

    def ended(self) -> list[dict[str, Json]]:
        """What was noted of each that has ended, oldest first; once of each, though a kill may have it noted twice."""
        path, found = self.folder / ENDED, dict[str, dict[str, Json]]()
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            with suppress(ValueError, TypeError, KeyError):  # half written
                noted = json.loads(line)
                found[noted["id"]] = noted
        return list(found.values())

    def keys_of(self, batch: Batch) -> frozenset[str]:
        """Keys of its requests; none where it has ended."""
        if batch.id not in self._keys:
            with suppress(FileNotFoundError):  # ended meanwhile
                self._keys[batch.id] = frozenset(entry.key for entry in self.entries(batch))
        return self._keys.get(batch.id, frozenset())
