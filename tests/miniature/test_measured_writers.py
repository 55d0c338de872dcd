"""The script of the measured table finds what each writer has written."""

from __future__ import annotations

from typing import Any

import pytest
from measure_miniature import KEPT, WRITERS, WRITES, overrides

from speed.pipeline import pipeline


@pytest.mark.parametrize("writer", WRITERS)
def test_each_writer_has_its_stage(compose: Any, writer: str) -> None:
    goals = pipeline(compose(*overrides(1, writer, KEPT))).goals()
    assert WRITES[writer] in [goal.label for goal in goals]
