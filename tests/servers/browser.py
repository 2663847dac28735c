"""Chromium without a window, driven by its own protocol (https://chromedevtools.github.io/devtools-protocol)."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE = "2400,1400"
WAIT_SECONDS = 240.0
"""For what is to appear, on a busy machine."""


class Page:
    """One tab, as a user sees it; `until` waits for what appears, as pages are made by requests."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session, self._socket = session, socket
        self._loop = asyncio.get_event_loop_policy().get_event_loop()
        self._numbers = count(1)

    @classmethod
    async def connect(cls, port: int) -> Self:
        """A new tab."""
        session = aiohttp.ClientSession()
        async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
            address = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        return cls(session, await session.ws_connect(address, max_msg_size=0))

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        return self._loop.run_until_complete(self._send(method, params))

    async def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, address: str) -> None:
        """Go to an address, from scratch: a page of one file would only be told of another fragment.

        A server that is about to start is waited for.
        """
        self.send("Page.navigate", url="about:blank")
        deadline = time.monotonic() + WAIT_SECONDS
        while reason := self.send("Page.navigate", url=address).get("errorText"):
            assert time.monotonic() < deadline, f"{address}: {reason}"
            time.sleep(0.2)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true; returns its value."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := self.ask(expression)):
            assert time.monotonic() < deadline, f"{expression}: {self.text()[:3000]}"
            time.sleep(0.2)
        return value

    def text(self) -> str:
        """All that can be read on the page."""
        return self.ask("document.body ? document.body.innerText : ''")

    def shows(self, *texts: str) -> None:
        """Wait until all texts can be read."""
        self.until(f"{json.dumps(texts)}.every(text => document.body?.innerText.includes(text))")

    def click(self, selector: str, text: str = "") -> None:
        """Click on the first element of a CSS selector that has a text."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        found += f".find(element => element.innerText?.includes({json.dumps(text)}))"
        self.until(f"(window.wanted = {found}) && (wanted.scrollIntoView({{block: 'center'}}), true)")
        x, y, width, height = self.ask("(r => [r.x, r.y, r.width, r.height])(wanted.getBoundingClientRect())")
        place = {"x": x + width / 2, "y": y + height / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **place)

    def press(self, key: str, code: int) -> None:
        """Press and release a key, such as ArrowRight (39)."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, file: Path) -> None:
        """What is seen now."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the connection."""
        self._loop.run_until_complete(self._socket.close())
        self._loop.run_until_complete(self._session.close())


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A browser with one tab; its profile is in the folder."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [
        f"--user-data-dir={folder}",
        f"--window-size={SIZE}",
        "--disable-dev-shm-usage",
        "about:blank",
    ]
    browser = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        note = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 120
        while not (note.exists() and "\n" in note.read_text()):
            assert browser.poll() is None, "Chromium has ended"
            assert time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.1)
        page = loop.run_until_complete(Page.connect(int(note.read_text().split()[0])))
        yield page
        page.close()
    finally:
        browser.terminate()
        browser.wait()
        asyncio.set_event_loop(None)
        loop.close()
