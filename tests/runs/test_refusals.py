"""A plan tells everything that speaks against a run; the run refuses all of it at once, and builds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speed.backends.alignment.options import TrlOptions, refuse_unusable
from speed.backends.embedder.trainer import ContrastiveTrainer
from speed.core.errors import UserError
from speed.data.trainings import Sft
from speed.ports import Teacher
from speed.runs.building import Origin
from speed.runs.experiment import run
from speed.runtime import Runtime
from speed.teaching.entry import Entry, key
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher

ORIGIN = Origin(preset="paper")
RETIRED = "gpt-4o-2024-05-13"


def test_a_plan_tells_all_and_the_run_refuses_all(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = tmp_path / "topics.txt"
    config = compose(
        *("preset=paper", "teacher=gpt4o_2024_05_13", "topics=file", f"topics.path={topics}", "engine=transformers"),
        *("runtime.max_usd=1", "runtime.strategy=ddp", "runtime.nodes=4000", f"runtime.home={tmp_path / 'home'}"),
    )
    assert run(config.model_copy(update={"plan": True}), "", ORIGIN) is None
    shown = " ".join(capsys.readouterr().out.split())
    assert "of which brainstorming" in shown
    assert f"the run would be refused: topics.path={topics} does not exist" in shown
    assert shown.count(f"{topics} does not exist") == 1, "the stage tells it, and the key need not"
    topics.write_text("")
    with pytest.raises(UserError) as refused:
        run(config, "", ORIGIN)
    assert f"{topics}: no topic is left" in str(refused.value)
    for reason in (
        "the plan costs about $",
        f"the teacher {RETIRED} is retired",
        "a batch of 16 cannot be shared by runtime.nodes=4000",
        "a batch of 24 cannot be shared by runtime.nodes=4000",
        "runtime.nodes=4000 does not divide embedder.batch_size=1536",
    ):
        assert f"the run would be refused: {reason}" in shown
        assert f"\n- {reason}" in str(refused.value)
    assert not list((tmp_path / "home").rglob("manifest.json"))


def retired(teacher: Teacher, runtime: Runtime) -> bool:
    try:
        teacher.check(runtime)
    except UserError as refusal:
        return "is retired: OpenAI has not served it since 2026-10-23" in str(refusal)
    return False


@pytest.mark.parametrize(
    ("teacher", "url", "is_refused"),
    [
        (LitellmTeacher(model=RETIRED), None, True),
        (LitellmTeacher(model=f"openai/{RETIRED}"), "https://api.openai.com/v1", True),
        (OpenAICompatibleTeacher(model=RETIRED), "https://api.openai.com/v1", True),
        (OpenAICompatibleTeacher(model=RETIRED), "http://127.0.0.1:8000/v1", False),
        (LitellmTeacher(model=RETIRED), "http://127.0.0.1:8000/v1", False),
        (LitellmTeacher(model=f"azure/{RETIRED}"), None, False),
        (LitellmTeacher(model="gpt-4o"), None, False),
        (LitellmTeacher(model="somebody/unknown"), None, False),
    ],
)
def test_a_retired_model_is_refused_where_its_provider_is_asked(
    teacher: Teacher, url: str | None, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    assert retired(teacher, Runtime(home=tmp_path, api_base=url)) == is_refused
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    if url is None:
        assert not retired(teacher, Runtime(home=tmp_path)), "litellm asks the URL of the environment"


def test_a_plan_says_what_the_first_call_will_lack(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(*overrides: str) -> str:
        run(compose("+experiment=smoke", *overrides, "plan=true", f"runtime.home={tmp_path}"), "", ORIGIN)
        return capsys.readouterr().out

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lacks = "its first call would be refused, unless the journal has all answers: "
    assert f"{lacks}teacher.model=gpt-4o needs OPENAI_API_KEY" in shown("teacher=gpt4o")
    assert f"{lacks}runtime.api_base=None" in shown("teacher=openai_compatible")
    assert lacks not in shown("teacher=gpt4o", "runtime.api_base=http://127.0.0.1:8000/v1")
    assert lacks not in shown()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a")
    assert lacks not in shown("teacher=gpt4o")


def test_a_source_is_read_whole_before_anything_is_built(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan reads the first 10,000 records; a run reads them all, once for the same content."""
    source, line = tmp_path / "labelled.jsonl", '{"query": "a", "positive": "b"}\n'
    source.write_text(line * 10_001 + '{"query": "a"}\n')
    config = compose(
        *("+experiment=smoke", f"embedder.sources=[{{path: {source}, kind: sts}}]", f"runtime.home={tmp_path / 'home'}")
    )
    assert run(config.model_copy(update={"plan": True}), "", ORIGIN) is None
    with pytest.raises(UserError, match=r"labelled.jsonl, line 10002 is no record: it has no positive"):
        run(config, "", ORIGIN)
    assert not list((tmp_path / "home").rglob("manifest.json"))


