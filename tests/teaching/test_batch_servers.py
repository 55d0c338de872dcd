"""Odd servers and unlucky moments of batches: no cap is passed, no batch forgotten, no server keeps others waiting."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_provider import BatchProvider
from provider import Request, Response
from quick_batches import batching, bought_once, ended, pending, until_later
from quick_teacher import answers, context
from test_journal import entry

from speed.core.errors import SeveralMistakes, UserError
from speed.runtime import Runtime
from speed.teaching import batch_server, openai_batch
from speed.teaching.batch_server import SLOWEST, WORKING, BatchServer
from speed.teaching.entry import Spending
from speed.teaching.errors import TransportError
from speed.teaching.journal import Journal
from speed.teaching.openai_batch import take_all
from speed.teaching.pending import Batch, Pending
from speed.teaching.spending import Account, Caps

ROWS = [f"row {row}" for row in range(3)]


def handed_over(journal: Journal, calls: int) -> Batch:
    """A batch that a server is about to have, with what it may cost held."""
    highest = Spending(calls=calls)
    rows = [entry(row) for row in range(calls)]
    batch = Pending(journal.folder).begin("http://a/v1", "rules", rows, [b"{}\n"] * calls, highest)
    Account(journal).hand_over(batch.name, highest, held=False)
    return batch


# -- caps --------------------------------------------------------------------------------------------------------------


def test_a_batch_that_is_begun_while_somebody_looks_keeps_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, other = Journal(tmp_path), Journal(tmp_path)
    listed = Pending.all

    def listed_and_one_begun(pending: Pending) -> list[Batch]:
        found = listed(pending)
        monkeypatch.setattr(Pending, "all", listed)
        handed_over(other, 5)
        return found

    monkeypatch.setattr(Pending, "all", listed_and_one_begun)
    short = Account(journal).hold(Spending(calls=1), Caps(calls=5))
    assert short is not None
    assert short.batches.calls == 5


def test_a_batch_that_is_begun_just_before_the_table_is_read_is_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, other = Journal(tmp_path), Journal(tmp_path)
    select = journal.index.select

    def begun_and_selected(query: str) -> object:
        monkeypatch.setattr(journal.index, "select", select)
        handed_over(other, 5)
        return select(query)

    monkeypatch.setattr(journal.index, "select", begun_and_selected)
    assert Account(journal).hold(Spending(calls=1), Caps(calls=5)) is not None


@pytest.mark.parametrize("damage", ["gone", "garbage"])
@pytest.mark.parametrize("first", ["hold", "release"])
def test_what_is_held_for_batches_survives_the_loss_of_the_index(tmp_path: Path, damage: str, first: str) -> None:
    journal = Journal(tmp_path)
    account, caps = Account(journal), Caps(calls=6)
    assert account.hold(Spending(calls=1), caps) is None
    handed_over(journal, 5)
    assert account.hold(Spending(calls=1), caps) is not None
    file = next(tmp_path.glob("index*.sqlite"))
    file.unlink() if damage == "gone" else file.write_bytes(os.urandom(9000))
    if first == "release":
        account.release(Spending(calls=1))
        assert account.hold(Spending(calls=1), caps) is None
    short = account.hold(Spending(calls=1), caps)
    assert short is not None
    assert short.batches.calls == 5


# -- what servers say --------------------------------------------------------------------------------------------------


def telling(serving: BatchProvider, what: str, change: Callable[[Any], Any]) -> None:
    """Change what the server says to one kind of question."""
    tell = serving._told

    async def told(request: Request, asked: str, do: Callable[[], Any]) -> Response:
        return await tell(request, asked, (lambda: change(do())) if asked == what else do)

    serving._told = told  # type: ignore[method-assign]


def left_before_its_id_is_known(serving: BatchProvider, home: Path, others: int) -> None:
    """A run ends behind the beginning of its batch; other programs begin some more."""
    serving.busy = True
    serving.fault = lambda what: "reset" if what == "created" else "500" if what == "listed" else ""
    with pytest.raises(UserError, match="may have begun a batch"):
        answers(ROWS, context(home, serving, watchdog_seconds=0.01), by=batching())
    assert pending(home)[0].server_id == ""
    serving.busy, serving.fault = False, lambda what: ""
    for _ in range(others):
        serving._begun({"input_file_id": serving._file(b""), "metadata": None})


@pytest.mark.parametrize("page", [{}, {"has_more": None}])
def test_a_batch_is_found_on_a_later_page_of_a_list_that_does_not_tell_of_more(
    serving: BatchProvider, tmp_path: Path, page: dict[str, Any]
) -> None:
    left_before_its_id_is_known(serving, tmp_path, others=4)
    telling(serving, "listed", lambda listed: {"data": listed["data"], **page})
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == len(ROWS)
    assert bought_once(serving, ROWS)


def test_what_other_programs_have_in_the_list_may_be_odd(serving: BatchProvider, tmp_path: Path) -> None:
    left_before_its_id_is_known(serving, tmp_path, others=3)
    ours = serving.batches["batch-0"]

    def odd(listed: dict[str, Any]) -> dict[str, Any]:
        strangers = [{"id": each["id"], "metadata": ["x"]} for each in listed["data"] if each is not ours]
        return {**listed, "data": [None, "x", *strangers, *(each for each in listed["data"] if each is ours)]}

    telling(serving, "listed", odd)
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == len(ROWS)
    assert bought_once(serving, ROWS)


@pytest.mark.parametrize("page", [{"message": "later"}, {"data": {"x": 1}}, {"data": [{}], "has_more": True}])
def test_a_list_that_is_none_does_not_pass_for_an_empty_one(
    serving: BatchProvider, tmp_path: Path, page: dict[str, Any]
) -> None:
    left_before_its_id_is_known(serving, tmp_path, others=0)
    telling(serving, "listed", lambda listed: page)
    with pytest.raises(UserError, match="its list of batches cannot be read"):
        answers(ROWS, context(tmp_path, serving, watchdog_seconds=0.01), by=batching())
    assert len(pending(tmp_path)) == 1


@pytest.mark.parametrize(("word", "status"), [("canceled", "cancelled"), ("Succeeded", "completed")])
def test_an_end_is_known_by_its_other_names(serving: BatchProvider, tmp_path: Path, word: str, status: str) -> None:
    telling(serving, "looked", lambda batch: {**batch, "status": word})
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == len(ROWS)
    assert [each["status"] for each in ended(tmp_path)] == [status]


def test_a_status_that_nobody_knows_is_not_waited_for(serving: BatchProvider, tmp_path: Path) -> None:
    looks: list[str] = []

    def odd(batch: dict[str, Any]) -> dict[str, Any]:
        looks.append(batch["id"])
        return {**batch, "status": "perished" if len(looks) < 2 else "completed"}

    telling(serving, "created", lambda batch: {**batch, "status": "hatching"})
    telling(serving, "looked", odd)
    with pytest.raises(UserError, match=r"batch-0 stands.*'perished' is none that is known.*--take") as told:
        answers(ROWS, context(tmp_path, serving), by=batching())
    assert "delete" not in str(told.value), "what it has would be paid for twice"
    assert len(pending(tmp_path)) == 1, "what it has may be answered"
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == len(ROWS)
    assert bought_once(serving, ROWS)


@pytest.mark.parametrize("status", WORKING)
def test_a_batch_that_is_worked_at_is_waited_for(serving: BatchProvider, tmp_path: Path, status: str) -> None:
    words = iter([status, "canceling"])
    telling(serving, "looked", lambda batch: {**batch, "status": next(words, "completed")})
    assert len(answers(ROWS, context(tmp_path, serving), by=batching())) == len(ROWS)
    assert serving.looks == {"batch-0": 3}


def test_an_upload_that_the_server_does_not_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = tmp_path / "upload.jsonl"
    with requests.open("wb") as file:
        file.truncate(64 << 20)  # more than lies in any buffer on the way
    monkeypatch.setattr(batch_server, "SLOWEST", SLOWEST * 1e6)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it takes connections, and nobody reads from them
        server = BatchServer(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", "NO_KEY", 0.5)
        with pytest.raises(TransportError, match="POST /files: .* or not all in 1 s") as refused:
            server.upload(requests)
    assert refused.value.cause == "timeout"
    assert refused.value.again


# -- several servers ---------------------------------------------------------------------------------------------------


def at_a_server_that_is_gone(journal: Journal) -> Batch:
    """A batch that lies with a server at which nobody answers any more."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    on_disk = Pending(journal.folder)
    batch = on_disk.begin(url, "rules", [entry(90)], [b"{}\n"], Spending(calls=1))
    return on_disk.update(batch, file="file-0", server_id=f"lost-{batch.id}")


