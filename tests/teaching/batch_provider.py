"""A provider of batches with every fault that one can have: `/files` and `/batches` on the loopback.

What becomes of a request stands in its prompt, as for `provider.Provider`: `row 7 | 500 late ok` fails in the first
batch that has it, is not reached in time in the second and is answered in the third. `gone` stands in no file of
results.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web
from provider import USAGE, Provider, Request, Response, _leak, _reset

FINISH = {"length": "length", "filter": "content_filter"}


class BatchProvider(Provider):
    """Batches end when they are looked at and it is not `busy`."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, list[dict[str, Any]]] = {}
        """Of each batch."""
        self.end: Callable[[dict[str, Any]], str] = lambda batch: "completed"
        """How a batch ends."""
        self.busy = False
        self.status = "in_progress"
        """Of batches while it is busy."""
        self.on: Callable[[str], None] = lambda what: None
        """Called when something is done (uploaded, created, looked, listed, fetched), before that is answered."""
        self.fault: Callable[[str], str] = lambda what: ""
        """`reset`: it is done, and the connection breaks before the answer; a number: that HTTP status, undone."""
        self.most_requests = 10**9
        """Of all batches that have not ended; more are refused as too many tokens."""
        self.garbles: Callable[[bytes], bytes] = lambda body: body
        """What becomes of a file of results on its way."""
        self.looks: Counter[str] = Counter()

    def add_roads(self, app: web.Application) -> None:
        super().add_roads(app)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._look)

    @property
    def sent(self) -> Counter[str]:
        """Prompts of all batches that were begun."""
        return Counter(prompt_of(each) for some in self.requests.values() for each in some)

    async def _told(self, request: Request, what: str, do: Callable[[], Any]) -> Response:
        self.headers.append(dict(request.headers))
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return await _leak(request, 401)
        fault = self.fault(what)
        if fault.isdigit():
            return await _leak(request, int(fault))
        done = do()
        self.on(what)
        if fault == "reset":
            return await _reset(request)
        return web.Response(body=done) if isinstance(done, bytes) else web.json_response(done)

    async def _upload(self, request: Request) -> Response:
        fields = await request.post()
        assert fields["purpose"] == "batch"
        content = fields["file"].file.read()  # type: ignore[union-attr]
        about = {"object": "file", "bytes": len(content), "created_at": 1, "filename": "f.jsonl", "purpose": "batch"}
        return await self._told(
            request, "uploaded", lambda: {"id": self._file(content), **about, "status": "processed"}
        )

    def _file(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    async def _content(self, request: Request) -> Response:
        content = self.files[request.match_info["id"]]
        return await self._told(request, "fetched", lambda: self.garbles(content))

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        return await self._told(request, "created", lambda: self._begun(body))

    def _begun(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"batch-{len(self.batches)}"
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        self.requests[name] = lines
        batch = {"id": name, "object": "batch", "status": self.status, **body, "created_at": 1, "errors": None}
        batch["request_counts"] = {"total": len(lines), "completed": 0, "failed": 0}
        self.batches[name] = batch
        waiting = sum(len(self.requests[each["id"]]) for each in self.batches.values() if not each.get("ended"))
        if waiting > self.most_requests:
            self._refuse(batch, "token_limit_exceeded", "Enqueued token limit reached")
        elif len({line["custom_id"] for line in lines}) < len(lines):
            self._refuse(batch, "duplicate_custom_id", "an id is there twice")
        return dict(batch)

    def _refuse(self, batch: dict[str, Any], code: str, message: str) -> None:
        errors = {"object": "list", "data": [{"code": code, "message": message, "line": None, "param": None}]}
        batch.update(status="failed", errors=errors, ended=True)
        self.requests[batch["id"]] = []

    async def _list(self, request: Request) -> Response:
        names = sorted(self.batches, key=lambda name: int(name.partition("-")[2]), reverse=True)
        after = request.query.get("after")
        begin = names.index(after) + 1 if after else 0
        page = names[begin : begin + 2]  # small pages, whatever is asked for
        more = begin + 2 < len(names)
        listed = {"object": "list", "data": [self.batches[name] for name in page], "has_more": more}
        return await self._told(request, "listed", lambda: listed)

    async def _look(self, request: Request) -> Response:
        batch = self.batches[request.match_info["id"]]
        self.looks[batch["id"]] += 1
        if not self.busy and not batch.get("ended"):
            self._finish(batch)
        return await self._told(request, "looked", lambda: dict(batch))

    def _finish(self, batch: dict[str, Any]) -> None:
        status = self.end(batch)
        if status == "failed":
            return self._refuse(batch, "invalid_json_line", "a line is no JSON")
        answers, failures = [], []
        for line in self.requests[batch["id"]]:
            answer = self._line(line)
            if answer is not None:
                whole = answer["response"] is not None and answer["response"]["status_code"] == 200
                (answers if whole else failures).append(json.dumps(answer))
        draw = random.Random(batch["id"])
        for lines, field in ((answers, "output_file_id"), (failures, "error_file_id")):
            draw.shuffle(lines)
            batch[field] = self._file("\n".join(lines).encode() + b"\n") if lines else None
        counts = {"completed": len(answers), "failed": len(failures)}
        batch.update(status=status, ended=True, request_counts={**batch["request_counts"], **counts})
        return None

    def _line(self, line: dict[str, Any]) -> dict[str, Any] | None:
        """A line of the results; None for a request that stands in none."""
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        prompt = prompt_of(line)
        steps = self.steps(prompt).split() or ["ok"]
        step, _, detail = steps[min(self.arrivals[prompt], len(steps) - 1)].partition(":")
        self.arrivals[prompt] += 1
        self.bodies.append(line["body"])
        said: dict[str, Any] = {"id": "x", "custom_id": line["custom_id"], "response": None, "error": None}
        if step == "gone":
            return None
        if step == "late":
            return {**said, "error": {"code": "batch_expired", "message": "it came too late"}}
        refused = self.refuses(line["body"])
        if refused or step.isdigit():
            error = {"error": {"message": refused or "told off", "code": None}}
            return {**said, "response": {"status_code": 400 if refused else int(step), "body": error}}
        self.paid[prompt] += 1
        text = f"{detail or 'good'} answer {self.paid[prompt]} to {prompt}"
        text = self.answer(prompt) if self.answer is not None else text
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "finish_reason": FINISH.get(step, "stop"), "message": message}
        body = {"id": "x", "object": "chat.completion", "model": "served", "choices": [choice], "usage": USAGE}
        return {**said, "response": {"status_code": 200, "request_id": "x", "body": body}}


def prompt_of(line: dict[str, Any]) -> str:
    return str(line["body"]["messages"][-1]["content"])
