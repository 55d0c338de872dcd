"""The purse of a root: what is paid and held together never passes a cap, whoever pays and whoever dies."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_journal import entry

from speed.teaching.account import NAME, Account
from speed.teaching.caps import Caps, Spending
from speed.teaching.journal import Journal

CALL = Spending(0.25, 30, 1)


def bought(account: Account, journal: Journal, row: int, caps: Caps) -> bool:
    """Hold, append and settle one answer, or say that there is no room."""
    if account.hold(CALL, caps) is not None:
        return False
    journal.append(entry(row, tokens_in=10, tokens_out=20))
    account.settle(CALL, CALL)
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


def test_what_is_held_leaves_no_room_until_it_is_settled(tmp_path: Path) -> None:
    one, two = Account(Journal(tmp_path)), Account(Journal(tmp_path))
    caps = Caps(tokens=50)
    assert one.hold(CALL, caps) is None
    short = two.hold(CALL, caps)
    assert short is not None
    assert (short.cap, short.paid.tokens, short.held.tokens) == ("tokens", 0, 30)
    one.settle(CALL, Spending())
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
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_account import CALL, bought
from speed.teaching.account import Account
from speed.teaching.caps import Caps
from speed.teaching.journal import Journal
journal = Journal(Path(sys.argv[1]))
account, first = Account(journal), int(sys.argv[3])
paid = 0
while paid < int(sys.argv[4]) and bought(account, journal, first + paid, Caps(calls=100)):
    paid += 1
journal.flush()
account.hold(CALL, Caps(calls=100)) if len(sys.argv) > 5 else None
print(paid, flush=True)
time.sleep(60 if len(sys.argv) > 5 else 0)
"""


def holder(folder: Path, first: int, wanted: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), str(Path(__file__).parent), str(first), str(wanted), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_many_processes_at_once_pay_exactly_the_cap(tmp_path: Path) -> None:
    running = [holder(tmp_path, 1000 * place, 1000) for place in range(4)]
    paid = [int(process.communicate(timeout=60)[0]) for process in running]
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


def test_a_damaged_file_of_what_is_held_is_written_again(tmp_path: Path) -> None:
    journals = [Journal(tmp_path), Journal(tmp_path)]
    one, two = (Account(journal) for journal in journals)
    caps = Caps(calls=4)
    assert bought(one, journals[0], 0, caps)
    assert bought(two, journals[1], 1, caps)
    (tmp_path / NAME).write_bytes(b'{"cleared": 0, "ro')
    assert bought(one, journals[0], 2, caps)
    assert bought(two, journals[1], 3, caps)
    assert not bought(one, journals[0], 4, caps)
    assert not bought(two, journals[1], 4, caps)
