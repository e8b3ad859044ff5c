"""A headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol).

It needs no driver, no port and no packages:

with Browser() as browser:
    browser.open("file:///x.html", width=360)
    browser.run("document.title")
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any

PROGRAM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
PATIENCE = 60.0  # seconds for one answer: starting takes two on an idle machine
HIGH_DESCRIPTOR = 20  # from here on our ends are, so that 3 and 4 are free for the browser's


class Browser:
    """One page of one browser. `events`: what it has told unasked, by method."""

    def __enter__(self) -> Browser:
        self.profile = tempfile.mkdtemp(prefix="da-browser-")
        their_in, self._to = self._pipe()
        self._from, their_out = self._pipe()
        command = [
            "bash",
            "-c",
            f'exec "$@" 3<&{their_in} 4>&{their_out} {their_in}<&- {their_out}>&-',
            "browser",
            str(PROGRAM),
            *FLAGS,
            f"--user-data-dir={self.profile}",
            "about:blank",
        ]
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command,
            stdin=null,
            stdout=null,
            stderr=null,
            pass_fds=(their_in, their_out),
            start_new_session=True,
        )
        os.close(their_in)
        os.close(their_out)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)  # the end of its pipe is its end
        try:
            self._process.wait(PATIENCE)
        finally:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            os.close(self._from)
            shutil.rmtree(self.profile, ignore_errors=True)

    @staticmethod
    def _pipe() -> tuple[int, int]:
        ends = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR) for end in ends]
        for end in ends:
            os.close(end)
        return high[0], high[1]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser has been silent for {PATIENCE:.0f} s"
            block = os.read(self._from, 1 << 20)
            assert block, f"the browser has ended: {self._process.poll()}"
            self._buffer += block
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = dict(json.loads(text))
        if "method" in message:
            self.events.append(message)
        return message

    def told(self, method: str) -> list[dict[str, Any]]:
        """What the page has told of one kind since it was opened."""
        return [event["params"] for event in self.events if event["method"] == method]

    def open(
        self, url: str, width: int, height: int = 800, dark: bool = False, media: str = "screen"
    ) -> None:
        """Load a page at a width, and wait until it has been."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.events.clear()
        loader = self.call("Page.navigate", url=url)["loaderId"]
        while not self._loaded(loader):
            self._receive()

    def _loaded(self, loader: str) -> bool:
        """Whether this page, and not the one before it, has been loaded."""
        told = [
            event["params"]["frame"]["loaderId"]
            if event["method"] == "Page.frameNavigated"
            else event["method"]
            for event in self.events
        ]
        return loader in told and "Page.loadEventFired" in told[told.index(loader) :]

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: str) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": 0,
            "width": size["width"],
            "height": min(size["height"], 6000),
            "scale": 1,
        }
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
