"""An OpenAI-compatible embeddings server on the loopback, whose faults a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


def meaning(text: str, width: int = 4) -> list[float]:
    return [float(len(text)), float(text.count("a")), 1.0, 0.5, *([0.0] * width)][:width]


class Server:
    """Answers `/v1/embeddings`; `fault` may answer a request instead."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.fault: Callable[[int, list[str]], Answer | None] = lambda number, texts: None
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.requests.append({**body, "path": self.path})
                    outer.headers.append(dict(self.headers))
                    number = len(outer.requests)
                status, fields = outer.fault(number, body["input"]) or outer.answer(body)
                said = json.dumps(fields).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, body: dict[str, Any]) -> Answer:
        width = body.get("dimensions", 4)
        rows = [{"index": i, "embedding": meaning(text, width)} for i, text in enumerate(body["input"])]
        tokens = sum(len(text) for text in body["input"])
        return 200, {"data": rows[::-1], "usage": {"prompt_tokens": tokens}}

    @property
    def asked(self) -> list[str]:
        """Texts that were sent, the probe aside."""
        return [text for request in self.requests[1:] for text in request["input"]]

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
