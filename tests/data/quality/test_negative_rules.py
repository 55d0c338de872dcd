"""When a hard negative is left out."""

from __future__ import annotations

import pytest

from speed.data.quality.negative_rules import CAUSES, NegativeRules


def test_a_share_of_the_positive_is_the_limit() -> None:
    rules = NegativeRules(positive_share=0.95)
    assert [rules.cause(0.8, negative) for negative in (0.9, 0.76, 0.7599)] == ["near_positive", "near_positive", ""]
    below = [rules.cause(-0.2, negative) for negative in (-0.1, -0.195, -0.205, -0.215)]
    assert below == ["near_positive"] * 3 + [""], "nearer than a positive that is below 0, or nearly so"


def test_a_margin_has_two_ends_which_stay() -> None:
    rules = NegativeRules(margin=(0.25, 0.5))
    found = [rules.cause(0.75, negative) for negative in (0.51, 0.5, 0.25, 0.24)]
    assert found == ["below_margin", "", "", "above_margin"]
    assert set(found) - {""} <= set(CAUSES)


def test_without_rules_nothing_is_left_out() -> None:
    assert not NegativeRules().any
    assert NegativeRules(top=5).any
    assert NegativeRules().cause(0.1, 1.0) == ""


def test_a_margin_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be less than"):
        NegativeRules(margin=(0.5, 0.5))
