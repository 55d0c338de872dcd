"""The account of a root: what is paid and held together never passes a cap, whoever pays and whoever dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from test_journal import entry

from speed.teaching import index
from speed.teaching.entry import Spending
from speed.teaching.journal import Journal
from speed.teaching.spending import EVERY, LATELY, Account, Caps, Neighbours

CALL = Spending(0.25, 30, 1)


def bought(account: Account, journal: Journal, row: int, caps: Caps) -> bool:
    """Hold, write down and release one answer, or say that there is no room."""
    if account.hold(CALL, caps) is not None:
        return False
    journal.append(entry(row, tokens_in=10, tokens_out=20))
    account.release(CALL)
    return True


@pytest.mark.parametrize("caps", [Caps(calls=10), Caps(tokens=300), Caps(dollars=2.5), Caps(2.5, 300, 10)])
def test_two_processes_stop_at_one_cap(tmp_path: Path, caps: Caps) -> None:
    journals = [Journal(tmp_path), Journal(tmp_path)]
    accounts = [Account(journal) for journal in journals]
    rows = [row for row in range(40) if bought(accounts[row % 2], journals[row % 2], row, caps)]
    assert rows == list(range(10))
    short = accounts[0].hold(CALL, caps)
    assert short is not None
    assert (short.paid, short.held) == (Spending(2.5, 300, 10), Spending())


def test_what_is_held_leaves_no_room_until_it_is_released(tmp_path: Path) -> None:
    one, two = Account(Journal(tmp_path)), Account(Journal(tmp_path))
    caps = Caps(tokens=50)
    assert one.hold(CALL, caps) is None
    short = two.hold(CALL, caps)
    assert short is not None
    assert (short.cap, short.paid.tokens, short.held.tokens) == ("tokens", 0, 30)
    one.release(CALL)
    assert two.hold(CALL, caps) is None


def test_what_the_journal_held_before_counts(tmp_path: Path) -> None:
    before = Journal(tmp_path)
    for row in range(7):
        before.append(entry(row))
    before.append(entry(7, cause="timeout", answered=False))
    before.close()
    journal = Journal(tmp_path)
    account = Account(journal)
    assert [bought(account, journal, row, Caps(calls=10)) for row in range(10, 14)] == [True, True, True, False]
    again = Journal(tmp_path)
    assert not bought(Account(again), again, 20, Caps(calls=10))
    assert bought(Account(again), again, 20, Caps(calls=11))


HOLDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_spending import CALL, bought
from speed.teaching.journal import Journal
from speed.teaching.spending import Account, Caps
journal = Journal(Path(sys.argv[1]))
account, first = Account(journal), int(sys.argv[3])
paid = 0
while paid < int(sys.argv[4]) and bought(account, journal, first + paid, Caps(calls=100)):
    paid += 1
journal.flush()
account.hold(CALL, Caps(calls=100)) if len(sys.argv) > 5 else None
print(paid, flush=True)
sys.stdin.read() if len(sys.argv) > 5 else None  # until it is killed
"""


def holder(folder: Path, first: int, wanted: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), str(Path(__file__).parent), str(first), str(wanted), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_many_processes_at_once_pay_exactly_the_cap(tmp_path: Path) -> None:
    running = [holder(tmp_path, 1000 * place, 1000) for place in range(4)]
    paid = [int(process.communicate()[0]) for process in running]
    assert sum(paid) == 100
    assert len(Journal(tmp_path)) == 100


def test_what_a_killed_process_held_is_free_again_and_what_it_paid_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    account, caps = Account(journal), Caps(calls=6)
    process = holder(tmp_path, 1000, 3, "and hold one more")
    assert process.stdout is not None
    assert process.stdout.readline() == "3\n"
    assert account.hold(Spending(calls=3), caps) is not None, "three paid, one held, two left"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert account.hold(Spending(calls=3), caps) is None
    assert account.hold(Spending(calls=1), caps) is not None


@pytest.mark.parametrize("damage", ["gone", "garbage", "half"])
def test_what_is_held_and_paid_survives_the_loss_of_the_index(tmp_path: Path, damage: str) -> None:
    journals = [Journal(tmp_path), Journal(tmp_path)]
    one, two = (Account(journal) for journal in journals)
    caps = Caps(calls=5)
    assert bought(one, journals[0], 0, caps)
    assert bought(two, journals[1], 1, caps)
    assert one.hold(CALL, caps) is None
    file = next(tmp_path.glob("index*.sqlite"))
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(os.urandom(9000) if damage == "garbage" else whole[: len(whole) // 2])
    one.release(CALL)
    assert one.hold(CALL, caps) is None
    assert bought(two, journals[1], 3, caps)
    assert bought(two, journals[1], 4, caps)
    assert not bought(two, journals[1], 5, caps), "three paid by the second, one paid and one held by the first"
    one.release(CALL)
    assert bought(one, journals[0], 2, caps)
    assert not bought(one, journals[0], 6, caps)


def test_a_locked_index_leaves_each_process_its_own_caps_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "BUSY_SECONDS", 0.01)
    before = Journal(tmp_path)
    before.append(entry(0, tokens_in=10, tokens_out=20))
    before.close()
    said: list[str] = []
    journal, other = Journal(tmp_path, said.append), Journal(tmp_path)
    locked = sqlite3.connect(next(tmp_path.glob("index*.sqlite")))
    locked.execute("BEGIN EXCLUSIVE")
    accounts, caps = (Account(journal), Account(other)), Caps(calls=3)
    rows = [row for row in range(1, 9) if bought(accounts[0], journal, row, caps)]
    assert rows == [1, 2], "what was paid before counts, found in the files"
    assert sum("keeps runtime.concurrency and the caps by itself" in message for message in said) == 1
    assert journal.get(entry(0).key) is not None
    assert journal.get(entry(2).key) is not None
    assert not bought(accounts[1], other, 9, caps), "what others have paid is found in their files"
    locked.close()
    journal.close()
    other.close()
    assert len(Journal(tmp_path)) == 3


def neighbours(folder: Path, clock: list[float], *models: str) -> list[Neighbours]:
    """One process for each model asked for, all on one clock."""
    return [Neighbours(Journal(folder), "http://a/v1", model, lambda: clock[0]) for model in models]


def test_those_who_ask_divide_the_places(tmp_path: Path) -> None:
    one, two, other = neighbours(tmp_path, [1000.0], "m", "m", "n")
    for each in (one, other):
        each.join()
    assert (one.share(8), other.share(8)) == (8, 8)
    two.join()
    assert two.share(8) == 4
    one.join()  # a second stage of the same process looks again
    assert one.share(8) == 4
    one.leave()
    two.leave()
    one.join()
    assert one.share(8) == 8
    assert (one.share(1), other.share(8)) == (1, 8)


def test_who_was_killed_is_forgotten(tmp_path: Path) -> None:
    clock = [1000.0]
    killed, alive = neighbours(tmp_path, clock, "m", "m")
    killed.join()
    killed.share(8)
    alive.join()
    assert alive.share(8) == 4
    clock[0] += LATELY - 1
    assert alive.share(8) == 4
    clock[0] += EVERY + 1
    assert alive.share(8) == 8


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "index-3.sqlite").mkdir()
    (alone,) = neighbours(tmp_path, [1000.0], "m")
    alone.join()
    assert alone.share(8) == 8
    alone.leave()
