"""A stage whose answers are under way elsewhere: what does not stand on it is built, and then the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import Elsewhere, ElsewhereHere, Failing, Numbers, Report, Sum

from speed.core.build_all import build_all
from speed.core.errors import Later, UserError
from speed.core.graph import goals
from speed.core.stage import Stage
from speed.core.store import Store
from speed.runtime import Runtime


def ended(wanted: list[Any], home: Path) -> tuple[UserError, list[tuple[str, str]]]:
    """How a run ended, and its events."""
    events: list[tuple[str, str]] = []

    def listen(label: str, event: dict[str, Any]) -> None:
        events.append((label, event["event"]))

    with pytest.raises(UserError) as raised:
        build_all(goals(wanted), Store(home).open(), Runtime(), listen, home / "logs")
    return raised.value, events


@pytest.mark.parametrize("kind", [Elsewhere, ElsewhereHere])
def test_what_does_not_wait_is_built_before_the_run_ends(kind: type[Elsewhere], tmp_path: Path) -> None:
    other = Sum(Numbers(3).take(8))
    waiting: list[Stage[Any]] = [Report(kind(2)), kind(3), Report(other)]
    told, events = ended(waiting, tmp_path)
    assert isinstance(told, Later)
    assert str(told) == (
        "elsewhere 2: 2 requests are with a server\n  the same command takes their answers later\n"
        "elsewhere 3: 3 requests are with a server\n  the same command takes their answers later"
    )
    assert sorted(label for label, event in events if event == "later") == ["elsewhere 2", "elsewhere 3"]
    assert {label for label, event in events if event == "done"} == {"numbers", "sum", "note"}
    store = Store(tmp_path).open()
    assert store.manifest(Report(other)) is not None
    assert store.manifest(Report(kind(2))) is None


def test_a_mistake_ends_the_run_at_once(tmp_path: Path) -> None:
    told, events = ended([Report(ElsewhereHere(2)), Failing("user")], tmp_path)
    assert (type(told), str(told)) == (UserError, "failing: key x=1: take 2")
    assert ("elsewhere 2", "later") in events
