"""The last lines of a plan are sums done by hand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from speed.core.graph import StageStatus, stage_statuses
from speed.core.machine import GIGABYTE
from speed.core.store import Store
from speed.data.costs.gpu_hours import evaluation_hours, generation_hours
from speed.data.costs.memory import fit, training_hours
from speed.data.costs.model_shapes import KNOWN
from speed.data.evaluation_datasets import evaluation_datasets
from speed.pipeline import pipeline
from speed.runs.gpu_memory import memory_lines
from speed.runs.resources import resource_lines, resources
from speed.runs.tables import paragraph

LLAMA, MISTRAL = KNOWN["meta-llama/Meta-Llama-3-8B"], KNOWN["mistralai/Mistral-7B-v0.1"]


def found(config: Any, home: Path) -> list[StageStatus]:
    return stage_statuses(pipeline(config).goals(), Store(home))


def test_a_step_of_generation_reads_weights_and_what_is_kept() -> None:
    """256 texts of 100 + 200 tokens: 16.06 GB of weights, 256 x 200 tokens of 128 KB; 200 steps for each 256 texts."""
    step = (2 * 8_030_261_248 + 256 * 200 * 131_072) / 1.2e12
    prompts = 2 * 8_030_261_248 * 100 * 2_560 / (312e12 * 0.4)
    assert generation_hours(LLAMA, 2_560, 100, 200) == pytest.approx((10 * 200 * step + prompts) / 3600)
    alone = (2 * 8_030_261_248 + 200 * 131_072) / 1.2e12 * 200 + prompts / 2_560
    assert generation_hours(LLAMA, 1, 100, 200) == pytest.approx(alone / 3600), "fewer texts than fit"


def test_a_plan_says_how_long_the_evaluation_takes(compose: Any, tmp_path: Path) -> None:
    """By the clock: the characters of all tasks, read once, by one GPU or by all that there are."""
    characters = sum(each.characters for each in evaluation_datasets("mteb_v1"))
    for precision in ("bf16", "fp32"):
        config = compose("preset=paper", "topics=miniature", f"eval.precision={precision}")
        told = " ".join(resource_lines(config, found(config, tmp_path / "home"))).replace("\n", " ")
        hours = evaluation_hours(MISTRAL, characters, precision)
        assert hours > 1
        assert f"evaluation: about {hours:,.0f} hours, since one GPU encodes all of its texts" in told
        eight = compose(
            "preset=paper",
            "topics=miniature",
            f"eval.precision={precision}",
            "runtime.devices=[0,1,2,3,4,5,6,7]",
        )
        told = " ".join(resource_lines(eight, found(eight, tmp_path / "home"))).replace("\n", " ")
        assert f"evaluation: about {hours / 8:,.0f} hours, since 8 GPUs share its texts" in " ".join(told.split())
    small = compose("topics=miniature")
    assert "evaluation: about" not in " ".join(resource_lines(small, found(small, tmp_path / "home")))


def told_of(compose: Any, home: Path, *settings: str, measured: dict[str, float] | None = None) -> str:
    """The last lines of a plan of the paper's run, as one."""
    config = compose("preset=paper", "topics=miniature", *settings)
    return " ".join(" ".join(resource_lines(config, found(config, home), measured)).split())


@pytest.mark.parametrize(
    ("gigabytes", "precision", "slower", "said"),
    [
        (80, "bf16", 1.0, ""),
        (39.4, "bf16", 1.0, ""),
        (23.6, "bf16", 312 / 165, " at 165 Tflop/s"),
        (24, "fp32", 19.5 / 82.6, " at 82.6 Tflop/s"),
    ],
)
def test_the_hours_of_the_evaluation_are_those_of_the_gpus_that_are_there(
    compose: Any, tmp_path: Path, gigabytes: float, precision: str, slower: float, said: str
) -> None:
    characters = sum(each.characters for each in evaluation_datasets("mteb_v1"))
    hours = evaluation_hours(MISTRAL, characters, precision) / 2 * slower
    machine = (f"eval.precision={precision}", "runtime.devices=[0,1]", f"runtime.device_gb={gigabytes}")
    told = f"evaluation: about {hours:,.0f} hours, since 2 GPUs share its texts{said}; vectors"
    assert told in told_of(compose, tmp_path, *machine)
    told = "evaluation: about 30 hours, since 2 GPUs share its texts; vectors"
    assert told in told_of(compose, tmp_path, *machine, measured={"evaluation": 60.0}), "measured on them"


