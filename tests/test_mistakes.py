"""What a user gets wrong on the command line: one clear message with the remedy, a non-zero exit code, no traceback."""

from __future__ import annotations

import os
import stat
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import SMOKE, Finished, speed, speed_here


def test_a_command_refuses_alike_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Most of these tests run the command within their own process, which is faster."""
    mistake = "preference.dpo.beta=hot"
    alone, here = speed(tmp_path / "home", mistake), speed_here(tmp_path / "home", mistake)
    refused(alone, "preference.dpo.beta", "hot")
    assert alone == here


def refused(done: Finished, *parts: str) -> None:
    """The command failed, said all the parts, and showed no traceback."""
    said = done.out + done.err
    assert done.code not in (0, 130), said
    assert "Traceback" not in said, said
    for part in parts:
        assert part in said, f"{part!r} is not in:\n{said}"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["preference.dpo.betta=0.1"],
            ["there is no preference.dpo.betta; did you mean preference.dpo.beta=0.1?"],
        ),
        (["prefrence.dpo.beta=0.1"], ["did you mean preference.dpo.beta=0.1?"]),
        (["senior=smoke", "preference.dpo.batch=4"], ["did you mean preference.dpo.batch_size=4?"]),
        (["counts.zzz=4"], ["there is no counts.zzz; the keys of counts: candidates, "]),
        (["-m", "preference.dpo.betta=0.1,0.2"], ["did you mean preference.dpo.beta=0.1,0.2?"]),
        (
            ["+preference.dpo.betta=0.1"],
            ["dpo.betta: there is no such key; did you mean preference.dpo.beta?"],
        ),
        (["++teacher.modle=x"], ["teacher.modle: there is no such key; did you mean teacher.model?"]),
        (["+counts.zzz=4"], ["counts.zzz: there is no such key; see `python -m speed.run --cfg job`"]),
        (["nonsense=1"], ["there is no nonsense; see `python -m speed.run --help`"]),
        (["tasks.path=mine.tsv"], ["there is no tasks; see `python -m speed.run --help`"]),
        (["generator=llama9"], ["llama9", "tiny_llama"]),
        (["generator=xyz"], ["xyz", "tiny_llama"]),
        (["+experiment=ablation_no_dop"], ["ablation_no_dop: did you mean +experiment=ablation_no_dpo?"]),
        (["+experiment=[smoke,ablation_no_dop]"], ["ablation_no_dop: did you mean +experiment=ablation_no_dpo?"]),
        (["prefrence=ipo"], ["there is no prefrence; did you mean preference=ipo?"]),
        (["preference=ipoo", "sed=1"], ["did you mean preference=ipo?", "did you mean seed=1?", "verified_pairs"]),
        (["--config-dir", "sweeps", "--config-name", "beta", "senoir=smoke"], ["did you mean senior=smoke?"]),
        (["counts.sft=many"], ["counts.sft", "many"]),
        (["counts.sft=0"], ["counts.sft", "greater than or equal to 1"]),
        (["seed=0,1"], ["seed=0,1", "multirun"]),
        (["topics=file"], ["topics.path"]),
        (["topics=corpus"], ["topics.path"]),
        (["topics.path=nowhere.txt"], ["topics.path: nowhere.txt does not exist"]),
        (["given.seed=nowhere.jsonl"], ["given.seed: nowhere.jsonl does not exist"]),
        (["given.junior=./nowhere"], ["given.junior: there is no base model './nowhere'"]),
        (["generator.base=./nowhere"], ["generator.base: there is no base model './nowhere'"]),
        (["generator.base=/models/lama"], ["no base model '/models/lama'", "give an existing folder"]),
        (["embedder.base=/models/mistal"], ["no base model '/models/mistal'", "give an existing folder"]),
        (["eval=local", "eval.tasks=nowhere"], ["eval.tasks: nowhere does not exist"]),
        (["engine._target_=os.system"], ["engine._target_", "only parts of speed"]),
        (["runtime.generation_gpus=2"], ["runtime.generation_gpus is no longer there", "runtime.devices", "device_gb"]),
        (["runtime.processes=8"], ["runtime.processes is no longer there", "runtime.devices=auto or [0,1]"]),
        (["runtime.device=cuda"], ["runtime.device is no longer there", "runtime.devices=auto, cpu or [0,1]"]),
        (["runtime.devices=cuda"], ["runtime.devices", "take auto, cpu, or numbers of different GPUs", "cuda"]),
        (["runtime.devices=[0,99]"], ["runtime.devices=[0,99] names GPU", "99", "this machine has", "plan=true"]),
        (["runtime.threads=0"], ["runtime.threads", "take auto, or a number from 1 on"]),
    ],
)
def test_a_mistake_in_the_command_is_one_message(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    home = tmp_path / "home"
    refused(speed_here(home, *arguments), *parts)
    assert not list(home.rglob("manifest.json"))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_engine_that_is_not_installed_is_told_before_anything_is_built(tmp_path: Path) -> None:
    refused(speed_here(tmp_path / "home", "engine=vllm"), "vLLM, which is not installed", "pip install")
    assert not list((tmp_path / "home").rglob("manifest.json"))


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_the_papers_preset_plans_anywhere_and_says_what_a_run_lacks_before_anything_is_bought(tmp_path: Path) -> None:
    home, lacks = tmp_path / "home", "runtime.strategy=zero3 needs DeepSpeed, which is not installed"
    plan = speed_here(home, "preset=paper", "plan=true")
    assert plan.code == 0, plan.err
    assert "45,000" in plan.out
    assert f"the run would be refused: {lacks}" in plan.out
    refused(speed_here(home, "preset=paper"), lacks, "pip install", "runtime.strategy=ddp")
    shared = speed_here(home, "preset=paper", "plan=true", "runtime.strategy=ddp", "runtime.nodes=16")
    assert "a batch of 24 cannot be shared by runtime.nodes=16" in shared.out
    assert not list(home.rglob("manifest.json"))


def test_a_multirun_whose_points_are_refused_says_so_and_ends_with_its_table(tmp_path: Path) -> None:
    done = speed_here(tmp_path / "home", "-m", SMOKE, "runtime.max_calls=1", "seed=0,1")
    refused(done, "more than runtime.max_calls=1", "raise the cap")
    point = next(line.split() for line in done.out.splitlines() if line.startswith("this recipe"))
    assert point[2:7] == ["not", "finished", "0", "of", "2"]
    assert "2 of 2 runs did not finish" in done.out


def test_an_empty_topics_file(tmp_path: Path) -> None:
    (tmp_path / "topics.txt").write_text("\n\n")
    refused(speed_here(tmp_path / "home", SMOKE, "tracker=none", f"topics.path={tmp_path}/topics.txt"), "topics.txt")


def test_a_task_folder_without_its_columns_is_told_before_anything_is_built(tmp_path: Path) -> None:
    task = tmp_path / "tasks" / "Mine"
    task.mkdir(parents=True)
    files = "configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.jsonl\n"
    (task / "README.md").write_text(f"---\n{files}---\n- type: STS\n")
    (task / "test.jsonl").write_text('{"sentence1": "a", "score": 1}\n')
    done = speed_here(tmp_path / "home", SMOKE, "eval=local", f"eval.tasks={tmp_path}/tasks")
    refused(done, "test.jsonl", "'sentence2' is missing")
    assert not list((tmp_path / "home").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("labelled.jsonl", "embedder.sources=[{path: FILE, kind: sts}]", "FILE, line 1: unknown column 'hard'"),
        ("topics.txt.gz", "topics.path=FILE", "FILE is not a gzip archive"),
    ],
)
def test_a_file_that_the_config_names_is_opened_before_anything_is_built(
    tmp_path: Path, name: str, argument: str, said: str
) -> None:
    file = tmp_path / name
    file.write_text('{"query": "a", "positive": "b", "hard": "c"}\n')
    done = speed_here(tmp_path / "home", SMOKE, argument.replace("FILE", str(file)))
    refused(done, said.replace("FILE", str(file)))
    assert not list((tmp_path / "home").rglob("manifest.json"))


def test_an_unreadable_dump(tmp_path: Path) -> None:
    (tmp_path / "structure.rdf.u8.gz").write_bytes(b"this is no gzip")
    path = tmp_path / "structure.rdf.u8.gz"
    refused(speed_here(tmp_path / "home", SMOKE, "tracker=none", f"topics.path={path}"), path.name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_root(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    refused(speed_here(tmp_path / "home", SMOKE), "permission", "SPEED_HOME")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    refused(speed_here(tmp_path / "home", SMOKE), "SPEED_HOME")


def test_a_budget_that_the_plan_exceeds(tmp_path: Path) -> None:
    for cap, said in (("max_usd=5", "$"), ("max_tokens=1000000", "tokens"), ("max_calls=45000", "calls")):
        done = speed_here(tmp_path / "home", "preset=paper", f"runtime.{cap}")
        refused(done, f"more than runtime.{cap.partition('=')[0]}=", "raise the cap", said)


def test_a_teacher_without_its_key(tmp_path: Path) -> None:
    done = speed_here(tmp_path / "home", SMOKE, "teacher=gpt4o", "generator=smoke", "embedder=tiny", OPENAI_API_KEY="")
    refused(done, "OPENAI_API_KEY")
