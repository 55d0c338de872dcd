"""Every preset, experiment, group option and sweep point composes, validates and plans; conf/ has every value, once."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from composition import Composer
from conftest import ROOT
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from plans import points
from pydantic import BaseModel

from speed.config import FORMER_OPTIONS, JudgeConfig, former_options
from speed.core.content import noted_absence
from speed.core.errors import UserError
from speed.data.judging.votes import Judge
from speed.data.prompts.rendering import PromptsConfig
from speed.data.quality.minhash import MinHashConfig
from speed.data.topics.sources import TopicsConfig
from speed.pipeline import pipeline
from speed.runtime import Runtime

CONF, SWEEPS = ROOT / "conf", ROOT / "sweeps"
PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SWEEP_FILES = sorted(path.stem for path in SWEEPS.glob("*.yaml"))
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("preset", "experiment")
)
NEEDED = {
    "prompts=released": f"prompts.path={ROOT / 'tests' / 'data' / 'prompts' / 'released'}",
    "topics=file": "topics.path=package:miniature/topics.txt",
    "topics=corpus": f"topics.path={ROOT / 'docs'}",
    "eval=local": f"eval.tasks={ROOT / 'tests' / 'data' / 'tasks'}",
}
"""What an option that stands for a user's own file is given here."""


PAPERS_BASES = (
    "meta-llama/Meta-Llama-3-8B",
    "meta-llama/Meta-Llama-3-8B-Instruct",
    "meta-llama/Llama-2-7b-hf",
    "google/gemma-7b",
    "Qwen/Qwen2.5-7B",
    "mistralai/Mistral-7B-v0.1",
)
"""Named as the paper names them, of no revision."""
WITH_BASE = [each for each in OPTIONS if each.startswith(("generator=", "embedder=")) and each != "embedder=dry"]


@pytest.mark.parametrize("option", WITH_BASE)
def test_a_base_of_our_own_choice_is_of_one_commit(compose: Any, option: str) -> None:
    config = compose(option)
    base = config.generator.base.name if option.startswith("generator=") else config.embedder.base.name
    pinned = re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", base)
    assert pinned or base.startswith("package:") or base in PAPERS_BASES, base


def test_what_ships_is_what_these_tests_cover() -> None:
    assert PRESETS == ["laptop", "miniature", "one_gpu", "paper"]
    assert EXPERIMENTS == [
        "ablation_no_dpo",
        "ablation_no_revisor",
        "ablation_sft_only",
        "baseline_llama3",
        "control_labelled",
        "dry_run",
        "full_data",
        "smoke",
        "speed_920k",
        "teacher_data",
    ]
    assert SWEEP_FILES == [
        "ablations", "base_model", "beta", "candidates", "equal_steps", "judge", "negatives", "objective",
        "pair_source", "pairs", "revisions", "revisor_target", "scaling", "sft", "tasks_per_topic", "temperature",
    ]  # fmt: skip
    sizes = [len(points(sweep)) for sweep in SWEEP_FILES]
    assert sizes == [4, 3, 5, 4, 7, 6, 6, 10, 3, 5, 5, 2, 7, 5, 4, 6]
    assert len(OPTIONS) == len(list(CONF.glob("*/*.yaml"))) - len(PRESETS) - len(EXPERIMENTS)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(compose: Any, preset: str) -> None:
    config = compose(f"preset={preset}")
    assert len(pipeline(config).goals()) == 16


def test_the_papers_preset_shares_models_among_processes(compose: Any) -> None:
    assert compose("preset=paper").runtime == compose("runtime.strategy=zero3").runtime
    changed = compose("preset=paper", "runtime.strategy=ddp", "runtime.devices=[0,1]", "runtime.max_usd=20").runtime
    assert (changed.strategy, changed.devices, changed.max_usd) == ("ddp", (0, 1), 20)
    assert compose("preset=paper", "runtime=default").runtime == compose().runtime


@pytest.mark.parametrize("option", OPTIONS)
def test_options(compose: Any, option: str) -> None:
    extra = (NEEDED[option],) if option in NEEDED else ()
    assert pipeline(compose(option, *extra)).goals()


