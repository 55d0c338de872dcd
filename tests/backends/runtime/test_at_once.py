"""What did not fit into memory is remembered, and work is begun again until it fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_generator import context

from speed.backends.runtime.at_once import AtOnce, DoesNotFit, until_it_fits
from speed.backends.runtime.processes import _first_failure
from speed.backends.runtime.rank import report_failure
from speed.core.errors import UserError


def test_another_process_begins_with_what_fitted_and_other_work_does_not(tmp_path: Path) -> None:
    one = AtOnce(context(tmp_path), ["training", "a"], 16, "rows", "trainer.micro_batch")
    assert one.value == 16
    assert one.lower(4) == "16 rows at once do not fit into memory: 4 from now on"
    assert AtOnce(context(tmp_path), ["training", "a"], 16, "rows").value == 4
    assert AtOnce(context(tmp_path), ["training", "b"], 16, "rows").value == 16
    assert AtOnce(context(tmp_path), ["training", "a"], 8, "rows").value == 8, "what is asked for counts"


@pytest.mark.parametrize("content", ["", "{}", '{"at_once": null}', '{"at_once": 99}'])
def test_a_damaged_file_is_as_none(content: str, tmp_path: Path) -> None:
    one = AtOnce(context(tmp_path), "x", 16, "rows")
    one.lower(4)
    one.file.write_text(content)
    assert AtOnce(context(tmp_path), "x", 16, "rows").value == 16


def test_only_what_was_lowered_is_told(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    one = AtOnce(ctx, "x", 16, "rows", "trainer.micro_batch")
    one.tell()
    assert "at_once" not in ctx.tally.metrics
    one.lower(4)
    one.tell()
    assert ctx.tally.metrics["at_once"] == (
        "4 rows were computed at once, since 16 did not fit into memory; trainer.micro_batch=4 begins with them"
    )


def test_work_is_begun_again_for_this_reason_alone(tmp_path: Path) -> None:
    left = [DoesNotFit("8 from now on"), DoesNotFit("4 from now on")]

    def work() -> None:
        if left:
            raise left.pop(0)

    ctx = context(tmp_path)
    until_it_fits(work, ctx)
    assert [event["message"] for event in ctx.events] == ["8 from now on", "4 from now on"]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="no key"):
        until_it_fits(lambda: (_ for _ in ()).throw(UserError("no key")), ctx)


def test_a_rank_that_does_not_fit_explains_what_became_of_the_others(tmp_path: Path) -> None:
    """They are told that a neighbour was lost, often before it says why."""
    (tmp_path / "torchrun.log").write_text("")
    report_failure(tmp_path, 1, RuntimeError("connection closed by peer"), ["lost"])
    assert isinstance(_first_failure(tmp_path, 1), RuntimeError)
    report_failure(tmp_path, 0, DoesNotFit("2 rows from now on"), ["too large"])
    found = _first_failure(tmp_path, 1)
    assert isinstance(found, DoesNotFit)
    assert str(found) == "2 rows from now on"
