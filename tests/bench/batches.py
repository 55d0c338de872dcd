"""What it costs us to have answers come in batches: time and memory, beside a server that answers at once.

    python tests/bench/batches.py [--quick]

The server is a folder: an upload is a copy, and a batch has ended when it is looked at. `cpu_ms_per_answer` is the CPU
time of an answer, from its prompt to its line in the journal and back, with the server's own part. `ram_kb_per_request`
is what each of the requests takes at most that are read before the first is answered, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from synthetic import in_fresh_process, measured
from teacher import TEXT, requests

from speed.core.store import Store
from speed.runtime import Context, Runtime
from speed.teaching.batch_server import BatchServer, Told
from speed.teaching.openai_batch import OpenAIBatchTeacher

USAGE = {"prompt_tokens": 400, "completion_tokens": 500, "total_tokens": 900}
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}


class Folder(BatchServer):
    """A server that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def upload(self, requests: Path) -> str:
        name = str(len(list(self.folder.iterdir())))
        shutil.copy(requests, self.folder / name)
        return name

    def create(self, file: str, tag: str, window: str) -> Told:
        answers = self.folder / f"answers-{file}"
        body = {"model": "bench", "choices": [CHOICE], "usage": USAGE}
        with (self.folder / file).open() as asked, answers.open("w") as written:
            for line in asked:
                said = {"custom_id": json.loads(line)["custom_id"], "response": {"status_code": 200, "body": body}}
                written.write(json.dumps(said) + "\n")
        return self.batch(file)

    def batch(self, server_id: str) -> Told:
        return Told(server_id, "completed", server_id, "", f"answers-{server_id}", "", 0, 0, "", "")

    def download(self, file: str, to: Path) -> None:
        shutil.copy(self.folder / file, to)


class BenchTeacher(OpenAIBatchTeacher):
    """Asks a folder."""

    def server(self, runtime: Runtime) -> BatchServer:
        return Folder(runtime.home / "server")

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        return 0.0


def asked(rows: int, home: Path) -> float:
    """CPU seconds of so many answers."""
    runtime = Runtime(home=home, api_base="http://127.0.0.1:1/v1")
    teacher = BenchTeacher(model="bench")
    ctx = Context(Store(home).open(), runtime)
    begun = time.process_time()
    assert sum(answer.cause == "ok" for answer in teacher.ask(requests(rows), ctx)) == rows
    return time.process_time() - begun


def memory(rows: int, home: Path) -> float:
    """KB of each of so many requests, all of which are read at once, in this process."""
    asked(1, home / "warm")
    begun = Path("/proc/self/status").read_text()
    _, peak = measured(lambda: asked(rows, home / "cold"))
    return (1024 * peak - int(begun.partition("VmRSS:")[2].split()[0])) / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"ram_kb_per_request": memory(int(options.child[0]), Path(options.child[1]))}))
        return
    rows = 5_000 if options.quick else 50_000
    with tempfile.TemporaryDirectory() as folder:
        figures = {"cpu_ms_per_answer": 1e3 * asked(rows, Path(folder) / "time") / rows}
    with tempfile.TemporaryDirectory() as folder:
        figures |= in_fresh_process(__file__, rows, folder)
    print(
        f"{rows} requests: {figures['cpu_ms_per_answer']:.3f} ms CPU an answer, "
        f"{figures['ram_kb_per_request']:.2f} KB a request"
    )
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
