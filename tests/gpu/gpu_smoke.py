"""Part 1: `+experiment=smoke`, from topics to embedder and vectors, with models in bf16 on the device.

The teacher is the miniature's rules behind an OpenAI-compatible server on the loopback, asked by the lean sender; the
last stage encodes two of the miniature's tasks with the project's encoder instead of asking mteb. Neither litellm nor
mteb nor wandb is needed, nor looked at.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any, ClassVar

from gpu_figures import Figures
from gpu_machine import Machine
from gpu_models import composed

from speed.data.records import Scores
from speed.ports import Evaluator
from speed.runtime import Context

CHARACTERS_A_TOKEN = 4
TASK = "MiniatureSTS"


class Vectors(Evaluator):
    """Scores of one task of the miniature, by our encoder alone."""

    version: ClassVar[int] = 1
    heavy: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils")

    precision: str = "bf16"

    @property
    def instructs(self) -> bool:
        return True

    def evaluate(self, embedder: Path, out: Path, ctx: Context) -> Scores:
        """Spearman's correlation of cosine and score, times 100."""
        import numpy as np
        import torch
        from scipy.stats import spearmanr

        from speed.backends.encoding.encoder import Encoder
        from speed.backends.runtime.device import device_of
        from speed.miniature.tasks import write_tasks

        write_tasks(out / "tasks")
        rows = [json.loads(line) for line in (out / "tasks" / TASK / "test.jsonl").read_text().splitlines()]
        encoder = Encoder.load(embedder / "model", device_of(ctx))
        encoder.model.to(getattr(torch, {"bf16": "bfloat16", "fp32": "float32"}[self.precision]))
        prompt = "Instruct: Retrieve semantically similar text.\nQuery: "
        left, right = (encoder.encode([row[name] for row in rows], prompt) for name in ("sentence1", "sentence2"))
        assert np.isfinite(left).all(), "a vector is no number"
        found = 100 * float(spearmanr((left * right).sum(axis=1), [row["score"] for row in rows]).statistic)
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        ctx.tally.metrics |= {"pairs": len(rows), "device": str(encoder.model.device), "peak_bytes": gpu}
        return Scores(tasks={TASK: found}, types={"STS": found}, mean=found, mean_of_types=found)


def measure(figures: Figures, machine: Machine, place: Path) -> None:
    """Run the experiment and say what each stage did."""
    from speed.runs.building import Origin
    from speed.runs.experiment import run

    precision = "fp32" if machine.tiny else "bf16"  # a CPU takes minutes for the same in bf16
    figures.add(about=f"smoke experiment, topics to embedder and vectors, {precision}, rules behind a local server")
    home = place / "home"
    with rules_server() as (url, asked):
        overrides = [
            "+experiment=smoke", "teacher=openai_compatible", "tracker=none", f"runtime.api_base={url}",
            f"runtime.home={home}", f"runtime.devices={'cpu' if machine.tiny else 'auto'}",
            *(f"{part}.precision={precision}" for part in ("trainer", "engine", "embedder")),
        ]  # fmt: skip
        config = composed(*overrides).model_copy(update={"eval": Vectors(precision=precision)})
        begun = time.perf_counter()
        try:
            run(config, json.dumps(overrides), Origin(preset="miniature", overrides=tuple(overrides)))
        finally:
            built = [*home.glob("store/*/*/manifest.json"), *home.glob("store/*/*/rows-*.json")]
            stages = [summary_of(file) for file in sorted(built, key=lambda file: file.stat().st_mtime)]
            figures.add(seconds_of_run=time.perf_counter() - begun, asked=dict(asked), stages=stages)
            figures.add(
                scores=[json.loads(file.read_text())["tasks"] for file in home.glob("store/evaluation/*/scores.json")]
            )


def summary_of(manifest: Path) -> dict[str, Any]:
    """What a stage's manifest says, in short."""
    found = json.loads(manifest.read_text())
    kept = ("first_loss", "last_loss", "kl_reference", "written_valid_json", "device", "peak_bytes", "engine")
    metrics = {name: found["metrics"][name] for name in kept if name in found["metrics"]}
    counts = {name: count for name, count in found["counts"].items() if name in ("in", "out")}
    return {"stage": found["label"], "seconds": found["seconds"], **counts, **found["rejected"], **metrics}


@contextmanager
def rules_server() -> Iterator[tuple[str, Counter[str]]]:
    """(URL, requests by what became of them) of a server that answers chat completions by the miniature's rules."""
    from speed.miniature.rules import answer_prompt

    asked: Counter[str] = Counter()
    again: Counter[str] = Counter()
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = fields["messages"][-1]["content"]
            with lock:
                place = again[prompt]
                again[prompt] += 1
            try:
                body, code = reply(fields, prompt, answer_prompt(prompt, seed=(0, place))), 200
            except ValueError as error:
                body, code = {"error": {"message": str(error)}}, 400
            with lock:
                asked[str(code)] += 1
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def reply(fields: dict[str, Any], prompt: str, text: str) -> dict[str, Any]:
    """A completion as OpenAI's API gives it; one that is too long is cut."""
    limit = int(fields.get("max_tokens") or fields.get("max_completion_tokens") or 10**6)
    said = -(-len(text) // CHARACTERS_A_TOKEN)
    cut = said > limit
    message = {"role": "assistant", "content": text[: limit * CHARACTERS_A_TOKEN] if cut else text}
    usage = {"prompt_tokens": -(-len(prompt) // CHARACTERS_A_TOKEN), "completion_tokens": min(said, limit)}
    choice = {"index": 0, "finish_reason": "length" if cut else "stop", "message": message}
    return {"object": "chat.completion", "model": fields["model"], "choices": [choice], "usage": usage}
