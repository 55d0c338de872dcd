"""As much of the Hugging Face hub as sending a folder needs, on the loopback."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """Keeps repositories and their files in memory."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, Any]] = {}
        """What each was created with, by kind and name."""
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        """Every request."""
        self.full = False
        """Whether commits fail, as on a hub that is down."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hub.asked.append(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                right = self.headers.get("Authorization") == f"Bearer {hub.token}"
                status, answer = hub.answer(self.path, body) if right else (401, {"error": "Invalid credentials"})
                told = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *how: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def private(self, name: str) -> bool:
        """How a repository was created, in the words of either version of the hub's library."""
        asked = self.repositories[name]
        return asked.get("visibility") == "private" or asked.get("private") is True

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/validate-yaml":
            return 200, {"warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "me"
            kind = asked.get("type") or "model"
            name = f"{kind}s/{owner}/{asked['name']}"
            known = name in self.repositories
            self.repositories.setdefault(name, asked)
            return (409 if known else 200), {"url": f"{self.url}/{owner}/{asked['name']}"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]
            return 200, {"files": modes}
        if "/commit/" in path:
            if self.full:
                return 507, {"error": "no space is left for you"}
            kept = self.files.setdefault("/".join(path.split("/")[2:5]), {})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    kept[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            kind, *name = path.split("/")[2:5]
            where = "/".join([self.url, *(["datasets"] if kind == "datasets" else []), *name])
            return 200, {"commitUrl": f"{where}/commit/{'1' * 40}", "commitOid": "1" * 40, "success": True}
        return 404, {"error": f"no {path}"}