def test_take_goes_on_behind_what_fails(
    serving: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_batch, "Runtime", lambda: Runtime(watchdog_seconds=0.01))
    gone = [at_a_server_that_is_gone(Journal(tmp_path / "journal")) for _ in range(2)]
    serving.busy = True
    for some in (ROWS[:1], ROWS[1:]):
        with until_later():
            answers(some, context(tmp_path, serving), by=batching(wait=False))
    serving.busy = False
    odd = {**serving.batches["batch-0"], "status": "perished"}
    telling(serving, "looked", lambda batch: odd if batch["id"] == "batch-0" else batch)
    with pytest.raises(UserError) as refused:
        take_all(Journal(tmp_path / "journal"), lambda message: None)
    for lost in (*(batch.server_id for batch in gone), "batch-0"):
        assert f"does not tell how batch {lost} stands" in str(refused.value)
    assert [each["server_id"] for each in ended(tmp_path)] == ["batch-1"]
    assert len(pending(tmp_path)) == 3


def test_take_asks_nothing_of_a_batch_that_the_server_may_not_have(
    serving: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_batch, "Runtime", lambda: Runtime(watchdog_seconds=0.01))
    serving.busy = True
    with until_later():
        answers(ROWS[1:], context(tmp_path, serving), by=batching(wait=False))
    serving.fault = lambda what: "reset" if what == "created" else "500" if what == "listed" else ""
    with pytest.raises(UserError, match="may have begun a batch"):
        answers(ROWS[:1], context(tmp_path, serving, watchdog_seconds=0.01), by=batching())
    serving.busy = False
    with pytest.raises(UserError, match="may have begun a batch") as refused:
        take_all(Journal(tmp_path / "journal"), lambda message: None)
    assert "does not tell" not in str(refused.value)
    assert [each["answered"] for each in ended(tmp_path)] == [2]


def test_take_waits_once_for_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk, asked = Pending(tmp_path), Counter[str]()
    for name in ("one", "two"):
        batch = on_disk.begin("http://a/v1", "rules", [entry(len(name))], [b"{}\n"], Spending(calls=1))
        on_disk.update(batch, file=f"file-{name}", server_id=name)

    def silent(_: BatchServer, name: str) -> None:
        asked[name] += 1
        if asked.total() == 1:
            raise UserError("the server has not answered for long")
        raise TransportError("connection", "nobody is there")

    monkeypatch.setattr(BatchServer, "batch", silent)
    monkeypatch.setattr(openai_batch, "Runtime", lambda: Runtime(watchdog_seconds=0.5))
    with pytest.raises(SeveralMistakes) as refused:
        take_all(Journal(tmp_path), lambda message: None)
    assert len(refused.value.mistakes) == 2
    assert sorted(asked.values()) == [1, 1]
