"""Run a teacher again and again, each time killed with SIGKILL somewhere, and once to the end.

    python killable_program.py URL HOME ROWS KILLS CONCURRENCY    prints {"killed": ..., "texts": [...], "damaged": ...}

A child counts its answers into a pipe; its parent kills it behind a drawn number of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

from speed.core.store import Store
from speed.ports import Ask
from speed.runtime import Context, Runtime
from speed.teaching.openai_teacher import OpenAICompatibleTeacher
from speed.teaching.session import session_at


def run(url: str, home: Path, rows: int, concurrency: int, pipe: int | None) -> list[str]:
    asks = (Ask(prompt=f"row {row}", temperature=1.0, max_tokens=9, purpose="seed") for row in range(rows))
    ctx = Context(Store(home).open(), Runtime(home=home, api_base=url, concurrency=concurrency))
    texts = []
    for answer in OpenAICompatibleTeacher(model="m").ask(((ask, lambda _: None) for ask in asks), ctx):
        texts.append(answer.text)
        if pipe is not None:
            os.write(pipe, b".")
    return texts


def main(url: str, home: Path, rows: int, kills: int, concurrency: int) -> None:
    draw, killed = random.Random(1), 0
    for attempt in range(kills):
        behind = draw.randrange(attempt * rows // (kills + 1), (attempt + 1) * rows // (kills + 1))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            run(url, home, rows, concurrency, write)
            os._exit(0)
        os.close(write)
        seen = 0
        while seen <= behind and (dots := os.read(read, 1)):
            seen += len(dots)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        os.close(read)
    texts = run(url, home, rows, concurrency, None)
    print(json.dumps({"killed": killed, "texts": texts, "damaged": session_at(home).journal.damaged}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
