"""A multirun ends with its points: score, seeds, cost, and what was reused."""

from __future__ import annotations

from pathlib import Path

from made_runs import made_run

from speed.runs.multirun import BEGUN, Multirun, begin
from speed.studies.sweep_table import text


def rows(multirun: Multirun) -> dict[str, list[str]]:
    """The table by point."""
    lines = text(multirun).splitlines()
    return {
        cells[0]: cells[1:]
        for line in lines
        if len(cells := [each for each in line.split("  ") if each.strip("- ")]) > 3
    }


def jobs(*betas: float, seeds: int = 1) -> tuple[tuple[str, ...], ...]:
    return tuple(
        ("judge=vote", f"preference.dpo.beta={beta}", f"seed={seed}") for beta in betas for seed in range(seeds)
    )


def test_points_over_seeds_with_what_was_paid_and_reused(tmp_path: Path) -> None:
    made_run(tmp_path, 99, jobs(0.1)[0], "beta")  # of an earlier multirun
    begin(tmp_path, "beta", jobs(0.1, 0.3, seeds=2))
    [multirun] = BEGUN
    for place, (job, score) in enumerate(zip(multirun.jobs, (50, 52, 60, 60), strict=True)):
        made_run(
            tmp_path, score, job, "beta", built=2 if place == 0 else 1, preference__dpo__beta=job[1], seed=place % 2
        )
    made_run(tmp_path, 98, ("preference.dpo.beta=0.7",), "beta")  # of another multirun at the same time
    made_run(tmp_path, 98, jobs(0.1)[0], None)
    BEGUN.clear()
    found = rows(multirun)
    assert list(found)[1:] == ["preference.dpo.beta=0.1", "preference.dpo.beta=0.3", "together"]
    assert [each.strip() for each in found["preference.dpo.beta=0.1"]] == [
        "51.00 ± 12.71",
        "2",
        "7",
        "$0.50",
        "3",
        "1",
        "4",
    ]
    assert [each.strip() for each in found["preference.dpo.beta=0.3"]] == [
        "60.00 ± 0.00",
        "2",
        "0",
        "$0.00",
        "2",
        "2",
        "4",
    ]
    assert [each.strip() for each in found["together"]] == ["7", "$0.50", "5", "3", "8"]
    told = text(multirun)
    assert "did not finish" not in told
    assert "python -m speed.report figure3c" in told


def test_runs_that_did_not_finish_are_told(tmp_path: Path) -> None:
    multirun = Multirun(tmp_path, "config", 0, jobs(0.1, 0.3, seeds=2))
    made_run(tmp_path, 50, multirun.jobs[0], "config")
    found = rows(multirun)
    assert [each.strip() for each in found["preference.dpo.beta=0.1"][:2]] == ["50.00", "1 of 2"]
    assert [each.strip() for each in found["preference.dpo.beta=0.3"][:2]] == ["not finished", "0 of 2"]
    assert "3 of 4 runs did not finish" in text(multirun)


def test_a_sweeper_of_another_kind_and_an_undefined_score(tmp_path: Path) -> None:
    multirun = Multirun(tmp_path, "config", 0, ())
    assert text(multirun) == ""
    made_run(tmp_path, None, ("a=\x1b[31m1",), "config")
    made_run(tmp_path, 50, ("a=2", "seed=1"), "config", seed=1)
    told = text(multirun)
    assert "\x1b" not in told
    assert rows(multirun)["a=\\x1b[31m1"][0].strip() == "undefined"


def test_nothing_but_the_seed_differs(tmp_path: Path) -> None:
    multirun = Multirun(tmp_path, "config", 0, (("seed=0",), ("seed=1",)))
    for seed in range(2):
        made_run(tmp_path, 50 + seed, (f"seed={seed}",), "config", seed=seed)
    assert [each.strip() for each in rows(multirun)["this recipe"][:2]] == ["50.50 ± 6.35", "2"]
