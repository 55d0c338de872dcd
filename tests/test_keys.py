"""Golden keys: a change of the code must not re-address what users have built and paid for.

`keys.json` holds, for one command line each, the key of every stage (presets) or of the whole experiment (the rest). A
key that is meant to change is changed here and told in CHANGELOG.md, with what is rebuilt and what is bought again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speed.pipeline import pipeline

GOLDEN: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "keys.json").read_text())


@pytest.mark.parametrize("command", sorted(GOLDEN))
def test_keys_stay(compose: Any, command: str) -> None:
    goals = pipeline(compose(*command.split())).goals()
    found = {goal.label: goal.key for goal in goals}
    assert {label: found.get(label) for label in GOLDEN[command]} == GOLDEN[command]
