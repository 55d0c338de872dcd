"""What is given in place of a stage: nothing behind it is planned, and it enters keys by content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from payload_of_a_run import payload

from speed.backends.engines.given_weights import adopt, refuse_partial
from speed.backends.engines.weights import read_card
from speed.core.build import build
from speed.core.content import Content, HubRepository, noted_absence
from speed.core.errors import UserError
from speed.core.graph import Goal
from speed.core.stage import silence
from speed.core.store import Store
from speed.data.given_records import Part, mixed_size
from speed.pipeline import pipeline
from speed.runs.building import Origin
from speed.runs.experiment import run
from speed.runtime import Runtime
from speed.stages.given import GivenCorpus, GivenSeed, MixedCorpus, count_mixed, count_seeds

EXAMPLE = {"kind": "sts", "task": "t", "query": "q", "positive": "p", "negative": "n"}
SEEDS = [
    {"prompt": "write one", "example": EXAMPLE},
    {"row": 1, "rejected": "truncated", "prompt": {"text": "p", "template": "t"}, "text": "{"},
    {"row": 2, "prompt": {"text": "write two", "template": "t", "slots": {"language": "German"}}, "example": EXAMPLE},
]
MODEL = "package:miniature/bases/llama"


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labels(config: Any) -> list[str]:
    return [goal.label for goal in pipeline(config).goals()]


def test_nothing_behind_what_is_given_is_planned(compose: Any, tmp_path: Path) -> None:
    seed, corpus = lines(tmp_path / "s.jsonl", *SEEDS), lines(tmp_path / "c.jsonl", EXAMPLE)
    whole = labels(compose())
    assert labels(compose(f"given.corpus={corpus}")) == ["given corpus", "embedder", "evaluation"]
    without = {"tasks for seed", "seed data"}
    found = labels(compose(f"given.seed={seed}"))
    assert set(found) == {*whole, "given seed"} - without
    found = labels(compose(f"given.junior={MODEL}"))
    assert set(found) == {*whole, "given junior"} - without - {"junior"}
    found = labels(compose(f"given.revisor={MODEL}"))
    assert set(found) == {*whole, "given revisor"} - {"revisor", "revisions"}
    found = labels(compose(f"given.senior={MODEL}", f"given.revisor={MODEL}"))
    assert set(found) == {
        "topics", "tasks for synthesis", "given senior", "synthesis", "given revisor", "revision", "dedup",
        "embedder", "evaluation",
    }  # fmt: skip


def test_files_enter_keys_by_content(compose: Any, tmp_path: Path) -> None:
    here, there = lines(tmp_path / "a.jsonl", EXAMPLE), lines(tmp_path / "b.jsonl", EXAMPLE)
    other = lines(tmp_path / "c.jsonl", EXAMPLE | {"query": "another"})
    keys = [pipeline(compose(f"given.corpus={file}")).key for file in (here, there, other)]
    assert keys[0] == keys[1] != keys[2]
    asked = [pipeline(compose(f"given.junior={MODEL}", f"given.prompt_format={name}")).key for name in ("inst", "chat")]
    assert asked[0] != asked[1]


@pytest.mark.parametrize(
    "names", [("junior", "senior", "revisor=none"), ("corpus", "seed"), ("senior", "preference=none", "corpus")]
)
def test_what_nothing_reads_is_refused(compose: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    files = {"seed": lines(tmp_path / "s.jsonl", *SEEDS), "corpus": lines(tmp_path / "c.jsonl", EXAMPLE)}
    typed = [each if "=" in each else f"given.{each}={files.get(each, MODEL)}" for each in names]
    with pytest.raises(UserError, match="has no effect: in this run nothing reads it"):
        pipeline(compose(*typed))


def test_examples_and_seeds_are_what_stands_in_the_files(tmp_path: Path) -> None:
    store = Store(tmp_path / "home").open()
    labelled = {"anchor": "a", "pos": ["b", "c"], "negatives": ["d", "e"], "task": "find", "id": 7}
    corpus = GivenCorpus(Content(path=lines(tmp_path / "c.jsonl", EXAMPLE, SEEDS[1], labelled, SEEDS[2])))
    build(Goal(corpus, 0, ()), store, Runtime(), silence)
    written = [json.loads(line) for line in (store.payload(corpus) / "examples.jsonl").read_text().splitlines()]
    found = {"kind": "retrieval", "task": "find", "query": "a", "positive": "b", "negative": "d"}
    assert written == [EXAMPLE, found, EXAMPLE]
    seed = GivenSeed(Content(path=lines(tmp_path / "s.jsonl", *SEEDS)))
    assert count_seeds(seed.file) == 2
    build(Goal(seed, 2, ()), store, Runtime(), silence)
    rows = list(store.rows(seed.take(2)))
    assert [row.prompt.text for row in rows] == ["write one", "write two"]
    assert rows[1].prompt.slots == {"language": "German"}
    assert all(row.example and json.loads(row.example.line()) == EXAMPLE for row in rows)


@pytest.mark.parametrize(
    ("stage", "rows", "said"),
    [
        (GivenCorpus, [EXAMPLE, {**EXAMPLE, "kind": "poem"}], r"f.jsonl, line 2: kind is 'poem': it must be one of"),
        (GivenCorpus, [{**EXAMPLE, "task": ""}], r"f.jsonl, line 1 has no task"),
        (GivenCorpus, [EXAMPLE, {"query": "q"}], r"f.jsonl, line 2 is no record: it has no positive"),
        (GivenCorpus, [SEEDS[1]], r"given.corpus=.*f.jsonl: there is no example in it"),
        (GivenSeed, [SEEDS[0], EXAMPLE], r"f.jsonl, line 2 is no seed example"),
        (GivenSeed, [{**SEEDS[0], "prompt": " "}], r"f.jsonl, line 1 is no seed example"),
        (GivenSeed, [SEEDS[1]], r"given.seed=.*f.jsonl: there is no example in it"),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, stage: Any, rows: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        stage(Content(path=lines(tmp_path / "f.jsonl", *rows))).check(Runtime())


def test_a_run_reads_the_whole_corpus_before_it_begins(tmp_path: Path) -> None:
    corpus = GivenCorpus(Content(path=lines(tmp_path / "f.jsonl", *[EXAMPLE] * 200, {"query": "q"})))
    corpus.check(Runtime())
    with pytest.raises(UserError, match="line 201 is no record"):
        corpus.read_inputs(Runtime(), print)


def test_a_folder_must_hold_a_whole_generator(tmp_path: Path) -> None:
    base, folder = Path(__file__).parents[2] / "speed/miniature/bases/llama", tmp_path / "model"
    refuse_partial(str(base))
    refuse_partial("org/name")
    with pytest.raises(UserError, match="there is no base model"):
        refuse_partial(str(folder))
    shutil.copytree(base, folder)
    (folder / "tokenizer_config.json").rename(tmp_path / "t.json")
    with pytest.raises(UserError, match="is no generator: tokenizer_config.json is not in it"):
        refuse_partial(str(folder))
    (tmp_path / "t.json").rename(folder / "tokenizer_config.json")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged or not the whole file"):
        refuse_partial(str(folder))
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="is damaged or not the whole file"):
        refuse_partial(str(folder))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="merge it first"):
        refuse_partial(str(folder))


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("relative:../k1", "is an adapter on weights of its own run"),
        ("/nowhere/llama", "stands on the base /nowhere/llama, which is not on this machine"),
    ],
)
@pytest.mark.parametrize("check", [refuse_partial, lambda given: adopt(given, Path(given) / "out")])
def test_an_adapter_without_its_base_is_refused_before_anything_is_paid_for(
    base: str, says: str, check: Any, tmp_path: Path
) -> None:
    folder = payload(tmp_path / "senior", base)
    with pytest.raises(UserError, match=f"{folder} {says}"):
        check(str(folder))


def test_whole_models_and_adapters_with_their_base_are_taken(tmp_path: Path) -> None:
    refuse_partial(str(payload(tmp_path / "adapter", MODEL)))
    refuse_partial(str(payload(tmp_path / "hub", "org/name@abc")))
    refuse_partial(str(payload(tmp_path / "whole", "relative:../gone", adapter=False)))
    refuse_partial(str(payload(tmp_path / "instruct", MODEL, adapter=False, trained=False)))


def test_a_folder_of_the_home_is_read_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    payload(tmp_path / "senior", MODEL)
    adopt("~/senior", tmp_path / "out")
    assert read_card(tmp_path / "out") == read_card("~/senior") is not None


def test_a_plan_knows_what_a_given_payload_stands_on(compose: Any, tmp_path: Path) -> None:
    """Its sizes, its GPUs and what is fetched for it are those of its base, whoever trains or writes with it."""
    base, other = "meta-llama/Meta-Llama-3-8B", "mistralai/Mistral-7B-v0.1"
    given = payload(tmp_path / "senior", f"{base}@abc")
    whole = payload(tmp_path / "whole", base, adapter=False)
    plan = ("preset=paper", "generator.base=mistralai/Mistral-7B-v0.1", "runtime.devices=[0,1]", "runtime.device_gb=40")

    def stages(*more: str) -> dict[str, Any]:
        return {goal.label: goal.node for goal in pipeline(compose(*plan, *more)).goals()}

    runtime, hub = compose(*plan).runtime, (HubRepository("model", base, "abc"),)
    found = stages(f"given.senior={given}", "revisor=none")
    assert found["synthesis"].written_by == f"{base}@abc"
    assert found["synthesis"].demand(runtime).devices == (1, 2)
    assert found["synthesis"].hub_repositories() == found["given senior"].hub_repositories() == hub
    found = stages(f"given.junior={given}")
    assert found["senior"].training().base == f"{base}@abc"
    assert found["senior"].hub_repositories() == found["root data"].hub_repositories() == hub
    assert found["revisor"].hub_repositories() == (HubRepository("model", other),)
    found = stages(f"given.senior={whole}", "revisor=none")
    assert found["synthesis"].written_by == str(whole / "model")
    assert found["synthesis"].hub_repositories() == found["given senior"].hub_repositories() == ()


def written_by(folder: Path, **sizes: int) -> tuple[Part, ...]:
    """Files of so many records, with the size of each as its weight; each query tells its writer and its number."""
    return tuple(
        Part(
            name=name,
            path=Content(path=lines(folder / name, *(EXAMPLE | {"query": f"{name} {n}"} for n in range(size)))),
            weight=size,
        )
        for name, size in sizes.items()
    )


def mixed(store: Store, corpus: MixedCorpus) -> tuple[list[str], list[list[Any]]]:
    """The queries of a mixed corpus, and what is told of each record's origin."""
    build(Goal(corpus, 0, ()), store, Runtime(), silence)
    examples, origins = ((store.payload(corpus) / name).read_text() for name in ("examples.jsonl", "origins.jsonl"))
    return [json.loads(line)["query"] for line in examples.splitlines()], list(map(json.loads, origins.splitlines()))