def test_a_base_that_is_scored_too_takes_its_time_and_vectors(compose: Any, tmp_path: Path) -> None:
    small, base = KNOWN["Qwen/Qwen2.5-0.5B"], "embedder=qwen2_5_500m"
    characters = sum(each.characters for each in evaluation_datasets("mteb_v1"))
    config = compose("preset=paper", "topics=miniature", base)
    statuses = found(config, tmp_path / "home")
    twice = 2 * evaluation_hours(small, characters, "bf16")
    assert resources(config, statuses).hours["evaluation"]["evaluation"] == pytest.approx(twice)
    (node,) = (status.goal.node for status in statuses if status.goal.label == "evaluation")
    assert node.trial().tokens_expected == pytest.approx(2 * characters / 4.5)
    told = told_of(compose, tmp_path / "home", base)
    assert f"about {twice:,.0f} hours for the embedder and its base, since one GPU encodes all of its texts" in told
    vectors = 2 * characters / 430 * small.hidden * 4 / 1e9
    assert f"the evaluation's text vectors take about {vectors:,.0f} GB" in told


PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
PLANS = re.findall(r"```bash\npython -m speed.run (preset=.*)\n```\n\n((?:    .*\n)+)", PAGE)
"""Commands of a page with what is shown of their plans."""


@pytest.mark.parametrize(("command", "shown"), PLANS, ids=[command.split()[0] for command, _ in PLANS])
def test_the_plans_of_the_page_are_what_is_printed(compose: Any, tmp_path: Path, command: str, shown: str) -> None:
    config = compose(*(word for word in shlex.split(command) if word != "plan=true"))
    statuses = found(config, tmp_path / "home")
    printed = " ".join(" ".join([*resource_lines(config, statuses), *memory_lines(config, statuses)]).split())
    shown = shown.replace("\n    training ", " training ")  # one line of the plan, wrapped
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert len(lines) >= 3
    assert [line for line in lines if line and line not in printed] == []


def test_three_plans_are_shown() -> None:
    assert len(PLANS) == 3


def test_a_plan_for_a_cluster_and_one_for_a_machine_that_may_go_are_that_of_the_machine(
    compose: Any, tmp_path: Path
) -> None:
    [eight] = [shlex.split(command) for command, _ in PLANS if "preset=paper" in command and "nodes=2" not in command]
    plans = []
    for more in (
        (),
        ("runtime.cluster=ray", "runtime.address=10.0.0.1:6379"),
        ("runtime.grace_seconds=300", "runtime.checkpoint_seconds=600"),
    ):
        config = compose(*(word for word in eight if word != "plan=true"), *more)
        statuses = found(config, tmp_path / "home")
        plans.append([*resource_lines(config, statuses), *memory_lines(config, statuses)])
    assert plans[0] == plans[1] == plans[2]


def test_a_plan_says_which_vectors_are_not_kept_and_what_would_keep_them(compose: Any, tmp_path: Path) -> None:
    """MTEB(eng, v1) has 38 million texts by mteb's statistics, each with 4,096 numbers of 4 bytes: 625 GB."""
    told = told_of(compose, tmp_path)
    assert "the evaluation's text vectors take about 625 GB, and runtime.vectors_gb=50 keeps the first 50:" in told
    assert "for each task that has them; runtime.vectors_gb=690 would keep all" in told
    for enough in ("runtime.vectors_gb=690", "runtime.vectors_gb=626", "runtime.vectors_gb=0"):
        assert "text vectors take" not in told_of(compose, tmp_path, enough)
    assert "keeps the first 620" in told_of(compose, tmp_path, "runtime.vectors_gb=620"), "GB as that setting counts"


def test_encoding_takes_two_operations_a_weight_and_token() -> None:
    whole = 2 * 7_241_732_096 * 1_000_000 / (312e12 * 0.4) / 3600
    assert evaluation_hours(MISTRAL, 4_500_000, "bf16") == pytest.approx(whole)
    assert evaluation_hours(MISTRAL, 4_500_000, "fp32") == pytest.approx(whole * 312 / 19.5)