@pytest.mark.parametrize(("preset", "experiment"), [*itertools.product(PRESETS, EXPERIMENTS)])
def test_experiments_change_the_key_under_every_preset(compose: Any, preset: str, experiment: str) -> None:
    plain = pipeline(compose(f"preset={preset}"))
    with noted_absence() as absent:  # of the labelled sets, which are the user's
        changed = pipeline(compose(f"preset={preset}", f"+experiment={experiment}"))
        assert changed.key != plain.key
    assert len(absent) == (14 if experiment in ("full_data", "control_labelled") else 0)


@pytest.mark.parametrize(
    ("preset", "sweep", "point"),
    [(preset, sweep, point) for preset in PRESETS for sweep in SWEEP_FILES for point in points(sweep, preset)],
)
def test_sweep_points_compose_under_every_preset(compose: Any, preset: str, sweep: str, point: tuple[str, ...]) -> None:
    assert pipeline(compose(f"preset={preset}", *point, config=sweep)).goals()


@pytest.mark.parametrize("sweep", SWEEP_FILES)
def test_points_of_a_sweep_are_different_experiments(compose: Any, sweep: str) -> None:
    keys = [pipeline(compose(*point, config=sweep)).key for point in points(sweep)]
    assert len(set(keys)) == len(keys)


def test_base_models_are_those_of_the_preset() -> None:
    table_4 = [(f"generator={base}",) for base in ("llama3_8b", "llama2_7b", "gemma_7b", "qwen2_5_7b")]
    assert points("base_model", "paper") == points("base_model", "one_gpu") == table_4
    assert points("base_model") == [(f"generator=tiny_{base}",) for base in ("llama", "qwen", "gemma")]
    assert points("base_model", "laptop") == [("generator=smollm2_135m",)]


def test_beta_is_measured_on_the_senior(compose: Any) -> None:
    """Figure 3c, as 3d: no revisor, and whoever has run one has a point of the other."""
    beta, pairs = (pipeline(compose(config=sweep)) for sweep in ("beta", "pairs"))
    assert "revisor" not in [goal.label for goal in beta.goals()]
    assert beta.key == pairs.key


@pytest.mark.parametrize("sweep", [sweep for sweep in SWEEP_FILES if sweep != "equal_steps"])  # no preset fixes steps
def test_a_sweep_contains_the_presets_own_point(compose: Any, sweep: str) -> None:
    """Whoever has run the experiment that a sweep varies has one of its points already."""
    text = yaml.safe_load((SWEEPS / f"{sweep}.yaml").read_text())["defaults"]
    chosen = [f"{key}={value}" for item in text if isinstance(item, dict) for key, value in item.items()]
    own = pipeline(compose(*(each.replace("override /", "").replace("experiment=", "+experiment=") for each in chosen)))
    assert own.key in [pipeline(compose(*point, config=sweep)).key for point in points(sweep)]


FORMER = [f"{group}={option}" for group, option in FORMER_OPTIONS]


def written(option: str) -> dict[str, Any]:
    """What an option's own file says, without its defaults list."""
    text, group = (CONF / f"{option.replace('=', '/')}.yaml").read_text(), option.partition("=")[0]
    values = yaml.safe_load(text) or {}
    if text.startswith("# @package _global_"):  # it sets values of other groups too
        others = {key: value for key, value in values.items() if key not in (group, "defaults")}
        values = values.get(group, {}) | ({"others": others} if others else {})
    return {key: value for key, value in values.items() if key != "defaults"}


def parents(option: str) -> list[str]:
    """The options of its own group that an option's file inherits from, nearest last."""
    group, name = option.split("=")
    listed = (yaml.safe_load((CONF / group / f"{name}.yaml").read_text()) or {}).get("defaults", [])
    own = [item.partition("@")[0] for item in listed if isinstance(item, str) and item != "_self_"]
    return [f"{group}={item}" for item in own]


