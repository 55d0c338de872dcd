"""BRIGHT, RTEB and MMTEB: planned without their data, and carried out on tiny copies of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mteb
import pytest
from huggingface_hub import constants
from tiny_generator import context, make_base
from tiny_tasks import WORDS, write

from speed.backends.encoding.instructions import instruction_table
from speed.backends.evaluation.evaluated_model import LocalModel
from speed.backends.evaluation.evaluator import MtebEvaluator
from speed.backends.evaluation.jobs import benchmark_jobs
from speed.backends.evaluation.mteb_encoder import MtebEncoder
from speed.backends.evaluation.run import run as evaluated
from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.graph import stage_statuses
from speed.core.spec import digest
from speed.core.store import Store
from speed.data.evaluation_datasets import evaluation_datasets
from speed.pipeline import pipeline
from speed.runs.building import Origin
from speed.runs.experiment import run
from speed.runs.resources import resources

SIZES = {"bright": 12, "bright_long": 8, "rteb": 17, "mmteb": 131}
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("model") / "base")


@pytest.mark.parametrize("name", SIZES)
def test_a_benchmark_is_planned_without_its_data(
    name: str, compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = compose(f"eval={name}", f"runtime.home={tmp_path}", "plan=true")
    assert len(evaluation_datasets(name)) == SIZES[name]
    assert run(config, "", Origin(preset="miniature")) is None
    shown = " ".join(capsys.readouterr().out.split())
    repositories = list(dict.fromkeys(each.path for each in evaluation_datasets(name)))
    more = f" and {len(repositories) - 5} more" if len(repositories) > 5 else ""
    assert f"missing data sets of mteb: {', '.join(repositories[:5])}{more}: in no local cache" in shown
    needed = resources(config, stage_statuses(pipeline(config).goals(), Store(tmp_path)))
    assert needed.disk["evaluation data"] == 2 * sum(each.characters for each in evaluation_datasets(name)) > 1e8


def test_brights_means_are_those_that_are_published() -> None:
    """Short documents by nDCG@10, long ones by recall@1, never both in one mean."""
    for name, score in (("bright", "ndcg_at_10"), ("bright_long", "recall_at_1")):
        assert {job.task.metadata.main_score for job in benchmark_jobs(name)} == {score}


def test_closed_tasks_are_left_out_and_named() -> None:
    closed = [task.metadata.name for task in mteb.get_benchmark("RTEB(beta)").tasks if not task.metadata.is_public]
    assert len(closed) == 13
    assert not {each.task for each in evaluation_datasets("rteb")} & set(closed)
    page = (ROOT / "docs" / "evaluate.md").read_text()
    assert all(re.search(rf"\b{name}\b", page) for name in closed)
    with pytest.raises(UserError, match="eval.only names Code1Retrieval, which rteb does not have"):
        benchmark_jobs("rteb", ["Code1Retrieval"])


def test_every_task_has_an_instruction_of_its_type_or_its_own() -> None:
    table = instruction_table()
    encoder = MtebEncoder.__new__(MtebEncoder)
    encoder.table, encoder.instructions = table, {}
    for name in SIZES:
        for job in benchmark_jobs(name):
            metadata = job.task.metadata
            assert table.of(metadata.name, metadata.type) or metadata.prompt or metadata.type in table.types
            if name.startswith("bright"):
                told = encoder.instruction(metadata)
                assert told.startswith("Given a ")
                assert ("documents" in told) == (name == "bright_long")
    covered = {name for tasks in table.further.values() for name in tasks}
    assert covered <= {each.task for name in SIZES for each in evaluation_datasets(name)}
    assert not covered & {each.task for name in ("mteb_v1", "mteb_v2", "dev") for each in evaluation_datasets(name)}


def test_only_evaluations_with_such_tasks_have_another_identity() -> None:
    table = instruction_table()
    without = table.model_copy(update={"further": {}})
    for names in ((), None, ["SummEval"]):
        assert table.identity(names) == without.identity(names)
    assert table.identity(["Tatoeba"]) != without.identity(["Tatoeba"]) == table.identity(())
    assert table.prompts("{task}{query}") == without.prompts("{task}{query}"), "exported models stay as they are"
    own = {digest(MtebEvaluator(benchmark=name).recipe()) for name in SIZES}
    assert len(own) == len(SIZES)
    rteb = MtebEvaluator(benchmark="rteb").recipe()["instructions"]
    assert rteb == table.identity(()) != MtebEvaluator(benchmark="mmteb").recipe()["instructions"]
    one = MtebEvaluator(benchmark="any", only=("BrightPonyRetrieval",)).recipe()["instructions"]
    assert one == MtebEvaluator(benchmark="bright").recipe()["instructions"]


def evaluate(name: str, only: str, mirror: Path, model: Path, home: Path) -> Any:
    evaluator = MtebEvaluator(benchmark=name, only=(only,), mirror=Content(path=mirror), max_length=4096)
    ctx = context(home)
    return evaluated(evaluator, evaluator.jobs(ctx), LocalModel(model), home / "out", ctx)


def a_copy_of_bright(folder: Path) -> None:
    """One field of BRIGHT, in which the second query excludes all documents but its own."""
    configs = []
    for config in ("documents", "long_documents", "examples"):
        configs += [f"- config_name: {config}", f"  data_files: [{{split: pony, path: {config}.jsonl}}]"]
    long = [" ".join([word] * 600) for word in WORDS]
    write(folder / "documents.jsonl", [{"id": f"d{i}", "content": word} for i, word in enumerate(WORDS)])
    write(folder / "long_documents.jsonl", [{"id": f"l{i}", "content": text} for i, text in enumerate(long)])
    every, others = [f"d{i}" for i in range(10)], [f"{kind}{i}" for kind in "dl" for i in range(1, 10)]
    first = {"excluded_ids": ["N/A"], "gold_ids": every, "gold_ids_long": ["l0"]}
    second = {"excluded_ids": others, "gold_ids": every[:1], "gold_ids_long": ["l0"]}
    rows = [{"id": f"q{i}", "query": WORDS[i], **row} for i, row in enumerate((first, second))]
    write(folder / "examples.jsonl", rows)
    (folder / "README.md").write_text("\n".join(["---", "configs:", *configs, "---", ""]))


def test_bright_from_a_copy_with_long_documents_and_excluded_ones(model: Path, tmp_path: Path) -> None:
    a_copy_of_bright(tmp_path / "mirror" / "mteb" / "BRIGHT")
    short = evaluate("bright", "BrightPonyRetrieval", tmp_path / "mirror", model, tmp_path / "home")
    assert short.scores.tasks == {"BrightPonyRetrieval": 100.0}
    assert short.pins.splits == {"BrightPonyRetrieval": "standard"}
    assert short.max_length == 4096
    long = evaluate("bright_long", "BrightPonyLongRetrieval", tmp_path / "mirror", model, tmp_path / "home")
    assert long.pins.splits == {"BrightPonyLongRetrieval": "long"}
    assert long.scores.tasks["BrightPonyLongRetrieval"] in (50.0, 100.0), "a recall, which is whole for the second"


def test_types_that_mmteb_has_beyond_mtebs(model: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    rows = [{"sentence1": word, "sentence2": word} for word in WORDS]
    write(mirror / "BornholmBitextMining" / "test.jsonl", rows)
    labelled = [{"text": f"{word} {i % 2}", "label": [i % 2]} for i in range(20) for word in WORDS]
    for split in ("train", "test"):
        write(mirror / "MalteseNewsClassification" / f"{split}.jsonl", labelled)
    for task, kind in (
        ("BornholmBitextMining", "BitextMining"),
        ("MalteseNewsClassification", "MultilabelClassification"),
    ):
        found = evaluate("mmteb", task, mirror, model, tmp_path / "home")
        assert list(found.scores.types) == [kind]
        assert found.scores.tasks[task] is not None
        assert found.pins.subsets == {task: 1}


def test_the_texts_of_tasks_are_read_as_they_are_evaluated(tmp_path: Path) -> None:
    """Of BRIGHT's layout, of columns for languages, and of rows; labels, ids, scores and training texts are none."""
    mirror = tmp_path / "mirror"
    a_copy_of_bright(mirror / "mteb" / "BRIGHT")
    write(mirror / "IN22GenBitextMining" / "test.jsonl", [{"eng_Latn": "a mill", "hin_Deva": "b", "topic": "news"}])
    for split in ("train", "test"):
        write(mirror / "MalteseNewsClassification" / f"{split}.jsonl", [{"text": f"of {split}", "label": [1]}])
    rows = [
        {"sentence1": "one", "sentence2": "two", "score": 1.0},
        {"sentence1": "one", "sentence2": "x", "score": 2.0},
    ]
    write(mirror / "STSES" / "test.jsonl", rows)
    names = ("IN22GenBitextMining", "MalteseNewsClassification", "STSES")
    ctx = context(tmp_path / "home")
    evaluator = MtebEvaluator(benchmark="mmteb", only=names, mirror=Content(path=mirror))
    found = {each.name: each for each in evaluator.task_texts(ctx)}
    assert sorted(found["IN22GenBitextMining"].read()) == ["a mill", "b"]
    assert list(found["MalteseNewsClassification"].read()) == ["of test"]
    assert sorted(found["STSES"].read()) == ["one", "one", "two", "x"]
    counted = next(each.characters for each in evaluation_datasets("mmteb") if each.task == "IN22GenBitextMining")
    assert found["IN22GenBitextMining"].characters > 5 * counted, "as often as they are read, here with 22 others"
    bright = MtebEvaluator(benchmark="bright_long", only=("BrightPonyLongRetrieval",), mirror=Content(path=mirror))
    [task] = bright.task_texts(ctx)
    assert list(task.read()) == [" ".join([word] * 600) for word in WORDS] + list(WORDS[:2])