def test_the_papers_run_by_hand(compose: Any, tmp_path: Path) -> None:
    config = compose("preset=paper", "topics=miniature", "eval.precision=fp32")
    statuses = found(config, tmp_path / "home")
    needed = resources(config, statuses)
    assert list(needed.hours["generation"]) == ["root data", "synthesis", "revision"]
    assert set(needed.hours["training"]) == {"junior", "senior", "revisor", "embedder"}
    revisor = next(status for status in statuses if status.goal.label == "revisor")
    training = revisor.goal.node.training()
    fitted = fit(LLAMA, training.trainer.footprint(), training.config, 80)
    assert fitted is not None
    assert fitted.gpus == 2
    tokens = revisor.work.trained * training.tokens_a_row
    alone = training_hours(LLAMA, training.trainer.footprint(), tokens, fitted, 80)
    assert needed.hours["training"]["revisor"] == pytest.approx(2 * alone), "hours of all GPUs together"
    assert needed.disk["models of the hub"] == 2 * (8_030_261_248 + 7_241_732_096)
    assert needed.disk["checkpoints"] == 2 * (12 + 2) * 8_030_261_248, (
        "all weights of the revisor with Adam's moments, and once more as ZeRO-3 gathers them"
    )
    assert needed.disk["trained models"] == pytest.approx(
        2 * 8_030_261_248 + 2 * 2 * 41_943_040 + 2 * 7_241_732_096 + 4 * 41_943_040
    ), "gathered in bf16, but for the embedder's adapter"
    characters = sum(each.characters for each in evaluation_datasets("mteb_v1"))
    assert needed.disk["evaluation data"] == 2 * characters
    assert needed.hours["evaluation"]["evaluation"] == pytest.approx(evaluation_hours(MISTRAL, characters, "fp32"))
    lines = resource_lines(config, statuses)
    assert f"about {sum(needed.disk.values()) / GIGABYTE:,.0f} GB" in lines[0]
    assert "bf16 takes 6% of its hours" in lines[2]
    assert lines[-1].startswith("assumed: 40% of 312 Tflop/s")
    assert max(len(line) for text in lines for line in text.splitlines()) <= 120


def test_copies_of_the_model_write_what_they_train_in_fp32(compose: Any, tmp_path: Path) -> None:
    config = compose("preset=paper", "topics=miniature", "runtime.strategy=ddp")
    needed = resources(config, found(config, tmp_path / "home"))
    assert needed.disk["checkpoints"] == 2 * 12 * 8_030_261_248
    assert needed.disk["trained models"] == pytest.approx(
        4 * 8_030_261_248 + 2 * 4 * 41_943_040 + 2 * 7_241_732_096 + 4 * 41_943_040
    )


def test_a_teacher_that_writes_all_needs_no_gpu_for_it(compose: Any, tmp_path: Path) -> None:
    config = compose("preset=paper", "topics=miniature", "+experiment=teacher_data")
    needed = resources(config, found(config, tmp_path / "home"))
    assert needed.hours["generation"] == {}
    assert list(needed.hours["training"]) == ["embedder"]


def test_an_embedder_takes_longer_with_more_hard_negatives(compose: Any, tmp_path: Path) -> None:
    """Two texts and four hard negatives in place of two and one; instructions stay as they are."""
    one, four = (
        resources(config, stage_statuses(pipeline(config).goals(), Store(tmp_path).open())).hours["training"][
            "embedder"
        ]
        for config in (compose("preset=paper"), compose("preset=paper", "negatives=mined"))
    )
    assert 1.7 * one < four < 2 * one


def test_small_and_unknown_models_are_said(compose: Any, tmp_path: Path) -> None:
    config = compose()
    assert resource_lines(config, found(config, tmp_path / "home"))[1].startswith("GPU-hours: none")
    config = compose("generator.base=someone/unknown")
    told = next(line for line in resource_lines(config, found(config, tmp_path / "home")) if "unknown" in line)
    unknown = set(" ".join(told.split()).partition(": ")[2].split(", "))
    assert unknown == {"junior", "root data", "senior", "synthesis", "revisor", "revision"}


def test_a_paragraph_keeps_its_lines_and_words() -> None:
    text = "word " * 40 + "\n  " + "/a/path" * 30
    lines = paragraph(text, 4).split("\n")
    assert [line[:6] for line in lines] == ["word w", "    wo", "  /a/p"]
    assert "/a/path" * 30 in lines[2]