def test_a_corpus_of_several_writers_keeps_their_proportions(tmp_path: Path) -> None:
    store, parts = Store(tmp_path / "home").open(), written_by(tmp_path, llama=60, qwen=30, gemma=10)
    queries, origins = mixed(store, MixedCorpus(parts, None))
    assert queries == [f"{name} {number}" for name, number in origins], "each record is told to be whose it is"
    assert len(queries) == len(set(queries)) == count_mixed(parts, None) == 100
    for size in range(1, 101):
        for part in parts:
            share = sum(name == part.name for name, _ in origins[:size])
            assert abs(share - size * part.weight / 100) < 1, (size, part.name)
    few = MixedCorpus(parts, 37)
    assert mixed(store, few)[0] == queries[:37], "sizes nest"
    manifest = json.loads((store.folder(few) / "manifest.json").read_text())
    assert manifest["metrics"]["records_by_part"] == {"llama": 22, "qwen": 11, "gemma": 4}


def test_a_mixture_ends_where_proportions_would(tmp_path: Path) -> None:
    store, parts = Store(tmp_path / "home").open(), written_by(tmp_path, long=90, short=10)
    even = tuple(part.model_copy(update={"weight": 2.0}) for part in parts)
    found, origins = mixed(store, MixedCorpus(even, None))
    assert [name for name, _ in origins[:4]] == ["long", "short", "long", "short"]
    assert len(found) == 21
    assert count_mixed(even, None) == 21
    few, told = MixedCorpus(even, 22), "given.records=22 wants more than there are: given.corpora give at most 21 in"
    with pytest.raises(UserError, match=told):
        few.read_inputs(Runtime(), print)
    with pytest.raises(UserError, match=told):
        few.check(Runtime())
    MixedCorpus(even, 21).check(Runtime())