def test_parts_of_a_task_are_searched_for_together(tmp_path: Path) -> None:
    evaluator = MtebEvaluator(benchmark="mteb_v1", only=("CQADupstackRetrieval", "STS12"))
    found = {each.name: each.characters for each in evaluator.task_texts(context(tmp_path))}
    parts = [each.characters for each in evaluation_datasets("mteb_v1") if each.part_of]
    assert set(found) == {"CQADupstackRetrieval", "STS12"}
    assert found["CQADupstackRetrieval"] == sum(parts)


def test_a_mean_over_languages_says_so(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mirror" / "mteb" / "SemRel24STS"
    configs = []
    [job] = benchmark_jobs("mmteb", ["SemRel24STS"])
    for language in job.task.hf_subsets:
        configs += [f"- config_name: {language}", f"  data_files: [{{split: test, path: {language}.jsonl}}]"]
        pairs = [{"sentence1": word, "sentence2": f"{word} {i % 3}", "score": i / 10} for i, word in enumerate(WORDS)]
        write(folder / f"{language}.jsonl", [{**row, "label": row["score"]} for row in pairs])
    (folder / "README.md").write_text("\n".join(["---", "configs:", *configs, "---", ""]))
    found = evaluate("mmteb", "SemRel24STS", tmp_path / "mirror", model, tmp_path / "home")
    assert found.pins.subsets == {"SemRel24STS": 12}
