"""Which stages run again after which change: users rely on it, so each change names its stages here."""

from __future__ import annotations

from typing import Any

import pytest

from speed.pipeline import pipeline

AFTER_SYNTHESIS = ["revision", "dedup", "embedder", "evaluation"]
FROM_SENIOR = ["senior", "synthesis", *AFTER_SYNTHESIS]
FROM_JUNIOR = ["junior", "root data", "preferences", "revisions", "revisor", *FROM_SENIOR]
FROM_SEED = ["seed data", *FROM_JUNIOR]
FROM_TASKS = ["tasks for seed", "tasks for root", "tasks for synthesis", *FROM_SEED]

CHANGES: list[tuple[str, list[str]]] = [
    ("preference.dpo.beta=0.3", FROM_SENIOR),
    ("preference=ipo", FROM_SENIOR),
    ("senior=smoke", FROM_SENIOR),
    ("+experiment=ablation_no_dpo", ["synthesis", *AFTER_SYNTHESIS]),
    ("+experiment=ablation_no_revisor", ["dedup", "embedder", "evaluation"]),
    ("+experiment=ablation_sft_only", ["synthesis", "dedup", "embedder", "evaluation"]),
    ("generator=tiny_qwen", FROM_JUNIOR),
    ("sampling.synthesis.temperature=0.8", ["synthesis", *AFTER_SYNTHESIS]),
    ("sampling.revision.temperature=0.5", AFTER_SYNTHESIS),
    ("sampling.root.temperature=0.5", ["root data", "preferences", "revisions", "revisor", *FROM_SENIOR]),
    ("scale.factor=2", ["dedup", "embedder", "evaluation"]),
    ("counts.sft_factor=2", FROM_JUNIOR),
    ("counts.sft_attempts=2", ["seed data", *FROM_JUNIOR]),
    ("scale.attempts=2", ["synthesis", *AFTER_SYNTHESIS]),
    ("guidelines=strict", ["seed data", *FROM_JUNIOR]),
    ("judge=swap", ["preferences", *FROM_SENIOR]),
    ("counts.pairs_factor=0.5", FROM_SENIOR),
    ("counts.revisions_factor=0.5", ["revisor", *AFTER_SYNTHESIS]),
    ("diversity=three_tasks", FROM_SEED),
    ("diversity=untruncated", ["topics", *FROM_TASKS]),
    ("seed=1", FROM_JUNIOR),
    ("dedup=none", ["dedup", "embedder", "evaluation"]),
    ("scale.keep=230", ["dedup", "embedder", "evaluation"]),
    ("+experiment=teacher_data", ["dedup", "embedder", "evaluation"]),
    ("embedder.temperature=0.1", ["embedder", "evaluation"]),
    ("runtime.side_by_side=1", []),
    ("runtime.devices=cpu", []),
    ("runtime.devices=[0,1,2,3,4,5,6,7]", []),
    ("runtime.device_gb=80", []),
    ("runtime.threads=3", []),
    ("tracker=none", []),
]


def labels_and_keys(config: Any) -> dict[str, str]:
    return {goal.label: goal.key for goal in pipeline(config).goals()}


@pytest.mark.parametrize(("change", "rebuilt"), CHANGES)
def test_stages_that_a_change_rebuilds(compose: Any, change: str, rebuilt: list[str]) -> None:
    before, after = labels_and_keys(compose()), labels_and_keys(compose(change))
    assert sorted(label for label, key in after.items() if before.get(label) != key) == sorted(rebuilt)


def test_a_larger_scale_extends_the_pools(compose: Any) -> None:
    """Same keys, more rows: what is built already is the beginning of what is wanted."""
    before = {goal.label: goal.rows for goal in pipeline(compose()).goals()}
    after = {goal.label: goal.rows for goal in pipeline(compose("scale.factor=2")).goals()}
    grown = {label for label in after if after[label] > before[label]}
    assert grown == {"tasks for synthesis", "synthesis", "revision"}
    assert before["synthesis"] == 460
    assert after["synthesis"] == 920


@pytest.mark.parametrize("order", [("", "+experiment=teacher_data"), ("+experiment=teacher_data", "")])
def test_seed_data_are_the_first_rows_of_the_teachers_corpus(compose: Any, order: tuple[str, str]) -> None:
    """C.2: one pool, two takes. 230,000 rows and their tasks are bought once, whichever run comes first."""
    bought: dict[str, int] = {}
    calls = []
    for experiment in order:
        new = 0
        for goal in pipeline(compose(*f"preset=paper {experiment}".split())).goals():
            if goal.label in ("seed data", "tasks for seed"):
                new += goal.node.work(min(bought.get(goal.key, 0), goal.rows), goal.rows).calls  # type: ignore[attr-defined]
                bought[goal.key] = max(bought.get(goal.key, 0), goal.rows)
        calls.append(new)
    assert len(bought) == 2
    assert sum(calls) == 230_000 + 53_342
    assert calls == ([25_000 + 5_806, 205_000 + 47_536] if not order[0] else [230_000 + 53_342, 0])