@given(st.lists(st.tuples(st.sampled_from((0.1, 0.3, 1, 2, 3, 7, 1e5)), st.integers(1, 40)), min_size=1, max_size=5))
def test_a_mixture_is_counted_without_mixing_it(parts: list[tuple[float, int]]) -> None:
    weights, sizes = [weight for weight, _ in parts], [size for _, size in parts]
    taken = [0] * len(parts)
    while True:
        turn = max(range(len(parts)), key=lambda place: weights[place] / (taken[place] + 0.5))
        if taken[turn] == sizes[turn]:
            break
        taken[turn] += 1
    assert mixed_size(weights, sizes) == sum(taken)


def test_a_plan_asks_for_graded_documents_of_every_record(compose: Any, tmp_path: Path) -> None:
    """One record less than there are was asked about where a count was rounded."""
    even = [f"{{name: {part.name}, path: {part.path.path}}}" for part in written_by(tmp_path, long=90, short=10)]
    config = compose("negatives=graded", "negatives.graded=null", f"given.corpora=[{','.join(even)}]")
    assert pipeline(config).corpus.queries == 21


def test_a_part_says_what_its_records_do_not(tmp_path: Path) -> None:
    bare = {"query": "q", "positive": "p", "negatives": ["n"]}
    file = Content(path=lines(tmp_path / "bare.jsonl", bare, bare, bare | {"task": "own", "kind": "long_long"}, bare))
    part = Part(name="nli", path=file, kind="sts", tasks=("entail", "alike"))
    corpus, store = MixedCorpus((part,), None), Store(tmp_path / "home").open()
    mixed(store, corpus)
    found = [json.loads(line) for line in (store.payload(corpus) / "examples.jsonl").read_text().splitlines()]
    assert [each["task"] for each in found] == ["entail", "alike", "own", "alike"]
    assert [each["kind"] for each in found] == ["sts", "sts", "long_long", "sts"]
    with pytest.raises(UserError, match="line 1 has no task"):
        MixedCorpus((part.model_copy(update={"tasks": ()}),), None).check(Runtime())
    empty = part.model_copy(update={"path": Content(path=lines(tmp_path / "empty.jsonl"))})
    with pytest.raises(UserError, match=r"given\.corpora\.1\.path=.*there is no example in it"):
        MixedCorpus((part, empty), None).check(Runtime())