def leaves(values: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The values of a tree by their places."""
    if not isinstance(values, dict) or not values:
        return {path: values}
    return {place: leaf for key, value in values.items() for place, leaf in leaves(value, (*path, key)).items()}


def inherited(option: str) -> dict[tuple[str, ...], Any]:
    """What an option has before its own file speaks."""
    found: dict[tuple[str, ...], Any] = {}
    for parent in parents(option):
        found |= inherited(parent) | leaves(written(parent))
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_says_only_what_differs_from_what_it_inherits(option: str) -> None:
    before = inherited(option)
    repeated = [place for place, value in leaves(written(option)).items() if place in before and before[place] == value]
    assert not repeated, f"conf/{option.replace('=', '/')}.yaml repeats {repeated} of {parents(option)}"


def test_no_two_options_of_a_group_are_the_same(compose: Any) -> None:
    """Two options of a group with the same values are one too many."""
    seen: dict[tuple[str, str], str] = {}
    for option in OPTIONS:
        if option == "topics=odp":  # the same list as builtin until the user names a dump
            continue
        values = str(sorted((inherited(option) | leaves(written(option))).items(), key=str))
        if option not in FORMER:
            same = seen.setdefault((option.split("=")[0], values), option)
            assert same == option, f"{option} repeats {same}"


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_option_opens_with_what_it_is(path: Path) -> None:
    """One comment line first (after Hydra's own `# @package` line), and numbers with a source: the paper's, or ours."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    comments = " ".join(line.partition("#")[2] for line in lines)
    assert re.search(r"[Oo]urs|Table|Figure|Appendix|[34]\.\d|E5-mistral", comments), "whose numbers are these?"


EXPLAINED = {
    "generator.sft.seed": "the pipeline sets it from seed.train",
    "preference.dpo.seed": "the pipeline sets it from seed.train",
    "revisor.sft.seed": "the pipeline sets it from seed.train",
}
"""Fields without a line in conf/, and why."""


def unsaid(spec: BaseModel, values: dict[str, Any], path: str = "") -> set[str]:
    """The fields of a config that no file of conf/ gives a value."""
    found = set()
    for name in type(spec).model_fields:
        value, key = getattr(spec, name), f"{path}.{name}".strip(".")
        if name not in values:
            found.add(key)
        elif isinstance(value, BaseModel) and isinstance(values[name], dict):
            found |= unsaid(value, values[name], key)
    return found


@pytest.mark.parametrize(
    "overrides", [*((f"preset={preset}",) for preset in PRESETS), *((option,) for option in OPTIONS)]
)
def test_every_value_has_its_line(compose: Any, raw: Any, overrides: tuple[str, ...]) -> None:
    """No value that can change a result is a default hidden in code."""
    more = tuple(NEEDED[override] for override in overrides if override in NEEDED)
    hidden = unsaid(compose(*overrides, *more), raw(*overrides, *more))
    assert hidden <= set(EXPLAINED), f"give these a line in conf/, with its source: {sorted(hidden - set(EXPLAINED))}"


def test_defaults_in_code_are_the_papers(compose: Any) -> None:
    """Where code has a default beside the line in conf/ (for callers without Hydra), the two are one value."""
    config = compose("preset=paper")
    assert config.prompts.recipe() == PromptsConfig().recipe()
    assert config.dedup.minhash == MinHashConfig()
    assert config.topics == TopicsConfig()
    assert config.judge == JudgeConfig()
    assert config.judge.by_votes == Judge()


@pytest.mark.parametrize("preset", ["miniature", "paper"])
@pytest.mark.parametrize("objective", ["dpo", "ipo", "robust", "dpo_sft", "field_dpo", "verified_pairs"])
def test_an_objective_leaves_the_training_alone(compose: Any, preset: str, objective: str) -> None:
    """What is optimised is one choice, how it is trained another: an 8B's learning rate stays out of the miniature."""
    plain, other = (compose(f"preset={preset}", *more).preference.dpo for more in ((), (f"preference={objective}",)))
    training = ("learning_rate", "batch_size", "epochs", "max_length", "warmup_ratio")
    assert [getattr(plain, field) for field in training] == [getattr(other, field) for field in training]
    assert plain.learning_rate == {"miniature": 3e-4, "paper": 1e-5}[preset]


@pytest.mark.parametrize(("group", "option"), FORMER_OPTIONS)
def test_an_option_is_still_found_by_its_former_name(compose: Any, group: str, option: str) -> None:
    """Under every preset the former name gives what today's two names give, and the run says what to write."""
    today = FORMER_OPTIONS[group, option]
    for preset in PRESETS:
        former = compose(f"preset={preset}", f"{group}={option}")
        assert former == compose(f"preset={preset}", *today.split())
    [note] = former_options({group: option, "preset": "paper"})
    assert today in note
    assert not list(former_options({"preference": "dpo", "preset": "paper"}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "preference.enabled=true preference=none",
            r"preference: enabled: true needs dpo; take an option of the groups",
        ),
        ("preference.dpo.beta=hot", r"preference\.dpo\.beta: .*number.*hot"),
        ("counts.candidates=1", r"counts\.candidates: .*greater than or equal to 2.*1"),
        ("diversity.tasks_per_topic=9", "tasks_per_topic=9 is more than tasks_requested=5"),
        ("+preference.betta=0.1", r"preference\.betta: there is no such key"),
        ("judge.margin=0.5", r"judge: margin=0\.5 with decide=unanimous: a margin above 0 belongs to decide=margin"),
        ("guidelines.drop=[ugly]", "guidelines.drop: ugly is no guideline that is checked; those are query_length, "),
        ("teacher.error_rate=2", r"teacher\.error_rate: .*less than or equal to 1"),
        ("embedder.temperature=0", r"embedder\.temperature: .*greater than 0"),
        *(
            (f"tracker._target_={target}", rf"tracker\._target_: only parts of speed may be named, not '{target}'")
            for target in (
                "os.system",
                "speed.run.os.system",
                "speed.core.store.shutil.rmtree",
                "speed.run.sys.exit",
                "speed",
                "speed.core.store.Store",
                "speed.run.main",
                "speed.nothing.Part",
                "speed..run.main",
                "3",
            )
        ),
        ("seed.data=-1", r"seed\.data: .*greater than or equal to 0"),
        ("name=a/b", "name: "),
        (f"name={'x' * 400}", "name: "),
    ],
)
def test_mistakes_name_the_key_and_the_value(compose: Any, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(*override.split())


def test_what_is_trained_without_instructions_is_not_judged_with_them(compose: Any) -> None:
    bare = 'embedder.instruction="{query}"'
    with pytest.raises(UserError, match=r"embedder\.instruction .* set eval\.protocol=native"):
        compose(bare)
    assert not compose(bare, "eval.protocol=native").embedder.instructs


def test_all_mistakes_are_told_at_once(compose: Any) -> None:
    with pytest.raises(UserError) as told:
        compose("counts.sft=0", "scale.examples=none", "limits.tasks=-3")
    assert all(key in str(told.value) for key in ("counts.sft", "scale.examples", "limits.tasks"))


def test_every_key_exists_in_the_tree() -> None:
    """So that no override ever needs a plus sign."""
    keys = yaml.safe_load((CONF / "runtime" / "default.yaml").read_text())
    assert set(keys) == set(Runtime.model_fields)


def test_one_number_for_the_seed_leaves_the_teachers_data_alone(compose: Any) -> None:
    config = compose("seed=3")
    assert (config.seed.data, config.seed.sample, config.seed.train) == (0, 3, 3)


@pytest.mark.parametrize(
    ("option", "old"),
    [
        ("teacher=gpt4o", "speed.backends.teaching.litellm_teacher.LitellmTeacher"),
        ("teacher=openai_compatible", "speed.backends.teaching.openai_teacher.OpenAICompatibleTeacher"),
    ],
)
def test_a_part_is_still_found_by_its_old_name(
    compose: Any, capsys: pytest.CaptureFixture[str], option: str, old: str
) -> None:
    """As it stands in option files that users wrote."""
    teacher = compose(option, "teacher.model=some-model").teacher
    assert compose(option, "teacher.model=some-model", f"teacher._target_={old}").teacher == teacher
    new = f"{type(teacher).__module__}.{type(teacher).__name__}"
    assert f"teacher._target_: {old} is now named {new}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ("config", ""),
        ("config", "preset=paper +experiment=[smoke,teacher_data] scale.factor=2 seed=3 judge=swap"),
        ("objective", "preference=ipo preset=laptop preference.dpo.beta=0.3"),
    ],
)
def test_the_tests_compose_what_hydra_composes(config: str, command: str) -> None:
    composer, overrides = Composer(), command.split()
    for _ in ("from the files", "from what was kept"):
        found = composer(tuple(overrides), config)
        with initialize_config_dir(str(CONF if config == "config" else SWEEPS), version_base="1.3"):
            elsewhere = [f"hydra.searchpath=[file://{CONF}]"] if config != "config" else []
            expected = hydra_compose(config, overrides=[*overrides, *elsewhere])
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
