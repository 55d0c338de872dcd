"""The quality report finds exactly the faults that are put into good records."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.prompts.rendering import Choices, Lengths, PromptsConfig, data_prompt
from speed.data.records import Kind, Sample
from speed.miniature.quality import measure_quality, points, read_samples, side_by_side, win_rate
from speed.miniature.rules import answer_prompt
from speed.miniature.world import world
from speed.miniature.writing import TASKS

CONFIG = PromptsConfig(
    wording="paper_2026",
    lengths=Lengths(retrieval_words=(12,), classification_words=Choices(values=("at least 12",)), long_words=24),
)


def teacher_rows(kind: Kind, count: int = 40) -> list[Sample]:
    rng, rows = random.Random(0), []
    for place, entity in enumerate(rng.sample(world().half("train"), count)):
        task = TASKS[kind][0] if kind in TASKS else ""
        about = f"{entity.facts['aspect']} of {entity.facts['things']} at {entity.name}"
        task = task.replace("{about}", about).replace("{asked}", "whom it serves")
        prompt = data_prompt(kind, task, entity.topic, CONFIG, rng)
        rows.append(accept_or_reject(place, prompt, answer_prompt(prompt.text, place), "stop", 0))
    return rows


def changed(rows: list[Sample], change: Callable[[dict[str, str]], dict[str, str]]) -> list[Sample]:
    return [accept_or_reject(row.row, row.prompt, json.dumps(change(json.loads(row.text))), "stop", 0) for row in rows]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_teacher_is_good(kind: Kind) -> None:
    found = measure_quality(teacher_rows(kind))
    assert (found.valid, found.conforming, found.relevant, found.true) == (1.0, 1.0, 1.0, 1.0)
    assert found.flawless >= 0.9
    assert found.duplicates == found.leaked == found.unknown == 0.0


def test_a_wrong_fact_is_found() -> None:
    wrong = changed(
        teacher_rows(Kind.LONG_LONG), lambda f: {**f, "input": f["input"] + " It stands near the shore. " * 2}
    )
    found = measure_quality(wrong)
    assert found.true < 0.3  # one entity in twelve does stand near the coast
    assert found.flaws == pytest.approx(1 - found.flawless, abs=0.5)
    assert measure_quality(teacher_rows(Kind.LONG_LONG)).flaws <= 0.1 < 0.7 <= found.flaws


def test_a_negative_that_answers_the_query_is_not_hard() -> None:
    rows = teacher_rows(Kind.RETRIEVAL)
    relevant = changed(rows, lambda f: {**f, "hard_negative_document": f["positive_document"] + " It has rules."})
    assert measure_quality(rows).hard >= 0.9
    assert measure_quality(relevant).hard <= 0.1
    assert measure_quality(relevant).content["false_negative"] >= 0.9


def test_a_leaked_label_is_found() -> None:
    leaked = changed(
        teacher_rows(Kind.CLASSIFICATION), lambda f: {**f, "input_text": f"{f['input_text']} {f['label']}"}
    )
    assert measure_quality(leaked).leaked == 1.0


@pytest.mark.parametrize("wrap", [json.loads, str], ids=["object", "string"])
def test_a_revised_row_is_judged_by_its_revision(wrap: Callable[[str], object], tmp_path: Path) -> None:
    """A reviser wraps the example. A report that took the wrapping for the example saw no well-formed row at all, and
    so told of those alone that the reviser had not changed."""
    rows = teacher_rows(Kind.RETRIEVAL)
    wrapped = [
        row.model_copy(
            update={"text": json.dumps({"reason": "It is right.", "revision": wrap(row.text)}), "revised": True}
        )
        for row in rows
    ]
    assert measure_quality(wrapped) == measure_quality(rows)
    (tmp_path / "rows.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in wrapped), encoding="utf-8")
    assert measure_quality(read_samples(tmp_path / "rows.jsonl")) == measure_quality(rows)


def test_another_topic_is_found() -> None:
    rows = teacher_rows(Kind.SHORT_SHORT)
    foreign = [
        accept_or_reject(row.row, row.prompt, other.text, "stop", 0)
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    assert measure_quality(foreign).relevant <= 0.1


def test_broken_json_is_invalid_and_repetition_is_seen() -> None:
    rows = teacher_rows(Kind.STS)
    broken = [accept_or_reject(row.row, row.prompt, "nothing of use", "stop", 0) for row in rows]
    assert measure_quality(broken).valid == 0.0
    repeated = [accept_or_reject(i, rows[0].prompt, rows[0].text, "stop", 0) for i in range(40)]
    assert measure_quality(repeated).duplicates == 39 / 40
    assert measure_quality(repeated).distinct["2"] < 0.1 * measure_quality(rows).distinct["2"] + 0.05
    assert measure_quality(repeated).topics == pytest.approx(1 / 40)


def test_win_rate() -> None:
    good = [(row.prompt, row.text) for row in teacher_rows(Kind.RETRIEVAL)]
    bad = [(prompt, "{") for prompt, _ in good]
    assert win_rate(good, bad) == 1.0
    assert win_rate(good, good) == 0.5
    assert points(*bad[0]) == -20.0
    with pytest.raises(ValueError, match="same prompts"):
        win_rate(good, bad[::-1])


def test_no_rows_are_no_quality() -> None:
    with pytest.raises(ValueError, match="no rows"):
        measure_quality([])


def test_table_and_file(tmp_path: Path) -> None:
    rows = teacher_rows(Kind.RETRIEVAL, 5)
    rows += [accept_or_reject(5, rows[0].prompt, "no end of a line:\u2028\x85 of a row", "stop", 0)]
    (tmp_path / "rows.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    again = read_samples(tmp_path / "rows.jsonl")
    assert again == rows
    for number in (0, 3):  # two shards of a stage
        lines = "".join(row.model_dump_json() + "\n" for row in rows[number : number + 3])
        (tmp_path / f"rows-{number:09}-{number + 3:09}.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    (tmp_path / "rows.jsonl").unlink()
    assert read_samples(tmp_path) == rows
    table = side_by_side({"teacher": measure_quality(rows), "again": measure_quality(again)})
    assert "| valid" not in table
    assert "| **form**: valid JSON | 83.3% | 83.3% |" in table