def test_corpora_in_a_config(compose: Any, tmp_path: Path) -> None:
    file = lines(tmp_path / "c.jsonl", *[EXAMPLE] * 4)
    two = f"given.corpora=[{{name: a, path: {file}, weight: 3}}, {{name: b, path: {file}}}]"
    assert labels(compose(two)) == ["given corpus", "embedder", "evaluation"]
    made = pipeline(compose(two, "given.records=2"))
    assert made.embedder.rows == 2
    plain = pipeline(compose(f"given.corpus={file}"))
    assert isinstance(plain.corpus, GivenCorpus)
    assert len({made.key, plain.key, pipeline(compose(two)).key}) == 3
    for typed, told in (
        ((two, f"given.corpus={file}"), "corpus and corpora are both given"),
        (("given.records=2",), "records=2 has no effect: no corpus is given"),
        ((two.replace("name: b", "name: a"),), "each needs a name of its own, and they are a, a"),
        ((two.replace("weight: 3", "weight: 0"),), r"given.corpora.0.weight: .*greater than 0"),
    ):
        with pytest.raises(UserError, match=told):
            compose(*typed)


def test_a_part_may_be_a_run(tmp_path: Path) -> None:
    folder = run_of(tmp_path)
    with pytest.raises(ValueError, match="the folder has no stages/dedup/examples.jsonl"):
        Part(name="llama", path=tmp_path / "run")
    file = lines(folder / "examples.jsonl", EXAMPLE)
    assert Part(name="llama", path=tmp_path / "run") == Part(name="llama", path=file)


