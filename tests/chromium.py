"""A headless chromium, where the machine has one, driven through its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

FOUND = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-port=0", "--hide-scrollbars",
)  # fmt: skip
PATIENCE = 120.0
"""Seconds until a browser that does not answer is given up."""


class Tab:
    """A page, and whatever it logged or asked the network for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session = ""
        self._number = 0
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def send(self, method: str, **parameters: Any) -> Any:
        """The answer to a command; what the page does meanwhile is noted."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters, **session})
        while True:
            message = json.loads((await self._socket.receive(PATIENCE)).data)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, event: str, about: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about["exceptionDetails"])[:2000])
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled":
            self.errors.append(json.dumps(about["args"])[:2000])
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    async def attach(self) -> None:
        """A tab of its own."""
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def open(self, address: str) -> None:
        """Go to an address and wait until it is there."""
        await self.send("Page.navigate", url=address)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait for a condition of the page."""
        for _ in range(round(PATIENCE * 20)):
            if await self.run(condition):
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(condition)

    async def screen(self, width: int, height: int, dark: bool = False) -> None:
        """Show the page on a screen of this size, by light or by night."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, file: Path, whole: bool = False) -> None:
        """What the screen shows, or the whole page, as PNG."""
        found = await self.send("Page.captureScreenshot", captureBeyondViewport=whole, **await self._clip(whole))
        file.write_bytes(base64.b64decode(found["data"]))

    async def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


@asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """A tab of a new browser, which ends with it."""
    assert FOUND
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            FOUND, *OPTIONS, f"--user-data-dir={folder}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = Path(folder) / "DevToolsActivePort"
            for _ in range(round(PATIENCE * 20)):
                if port.is_file() and len(port.read_text().splitlines()) > 1:
                    break
                await asyncio.sleep(0.05)
            number, path = port.read_text().splitlines()[:2]
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"ws://127.0.0.1:{number}{path}", max_msg_size=0) as socket,
            ):
                made = Tab(socket)
                await made.attach()
                yield made
        finally:
            process.terminate()
            await process.wait()


def in_a_tab(act: Callable[[Tab], Awaitable[Any]]) -> Any:
    """What comes of an act; it fails where the page logged anything or asked for anything but itself."""

    async def whole() -> Any:
        async with tab() as made:
            found = await act(made)
            assert made.errors == []
            outside = [each for each in made.requests if not each.startswith(("file:", "data:", "about:", "blob:"))]
            assert outside == []
            return found

    return asyncio.run(whole())
