"""Evaluation on folders of tasks: all seven types, mteb's own and others, identity, resuming, mistakes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_generator import context, make_base
from tiny_tasks import TYPES, WORDS, all_seven, write

from speed.backends.embedder.settings import Lora
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.backends.encoding.instructions import instruction_table
from speed.backends.evaluation.evaluated_model import LocalModel
from speed.backends.evaluation.evaluator import LocalEvaluator, MtebEvaluator
from speed.backends.evaluation.jobs import DEV, benchmark_jobs
from speed.backends.evaluation.task_folder import task_folders
from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.core.spec import digest
from speed.data.evaluation_datasets import EvaluationDataset, evaluation_datasets
from speed.runs.score_tables import scores_table


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two embedders of one name: bases in sentence-transformers layout after a step of training each."""
    folder = tmp_path_factory.mktemp("models")
    base = make_base(folder / "base")
    lines = [{"kind": "sts", "task": "t", "query": f"{w} stone", "positive": f"{w} river"} for w in WORDS]
    write(folder / "examples.jsonl", lines)
    out = []
    for seed in (0, 1):
        config = ContrastiveTrainer(base=str(base), lora=Lora(r=4), learning_rate=3e-3, batch_size=5, max_length=192)
        config.train(folder / "examples.jsonl", folder / f"run{seed}", seed, context(folder / "home"))
        out.append(folder / f"run{seed}")
    return out[0], out[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return all_seven(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect fails the test."""
    import socket

    def refuse(*_: Any) -> None:
        raise AssertionError("a local evaluation must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def results(out: Path) -> dict[str, Path]:
    return {file.stem: file for file in out.glob("results/*/*/*.json") if file.stem != "model_meta"}


def test_types_are_told_by_columns(folder: Path) -> None:
    assert {task.name: task.type for task in task_folders(folder)} == TYPES


def test_texts_are_what_a_model_is_judged_on(folder: Path) -> None:
    """No label, id or score, and nothing of a split named train."""
    texts = {task.name: list(task.texts()) for task in task_folders(folder)}
    assert {name: len(found) for name, found in texts.items()} == {
        "MyClasses": 20, "MyClusters": 60, "MyPairs": 24, "MyReranking": 24, "MyRetrieval": 24, "MySimilarity": 24,
        "MySummaries": 21,
    }  # fmt: skip
    assert {len(text.split()) for text in texts["MyRetrieval"]} == {3, 9}, "a document with its title"


@pytest.mark.usefixtures("no_network")
def test_all_seven_types_score_and_leave_mtebs_own_files(
    models: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    ctx = context(tmp_path / "home")
    scores = LocalEvaluator(tasks=folder).evaluate(models[0], tmp_path / "out", ctx)
    assert set(scores.tasks) == set(TYPES)
    assert scores.types == {kind: pytest.approx(scores.tasks[name]) for name, kind in TYPES.items()}
    assert scores.mean == pytest.approx(sum(scores.tasks.values()) / 7)
    assert scores.mean_of_types == pytest.approx(sum(scores.types.values()) / 7)
    for name, file in results(tmp_path / "out").items():
        stored = json.loads(file.read_text())
        assert stored["scores"]["test"][0]["main_score"] * 100 == pytest.approx(scores.tasks[name])
        assert stored["dataset_revision"] == f"local-{sha256_of(folder / name)[:12]}"
        assert stored["mteb_version"] == ctx.tally.metrics["judged"]["pins"]["mteb"]
    progress = [event["done"] for event in ctx.events if event["event"] == "progress"]  # type: ignore[attr-defined]
    assert progress[-1] == 7
    assert progress == sorted(progress)


@pytest.mark.usefixtures("no_network")
def test_an_interrupted_evaluation_goes_on_with_the_next_task(
    models: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    evaluator = LocalEvaluator(tasks=folder, only=("MyClusters", "MyPairs", "MySimilarity"))
    whole = evaluator.evaluate(models[0], tmp_path / "whole", context(tmp_path / "home"))

    class Killed(BaseException):
        pass

    broken = context(tmp_path / "home")

    def die(done: int, total: int, unit: str, **figures: float) -> None:
        if done == 1:
            raise Killed

    broken.progress = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        evaluator.evaluate(models[0], tmp_path / "broken", broken)
    [(name, file)] = results(tmp_path / "broken").items()
    assert name == "MyClusters"
    written = file.stat().st_mtime_ns
    assert evaluator.evaluate(models[0], tmp_path / "broken", context(tmp_path / "home")) == whole
    assert file.stat().st_mtime_ns == written


def test_a_score_does_not_depend_on_the_tasks_before_it(models: tuple[Path, Path], tmp_path: Path) -> None:
    """k-means draws from numpy's global generator."""
    import numpy as np

    draw = random.Random(1)
    sentences = [" ".join(draw.choices(WORDS, k=4)) for _ in range(90)]
    for name in ("First", "Second"):
        rows = [{"sentences": text, "labels": i % 9} for i, text in enumerate(sentences)]
        write(tmp_path / "tasks" / name / "test.jsonl", rows)
    before = np.random.get_state()[1]
    both = LocalEvaluator(tasks=tmp_path / "tasks").evaluate(models[0], tmp_path / "out", context(tmp_path / "home"))
    assert both.tasks["First"] == both.tasks["Second"]
    assert (np.random.get_state()[1] == before).all(), "the generators of the process are left as they were"


@pytest.mark.usefixtures("no_network")
def test_two_models_of_one_name_get_their_own_scores(models: tuple[Path, Path], folder: Path, tmp_path: Path) -> None:
    evaluator = LocalEvaluator(tasks=folder, only=("MySimilarity", "MyRetrieval"))
    one, two = (evaluator.evaluate(model, tmp_path / "out", context(tmp_path / "home")) for model in models)
    assert one.tasks != two.tasks
    assert one == evaluator.evaluate(models[0], tmp_path / "out", context(tmp_path / "home"))
    assert len(list(tmp_path.glob("out/results/*/*"))) == 2
    changed = shutil.copytree(models[0], tmp_path / "changed")
    tokenizer = changed / "model" / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("192", "100"))
    one = LocalModel(models[0]).identity()
    assert evaluator.identity(LocalModel(changed).identity()) != evaluator.identity(one)
    assert evaluator.identity(one) != LocalEvaluator(tasks=folder, protocol="native").identity(one)


@pytest.mark.usefixtures("no_network")
def test_a_task_that_mteb_knows_keeps_its_protocol_and_names_its_data(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [{"sentence1": w, "sentence2": f"{w} stone", "score": i % 6} for i, w in enumerate(WORDS)]
    write(tmp_path / "tasks/STSBenchmark/test.jsonl", rows)
    (tmp_path / "tasks/STSBenchmark/README.md").write_text("- type: STS\n- mteb task: STSBenchmark\n")
    pairs = [{"sent1": w, "sent2": f"{w} two", "labels": i % 2} for i, w in enumerate(WORDS)]
    write(tmp_path / "tasks/MyTweets/test.jsonl", pairs)
    (tmp_path / "tasks/tasks.json").write_text(
        json.dumps([{"name": "MyTweets", "type": "PairClassification", "mteb": "TwitterSemEval2015"}])
    )
    scores = LocalEvaluator(tasks=tmp_path / "tasks").evaluate(models[0], tmp_path / "out", context(tmp_path / "home"))
    assert set(scores.tasks) == {"STSBenchmark", "TwitterSemEval2015"}
    stored = json.loads(results(tmp_path / "out")["STSBenchmark"].read_text())
    assert stored["dataset_revision"].startswith("local-"), "never the hub's revision for local data"


def test_a_collapsed_embedder_has_no_score_and_the_reader_hears_of_it(
    models: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    flat = shutil.copytree(models[0], tmp_path / "flat") / "model" / "model.safetensors"
    weights = load_file(flat)
    save_file({n: torch.zeros_like(w) if n == "norm.weight" else w for n, w in weights.items()}, flat)
    ctx = context(tmp_path / "home")
    scores = LocalEvaluator(tasks=folder, only=("MySimilarity",)).evaluate(tmp_path / "flat", tmp_path / "out", ctx)
    assert scores.tasks == {"MySimilarity": None}
    assert scores.types == {"STS": None}
    assert scores.mean is None
    assert scores.mean_of_types is None
    assert [row[1] for row in scores_table([], scores).rows] == ["-"] * 3, "a blank in tables, no number"
    [said] = [event["message"] for event in ctx.events if event["event"] == "say"]  # type: ignore[attr-defined]
    assert "same vector" in said


def test_the_e5_protocol_puts_instructions_where_it_should(folder: Path) -> None:
    import mteb
    from mteb.types import PromptType

    from speed.backends.evaluation.mteb_encoder import MtebEncoder

    class Bare:
        dimension, max_length, normalize = 4, 48, True
        prompts = {"STS12": "own: ", "query": "q: "}

    def prefixes(name: str, protocol: Any = "e5", own: dict[str, str] | None = None) -> list[str]:
        encoder = MtebEncoder(Bare(), protocol, instruction_table(), own or {}, "r", lambda _: None)  # type: ignore[arg-type]
        metadata = mteb.get_task(name).metadata
        return [encoder.prefix(metadata, side) for side in (None, PromptType.query, PromptType.document)]

    sts = "Instruct: Retrieve semantically similar text.\nQuery: "
    assert prefixes("STS12") == [sts, sts, sts]
    claim = "Instruct: Given a scientific claim, retrieve documents that support or refute the claim\nQuery: "
    assert prefixes("SciFact")[1:] == [claim, ""]
    duplicate = "Instruct: Retrieve duplicate questions from AskUbuntu forum\nQuery: "
    assert prefixes("AskUbuntuDupQuestions")[1:] == [duplicate, duplicate]
    assert prefixes("SciFact", own={"SciFact": "Find."})[1] == "Instruct: Find.\nQuery: "
    assert prefixes("STS12", "native") == ["own: ", "own: ", "own: "]
    assert prefixes("SciFact", "native") == ["", "q: ", ""]


def test_only_classification_is_encoded_without_normalisation() -> None:
    import mteb
    import numpy as np

    from speed.backends.evaluation.mteb_encoder import MtebEncoder

    class Long:
        """Vectors of length 5."""

        dimension, max_length = 2, 48
        prompts: dict[str, str] = {}

        def __init__(self, normalize: bool) -> None:
            self.normalize = normalize

        def pieces(self, texts: list[str], prefix: str) -> Any:
            yield list(range(len(texts))), np.full((len(texts), 2), [3, 4], np.float32)

    def length(name: str, protocol: Any, own: bool = True) -> float:
        encoder = MtebEncoder(Long(own), protocol, instruction_table(), {}, "r", lambda _: None)
        metadata = mteb.get_task(name).metadata
        found = encoder.encode([{"text": ["a"]}], task_metadata=metadata, hf_split="test", hf_subset="default")
        return round(float(np.linalg.norm(found)), 5)

    names = ["EmotionClassification", "STS12", "SciFact", "TwentyNewsgroupsClustering", "SummEval", "SciDocsRR"]
    assert [length(name, "e5") for name in names] == [5, 1, 1, 1, 1, 1]
    assert [length(name, "native") for name in names] == [1] * 6
    assert [length(name, "native", own=False) for name in names] == [5] * 6


def test_the_protocol_of_every_task_is_the_one_of_the_golden_table() -> None:
    """`e5_protocol.tsv`: task, type, split, prefix of queries, prefix of documents, whether vectors have length 1."""
    import mteb
    import numpy as np
    from mteb.types import PromptType

    from speed.backends.evaluation.mteb_encoder import MtebEncoder

    class Watched:
        dimension, max_length, normalize = 2, 512, True
        prompts: dict[str, str] = {}

        def pieces(self, texts: list[str], prefix: str) -> Any:
            self.prefix = prefix
            yield [0], np.array([[3, 4]], np.float32)

    found = {}
    for benchmark in ("MTEB(eng, v1)", "MTEB(eng, v2)"):
        for task in mteb.get_benchmark(benchmark).tasks:
            watched, metadata = Watched(), task.metadata
            encoder = MtebEncoder(watched, "e5", instruction_table(), {}, "r", lambda _: None)
            searching = metadata.type in ("Retrieval", "Reranking")
            sides = []
            for side in (PromptType.query, PromptType.document) if searching else (None, None):
                given = {"task_metadata": metadata, "hf_split": "test", "hf_subset": "default", "prompt_type": side}
                vectors = encoder.encode([{"text": ["a"]}], **given)
                sides.append(watched.prefix.replace("\n", "\\n"))
            unit = "unit" if abs(np.linalg.norm(vectors) - 1) < 1e-5 else "as they are"
            found[metadata.name] = [metadata.type, *task.eval_splits, *sides, unit]
    lines = (Path(__file__).parent / "e5_protocol.tsv").read_text(encoding="utf-8").splitlines()
    golden = {name: rest for name, *rest in (line.split("\t") for line in lines[1:])}
    assert len(golden) == 72
    assert found == golden
    assert [name for name, row in golden.items() if row[1] != "test"] == ["MSMARCO"]
    assert instruction_table().max_length == 512


def test_a_text_is_cut_at_the_protocols_length(models: tuple[Path, Path], tmp_path: Path) -> None:
    ctx = context(tmp_path)
    folder = shutil.copytree(models[0] / "model", tmp_path / "long")
    said = folder / "sentence_bert_config.json"
    said.write_text(json.dumps({"max_seq_length": 4096}))
    model = LocalModel(folder)
    assert model.load(None, None, "fp32", ctx).max_length == 4096
    assert model.load(None, 512, "fp32", ctx).max_length == 512
    assert model.load(600, 512, "fp32", ctx).max_length == 600
    said.write_text(json.dumps({"max_seq_length": 100}))
    assert model.load(None, 512, "fp32", ctx).max_length == 100


def test_an_embedder_is_asked_in_the_words_that_it_was_trained_with(tmp_path: Path) -> None:
    from speed.backends.evaluation.evaluated_model import template_of

    table = instruction_table()
    assert template_of(table.prompts("Do: {task} | {query}"), "default") == "Do: {task} | "
    assert template_of({"query": "query: "}, "default") == "default"


def test_every_task_of_the_papers_benchmark_has_an_instruction() -> None:
    import mteb

    table = instruction_table()
    benchmark = mteb.get_benchmark("MTEB(eng, v1)").tasks
    assert len(benchmark) == 56
    for task in [*benchmark, *mteb.get_benchmark("MTEB(eng, v2)").tasks]:
        found = table.named[task.metadata.type][task.metadata.name]
        own = task.metadata.prompt
        own = own.get("query") if isinstance(own, dict) else own
        assert own is None or found == own
        if task.metadata.type == "STS":
            assert found == "Retrieve semantically similar text."
        if task.metadata.type == "Summarization":
            assert found == "Given a news summary, retrieve other semantically similar summaries"
        if task.metadata.name.startswith("CQADupstack"):
            assert found.endswith("from Stackexchange that are duplicates to the given question")
            assert table.of(task.metadata.name, "Retrieval") == found
    assert set(table.both_sides) == set(table.types) - {"Retrieval"}
    assert table.not_normalized == ("Classification",)


def test_only_evaluations_with_a_published_instruction_have_another_identity() -> None:
    table = instruction_table()
    assert table.identity(()) == table.identity(["STS12", "MiniatureSTS"])
    assert table.identity(None) == table.identity(["STS12", "SummEval"]) != table.identity(())


def test_the_development_tier_is_none_of_the_test_scores() -> None:
    import mteb

    test = {(t.metadata.name, s) for t in mteb.get_benchmark("MTEB(eng, v1)").tasks for s in t.eval_splits}
    test |= {(t.metadata.name, s) for t in mteb.get_benchmark("MTEB(eng, v2)").tasks for s in t.eval_splits}
    for name, split in DEV.items():
        task = mteb.get_task(name, languages=["eng"], eval_splits=split and [split])
        assert not {(name, split) for split in task.eval_splits} & test
    assert digest(MtebEvaluator(benchmark="dev").recipe()) != digest(MtebEvaluator(benchmark="mteb_v1").recipe())


@pytest.mark.parametrize("benchmark", ["mteb_v1", "mteb_v2", "dev", "bright", "bright_long", "rteb", "mmteb"])
def test_data_sets_that_a_plan_asks_for_are_those_that_mteb_reads(benchmark: str) -> None:
    jobs = benchmark_jobs(benchmark)
    whole = {part.metadata.name: job.task.metadata.name for job in jobs for part in job.parts}
    read = {
        EvaluationDataset(
            job.task.metadata.name,
            whole.get(job.task.metadata.name, ""),
            job.task.metadata.dataset["path"],
            job.task.metadata.dataset["revision"],
            job.characters or 0,
        )
        for job in jobs
        if not job.parts
    }
    assert set(evaluation_datasets(benchmark)) == read


# -- mistakes ----------------------------------------------------------------------------------------------------------


def drop(file: str, column: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        rows = [json.loads(line) for line in (root / file).read_text().splitlines()]
        write(root / file, [{key: value for key, value in row.items() if key != column} for row in rows])

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop("MySummaries/test.jsonl", "relevance"), r"MySummaries.*type cannot be told"),
        (
            drop("MyRetrieval/qrels/test.jsonl", "corpus-id"),
            r"qrels.*test.jsonl: column 'corpus-id' is missing",
        ),
        (drop("MyRetrieval/corpus.jsonl", "text"), r"corpus.jsonl: column 'text' is missing in row 1"),
        (lambda root: (root / "MyClasses/train.jsonl").unlink(), "needs train.jsonl"),
        (lambda root: (root / "MyPairs/test.jsonl").write_text("oops\n"), r"test.jsonl.*not JSON"),
        (lambda root: write(root / "MyRetrieval/queries.jsonl", [{"_id": "zz", "text": "a"}]), "no query-id"),
        (lambda root: (root / "tasks.json").write_text('[{"name": "MyPairs", "type": "Poetry"}]'), "Poetry"),
        (lambda root: (root / "tasks.json").write_text('[{"name": "MyPairs", "mteb": "NoSuch"}]'), "no task 'NoSuch'"),
        (lambda root: [shutil.rmtree(path) for path in root.iterdir()], "holds no tasks"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_a_folder_that_cannot_be_used_is_explained(
    models: tuple[Path, Path], tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    root = all_seven(tmp_path / "tasks")
    keep = ("MyClasses", "MyPairs", "MyRetrieval", "MySummaries")
    for path in root.iterdir():
        if path.name not in keep:
            shutil.rmtree(path)
    spoil(root)
    with pytest.raises(UserError, match=message):
        LocalEvaluator(tasks=root).evaluate(models[0], tmp_path / "out", context(tmp_path / "home"))


def test_a_stated_type_makes_a_missing_column_the_complaint(models: tuple[Path, Path], tmp_path: Path) -> None:
    write(tmp_path / "tasks/Mine/test.jsonl", [{"sentence1": "a", "sentence2": "b"}])
    (tmp_path / "tasks/tasks.json").write_text('[{"name": "Mine", "type": "STS"}]')
    with pytest.raises(UserError, match=r"Mine/test.jsonl: column 'score' is missing in row 1; it has 'sentence1'"):
        LocalEvaluator(tasks=tmp_path / "tasks").evaluate(models[0], tmp_path / "o", context(tmp_path / "home"))


@pytest.mark.usefixtures("no_network")
def test_a_hub_that_cannot_be_reached_is_said(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the data of NanoMSMARCORetrieval .* cannot be loaded"):
        MtebEvaluator(benchmark="dev").evaluate(models[0], tmp_path / "out", context(tmp_path / "home"))


def test_a_folder_without_a_model_and_unknown_names_are_refused(
    models: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no embedder"):
        LocalEvaluator(tasks=folder).evaluate(tmp_path, tmp_path / "out", context(tmp_path / "home"))
    with pytest.raises(UserError, match="NoSuch"):
        LocalEvaluator(tasks=folder, only=("NoSuch",)).evaluate(models[0], tmp_path / "o", context(tmp_path / "home"))
    with pytest.raises(ValueError, match="extra"):
        LocalEvaluator(tasks=folder, nonsense=1)  # type: ignore[call-arg]


# -- real data ---------------------------------------------------------------------------------------------------------


def test_the_layout_of_real_task_folders_is_understood(shared: Path) -> None:
    listed = {entry["name"]: entry for entry in json.loads((shared / "mteb" / "tasks.json").read_text())}
    found = task_folders(shared / "mteb")
    assert len(found) == 17
    for task in found:
        assert (task.type, task.mteb) == (listed[task.name]["type"], listed[task.name]["mteb"] or None)
    assert {task.type for task in found} == set(TYPES.values())