def run_of(home: Path) -> Path:
    """The folder of a run without a corpus, which would stand in the folder that is returned."""
    folder = home / "run" / "stages" / "dedup"
    folder.mkdir(parents=True)
    return folder


def test_a_corpus_may_be_a_run(compose: Any, tmp_path: Path) -> None:
    folder = run_of(tmp_path)
    for more in ((), ("given.records=2",)):
        with pytest.raises(UserError, match=r"given\.corpus: the folder has no stages/dedup/examples.jsonl: .*/run\)"):
            compose(f"given.corpus={tmp_path / 'run'}", *more)
    file = lines(folder / "examples.jsonl", *[EXAMPLE] * 4)
    by_folder, by_file = (pipeline(compose(f"given.corpus={each}", "name=run")) for each in (tmp_path / "run", file))
    assert by_folder.key == by_file.key
    by_folder.goals()[0].node.check(Runtime())
    some = pipeline(compose(f"given.corpus={tmp_path / 'run'}", "given.records=3"))
    some.goals()[0].node.check(Runtime())
    assert some.embedder.rows == 3


def test_a_size_of_the_own_corpus_is_refused_beside_a_given_one(compose: Any, tmp_path: Path) -> None:
    file = lines(tmp_path / "c.jsonl", EXAMPLE)
    for typed in (f"given.corpus={file}", f"given.corpora=[{{name: a, path: {file}}}]"):
        with pytest.raises(
            UserError, match=r"^the config has .*\n  scale.keep=20 has no effect: the corpus is given; gi"
        ):
            compose(typed, "scale.keep=20")


def test_messages_name_the_key_that_was_typed(compose: Any, tmp_path: Path) -> None:
    file, gone = lines(tmp_path / "c.jsonl", *[EXAMPLE] * 4), tmp_path / "gone.jsonl"
    two = f"given.corpora=[{{name: a, path: {gone}}}, {{name: b, path: {gone}.gz}}]"
    for typed, told in (
        (
            (f"given.corpus={file}", "given.records=5"),
            f"given.corpus={file} gives at most 4\n  take fewer, or a larger",
        ),
        ((f"given.corpus={gone}", "given.records=5"), f"given.corpus={gone} does not exist"),
        ((f"given.corpus={gone}",), f"given.corpus={gone} does not exist"),
        ((f"given.seed={tmp_path}",), f"given.seed={tmp_path} is a folder"),
        (
            (two,),
            f"given.corpora.0.path={gone} does not exist: give the path of an existing file\ngiven.corpora.1.path=",
        ),
    ):
        config = compose(*typed)
        with noted_absence():
            given_one = next(goal.node for goal in pipeline(config).goals() if goal.label.startswith("given"))
        with pytest.raises(UserError) as refused:
            given_one.check(Runtime())
        assert told in str(refused.value)


def test_a_plan_tells_of_a_missing_file_once(compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = f"given.corpora=[{{name: a, path: {tmp_path}/a}}, {{name: b, path: {tmp_path}/b}}]"
    for typed, keys in (
        ((two,), ("given.corpora.0.path", "given.corpora.1.path")),
        ((f"given.corpus={tmp_path}/a",), ("given.corpus",)),
        ((f"given.seed={tmp_path}/a",), ("given.seed",)),
    ):
        run(compose(*typed, "plan=true", f"runtime.home={tmp_path / 'home'}"), "", Origin(preset="miniature"))
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.count("the run would be refused") == len(keys)
        for key in keys:
            assert f"the run would be refused: {key}" in shown


def test_the_labelled_control_has_the_sets_of_full_data(compose: Any) -> None:
    control, full = (compose("preset=paper", f"+experiment={each}") for each in ("control_labelled", "full_data"))
    parts = [(part.path, part.weight, part.kind, part.tasks) for part in control.given.corpora]
    assert parts == [(each.path, each.expected, each.kind, each.tasks) for each in full.embedder.sources]
    with noted_absence():
        made = pipeline(control)
    assert made.embedder.rows == control.given.records == 150_000, "as far as a plan can tell without the files"
    assert control.embedder == compose("preset=paper").embedder
