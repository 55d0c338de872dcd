"""A small OpenAI-compatible server around one model of transformers, with answers by schema; for experiments only.

    python experiments/local_server.py FOLDER --port 8123

One request at a time. An answer by schema (`response_format`) is written key by key: the server writes braces and keys,
the model the strings between them, and of an enumeration what it finds likeliest. Other answers are free text.
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LONGEST = 160
"""Tokens of one string of an answer by schema, at most."""
ITEMS = 5
"""Of a list in an answer by schema."""


class Writer:
    """A model and its tokenizer, for one text at a time."""

    def __init__(self, folder: Path, longest: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.lock, self.longest = threading.Lock(), longest

    def answer(self, messages: list[dict[str, str]], schema: Any, temperature: float, tokens: int) -> tuple[str, int]:
        """A text and the number of tokens that the model wrote of it."""
        with self.lock, self.torch.no_grad():
            if self.tokenizer.chat_template:
                prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            else:
                prompt = "\n\n".join(message["content"] for message in messages) + "\n\n"
            text = _Text(self, prompt, temperature, tokens)
            return (text.by_schema(schema) if schema else text.free()), text.written


class _Text:
    """One text as it is written, with the model's state behind it."""

    def __init__(self, writer: Writer, prompt: str, temperature: float, tokens: int) -> None:
        self.writer, self.temperature, self.left, self.written = writer, temperature, tokens, 0
        self.cache: Any = None
        self.logits: Any = None
        self.chosen: list[int] = []
        """Of enumerations: what is the best of a list is not the worst."""
        self.read(prompt)

    def read(self, text: str) -> None:
        """Take text into the state."""
        ids = self.writer.tokenizer(text, add_special_tokens=self.cache is None)["input_ids"]
        self._forward(ids)

    def _forward(self, ids: list[int]) -> None:
        given = self.writer.torch.tensor([ids])
        out = self.writer.model(input_ids=given, past_key_values=self.cache, use_cache=True)
        self.cache, self.logits = out.past_key_values, out.logits[0, -1].float()

    def token(self) -> int:
        """Draw the next token and take it into the state."""
        self.written, self.left = self.written + 1, self.left - 1
        if self.temperature > 0:
            drawn = int(self.writer.torch.multinomial((self.logits / self.temperature).softmax(-1), 1))
        else:
            drawn = int(self.logits.argmax())
        self._forward([drawn])
        return drawn

    def free(self) -> str:
        """Text until the model ends it."""
        ids: list[int] = []
        while self.left > 0 and (token := self.token()) != self.writer.tokenizer.eos_token_id:
            ids.append(token)
        return str(self.writer.tokenizer.decode(ids, skip_special_tokens=True))

    def by_schema(self, schema: Any) -> str:
        """JSON of a schema: objects, lists of strings, strings, and enumerations of numbers."""
        if "enum" in schema:
            choices = [str(choice) for choice in schema["enum"] if choice not in self.chosen]
            first = [self.writer.tokenizer(choice, add_special_tokens=False)["input_ids"][0] for choice in choices]
            place = int(self.logits[first].argmax())
            self.chosen.append(int(choices[place]))
            self.read(choices[place])
            return choices[place]
        if schema["type"] == "string":
            self.read('"')
            return json.dumps(self._string())
        if schema["type"] == "array":
            return self._joined("[", [("", schema["items"])] * ITEMS, "]")
        return self._joined("{", [(f'"{name}": ', inner) for name, inner in schema["properties"].items()], "}")

    def _joined(self, begin: str, parts: list[tuple[str, Any]], end: str) -> str:
        whole = begin
        for number, (name, inner) in enumerate(parts):
            between = f"{', ' if number else begin}{name}"
            self.read(between)
            whole += between.removeprefix(begin) if not number else between
            whole += self.by_schema(inner)
        self.read(end)
        return whole + end

    def _string(self) -> str:
        """What stands before the next quote."""
        ids: list[int] = []
        decode = self.writer.tokenizer.decode
        for _ in range(max(1, min(self.writer.longest, self.left))):
            token = self.token()
            if token == self.writer.tokenizer.eos_token_id or '"' in decode([token]):
                break
            ids.append(token)
        return str(decode(ids, skip_special_tokens=True)).strip().replace("\\", "") or "..."


def served(folder: Path, port: int = 0, longest: int = LONGEST) -> ThreadingHTTPServer:
    """A server on a thread of its own; port 0 takes a free one."""
    writer = Writer(folder, longest)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            form = asked.get("response_format") or {}
            schema = form.get("json_schema", {}).get("schema") if form.get("type") == "json_schema" else None
            text, written = writer.answer(
                asked["messages"], schema, float(asked.get("temperature", 1.0)), int(asked.get("max_tokens", 512))
            )
            read = sum(len(message["content"]) for message in asked["messages"]) // 4
            body = {
                "id": f"local-{id(text)}-{written}",
                "object": "chat.completion",
                "created": 0,
                "model": folder.name,
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}},
                ],
                "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
            }
            sent = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Say nothing of each request."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """Read the command line and serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8123)
    given = parser.parse_args()
    server = served(given.folder, given.port)
    print(f"serving {given.folder.name} at http://127.0.0.1:{server.server_port}/v1", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
