"""Checks of the worked examples of docs/extend.md, inside a copy of the project that has them; prints what it found.

python extended_project.py HOME, in the copy's folder: one JSON object, a field for each example.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose, initialize_config_dir

from speed.config import Config, validated
from speed.core.build import build
from speed.core.graph import goals
from speed.core.stage import Pool, silence
from speed.core.store import Store
from speed.data.records import UNASKED, Example, Kind, Sample
from speed.pipeline import pipeline
from speed.ports import Ask, Generate, Sampling
from speed.run import CONF, composed
from speed.runtime import Context, Runtime


def config_of(*overrides: str) -> Config:
    with initialize_config_dir(CONF, version_base="1.3"):
        return validated(composed(compose("config", overrides=list(overrides))))


def keys(*overrides: str) -> dict[str, str]:
    return {goal.label: goal.key for goal in pipeline(config_of(*overrides)).goals()}


def objective() -> dict[str, Any]:
    """The loss that the option gives, what it begins with, and what is built again."""
    from speed.backends.alignment.dpo import loss_arguments, loss_at_start

    dpo = config_of("preference=nca").preference.dpo
    assert dpo is not None
    before, after = keys(), keys("preference=nca")
    changed = [label for label in after if after[label] != before.get(label)]
    return {"loss": loss_arguments(dpo)["loss_type"], "at start": loss_at_start(dpo), "built again": changed}


@dataclass(frozen=True)
class TwoAndThreeWords(Pool[Sample]):
    name: ClassVar[str] = "given"
    row: ClassVar[type[Sample]] = Sample

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Sample]:
        for row in range(start, stop):
            example = Example(kind=Kind.SHORT_SHORT, task="t", query="q", positive=" ".join(["word"] * (2 + row % 2)))
            yield Sample(row=row, prompt=UNASKED, example=example)


def filtered(home: Path) -> dict[str, Any]:
    """The key of everything without the filter, what stands beside it with it, and which rows it rejects."""
    from speed.stages.word_limit import WordLimit

    store = Store(home).open()
    take = WordLimit(TwoAndThreeWords(), 3).take(4)
    for goal in goals([take]):
        build(goal, store, Runtime(home=home), silence)
    order = list(keys("words=three"))
    place = order.index("word limit")
    return {
        "without": keys()["evaluation"],
        "between": [order[place - 1], order[place + 1]],
        "rejected": [row.rejected for row in store.rows(take)],
    }


def generated(home: Path) -> list[str]:
    """The texts of two requests for one prompt and one for another."""
    texts = home / "texts.jsonl"
    rows = [{"prompt": prompt, "text": f"{prompt} {n}"} for n in range(3) for prompt in ("a", "b")]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = config_of("engine=replay", f"engine.texts={texts}").engine
    calls = [[Generate(key="0", prompt="a", seed=0, n=2), Generate(key="1", prompt="b", seed=1)]]
    ctx = Context(Store(home).open(), Runtime(home=home))
    return [text.text for texts in engine.generate(home, calls, Sampling(temperature=1.0), ctx) for text in texts]


class Ollama(BaseHTTPRequestHandler):
    """A server that repeats what it is asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = f"{asked['model']} heard: {asked['messages'][-1]['content']} ({asked['options']['num_predict']})"
        answer = {"message": {"content": said}, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 7}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        """Nothing is printed."""


def taught(home: Path) -> dict[str, Any]:
    """An answer of the teacher and what it cost, asked twice and sent once."""
    server = HTTPServer(("127.0.0.1", 0), Ollama)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    config = config_of("teacher=ollama", "teacher.model=small", f"runtime.api_base={url}")
    ctx = Context(Store(home).open(), config.runtime.model_copy(update={"home": home}))
    ask = Ask(prompt="Say something.", temperature=1.0, max_tokens=9, purpose="seed")
    first, again = (next(config.teacher.ask([(ask, lambda text: None)], ctx)) for _ in range(2))
    server.shutdown()
    cost = ctx.tally.cost
    return {"said": first.text, "again": again == first, "calls": cost["calls"], "tokens_out": cost["tokens_out"]}


def judged() -> dict[str, float]:
    """Scores of the miniature's base on the folder of tasks."""
    from speed.evaluate import evaluate, parser

    typed = ["speed/miniature/bases/embedder", "--folder", "my_tasks", "--no-published", "--vectors-gb", "0"]
    record, _ = evaluate(parser().parse_args([*typed, "--home", sys.argv[1]]))
    return dict(record.scores.tasks)


def main() -> None:
    home = Path(sys.argv[1])
    home.mkdir(parents=True, exist_ok=True)
    found = {
        "objective": objective(),
        "filter": filtered(home),
        "engine": generated(home),
        "teacher": taught(home),
        "task": judged(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