def test_answers_of_a_retired_model_stay_of_use(tmp_path: Path) -> None:
    messages = ({"role": "user", "content": "a"},)
    journal = Journal(tmp_path / "journal")
    lost = Entry(key=key(RETIRED, messages, {}, 0), model=RETIRED, messages=messages, answered=False, cause="http_404")
    journal.append(lost)
    journal.close()
    assert retired(LitellmTeacher(model=RETIRED), Runtime(home=tmp_path)), "a failed request is no answer"
    journal = Journal(tmp_path / "journal")
    journal.append(lost.model_copy(update={"key": key(RETIRED, messages, {}, 1), "answered": True, "cause": "ok"}))
    journal.close()
    assert not retired(LitellmTeacher(model=RETIRED), Runtime(home=tmp_path))
    assert retired(LitellmTeacher(model="gpt-4-turbo"), Runtime(home=tmp_path))


def test_the_default_teacher_is_served_and_priced(compose: Any, tmp_path: Path) -> None:
    config = compose("preset=paper")
    config.teacher.check(Runtime(home=tmp_path))
    assert config.teacher.dollars(1_000_000, 0) is not None


def test_a_stage_tells_all_its_mistakes(compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One check of a stage may refuse several things, and each is told by itself."""
    (tmp_path / "mirror").mkdir()
    for name in ("first", "second"):
        (tmp_path / f"{name}.jsonl").write_text("nothing\n")
    sources = ",".join(f"{{path: {tmp_path / name}.jsonl, kind: sts}}" for name in ("first", "second"))
    config = compose(
        *("preset=paper", "topics=miniature", "engine.step_tokens=1", f"eval.mirror={tmp_path / 'mirror'}"),
        *(f"embedder.sources=[{sources}]", "runtime.strategy=ddp", f"runtime.home={tmp_path / 'home'}"),
        *("trainer.packing=true", "trainer.padding_free=true"),
    )
    assert run(config.model_copy(update={"plan": True}), "", ORIGIN) is None
    shown = " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError) as refused:
        run(config, "", ORIGIN)
    for reason in (
        "trainer.padding_free=true has no effect on a preference training",
        "trainer.packing=true has no effect on a preference training",
        "trainer.padding_free=true has no effect beside trainer.packing=true",
        "this engine is vLLM, which is not installed",
        "engine.step_tokens=1 is less than engine.step_texts=",
        f"{tmp_path / 'first.jsonl'}, line 1 is not JSON",
        f"{tmp_path / 'second.jsonl'}, line 1 is not JSON",
        f"the mirror {tmp_path / 'mirror'} lacks AmazonPolarityClassification",
        f"the mirror {tmp_path / 'mirror'} lacks 64 more data sets",
    ):
        assert f"the run would be refused: {reason}" in shown
        assert f"\n- {reason}" in str(refused.value)


def test_settings_that_a_machine_cannot_carry_out_are_told_together() -> None:
    runtime = Runtime(devices="cpu", nodes=3)
    with pytest.raises(UserError) as refused:
        ContrastiveTrainer(base="anywhere", precision="fp16", batch_size=8).check(runtime)
    assert "does not divide embedder.batch_size=8" in str(refused.value)
    assert "embedder.precision=fp16 needs a GPU" in str(refused.value)
    options = TrlOptions(method="lora", precision="fp16", prompt_format="plain", micro_batch=3)
    sft = Sft(learning_rate=1e-4, batch_size=8, epochs=1, max_length=64)
    with pytest.raises(UserError) as refused:
        refuse_unusable(options, sft, runtime)
    assert "trainer.precision=fp16 needs a GPU" in str(refused.value)
    assert "micro batches of 3" in str(refused.value)
