"""Keys stand nowhere, kills lose nothing, and a teacher that is only made touches no network."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import HANG
from provider import Provider
from quick_teacher import SECRET, answers, ask, context, fine, teacher

from speed.core.errors import UserError
from speed.core.store import Store
from speed.runtime import Context, Runtime
from speed.teaching.errors import public_url, redacted
from speed.teaching.journal import Journal
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.teaching.session import session_at

pytestmark = pytest.mark.usefixtures("secret")


@pytest.mark.parametrize("kind", [OpenAICompatibleTeacher, LitellmTeacher])
def test_a_key_stands_in_no_file_log_or_message(
    kind: type[Any],
    provider: Provider,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    ctx = context(tmp_path, provider)
    ctx.send = lambda event: said.append(repr(event))
    with pytest.raises(UserError) as raised:
        answers(["a", "b | 500 ok", "c | leak500 ok", "d | leak500", "e | leak401"], ctx, by=teacher(kind))
    assert any(SECRET in value for headers in provider.headers for value in headers.values()), "the key was used"
    chain: BaseException | None = raised.value
    while chain is not None:
        assert SECRET not in repr(chain) + str(chain)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    session_at(tmp_path).journal.flush()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" for path in written)
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    shown = capfd.readouterr()
    assert SECRET not in shown.out + shown.err + " ".join(said)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("speed")]
    assert SECRET not in " ".join(ours)


def test_redaction_knows_the_environment_and_the_shape_of_keys() -> None:
    assert SECRET not in redacted(f"bad key {SECRET}!")
    assert "abcdef" not in redacted("sk-proj-abcdef123456 and Bearer abcdef")
    assert public_url("https://user:pass@host:1/v1?key=x#y") == "https://host:1/v1"


@pytest.mark.parametrize(("rows", "concurrency"), [(1500, 16), pytest.param(20_000, 64, marks=pytest.mark.slow)])
def test_kill_9_at_twenty_points_re_pays_at_most_what_was_in_flight(
    tmp_path: Path, rows: int, concurrency: int
) -> None:
    kills = 20
    with Provider(latency=0.01) as serving:
        script = Path(__file__).with_name("killable_program.py")
        command = [sys.executable, str(script), serving.url, str(tmp_path), str(rows), str(kills), str(concurrency)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
        assert done.returncode == 0, done.stderr
        final = json.loads(done.stdout)
    assert final["killed"] == kills
    assert [text.partition(" to ")[2] for text in final["texts"]] == [f"row {row}" for row in range(rows)]
    assert len(serving.paid) == rows
    paid_again = sum(serving.paid.values()) - rows
    print(f"{rows} rows, {kills} kills, {concurrency} in flight: {paid_again} answers paid for again")
    assert paid_again <= kills * concurrency
    assert final["damaged"] == 0
    answered = [entry.key for entry in Journal(tmp_path / "journal") if entry.answered]
    assert len(answered) == len(set(answered)) == rows


def test_importing_and_making_a_teacher_is_instant_and_touches_no_network() -> None:
    program = """
import socket, sys
def refuse(*_, **__): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from speed.teaching.litellm_teacher import LitellmTeacher
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
LitellmTeacher(model="gpt-4o").recipe(), OpenAICompatibleTeacher(model="x").recipe()
heavy = {"litellm", "aiohttp", "openai", "httpx", "torch", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANG)


class Rules(LitellmTeacher):
    """A provider of our own, registered with litellm."""

    identity: ClassVar[str | None] = None

    def register(self) -> None:
        import litellm
        from litellm import CustomLLM, ModelResponse

        class Handler(CustomLLM):
            async def acompletion(self, *_: Any, **arguments: Any) -> ModelResponse:
                text = f"{arguments['optional_params']['temperature']} {arguments['messages'][-1]['content']}"
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                response = ModelResponse(model="rules", choices=[choice])
                response.usage = litellm.Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
                return response

        litellm.custom_provider_map = [{"provider": "miniature", "custom_handler": Handler()}]


def test_a_provider_of_our_own_is_free_and_asked_through_litellm(tmp_path: Path) -> None:
    ctx = Context(Store(tmp_path).open(), Runtime())
    rules = Rules(model="miniature/rules")
    found = list(rules.ask([(ask(f"row {row}"), fine) for row in range(20)], ctx))
    assert [answer.text for answer in found] == [f"1.0 row {row}" for row in range(20)]
    assert ctx.tally.cost == {"calls": 20, "tokens_in": 60, "tokens_out": 80}
    assert ctx.tally.dollars == 0.0
    assert rules.recipe()["class"] == "Rules"
