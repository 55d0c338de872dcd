"""Odd servers and unlucky moments of batches: no cap is passed, no batch forgotten, no server keeps others waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_journal import entry

from speed.teaching.entry import Spending
from speed.teaching.journal import Journal
from speed.teaching.pending import Batch, Pending
from speed.teaching.spending import Account, Caps


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
