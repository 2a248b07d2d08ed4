"""A headless Chromium over its debugging pipe: open a page, look, ask, and hear its console."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--hide-scrollbars", "--disable-dev-shm-usage",
)  # fmt: skip
_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def find_chromium() -> str | None:
    """The browser's program, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page; `heard` holds console lines, exceptions and requests as they came."""

    def __init__(self, to: Any, back: Any) -> None:
        self._to, self._back, self._number, self._session = to, back, 0, ""
        self.heard: list[tuple[str, str]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Answer of one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            told = self._read()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]

    def _read(self) -> dict[str, Any]:
        parts = []
        while (byte := self._back.read(1)) != b"\0":
            assert byte, "the browser has ended"
            parts.append(byte)
        told = json.loads(b"".join(parts))
        self._note(told.get("method", ""), told.get("params", {}))
        return dict(told)

    def _note(self, method: str, values: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.heard.append(("console", json.dumps(values["args"])))
        elif method == "Runtime.exceptionThrown":
            self.heard.append(("exception", json.dumps(values["exceptionDetails"])))
        elif method == "Log.entryAdded":
            self.heard.append(("log", values["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            self.heard.append(("request", values["request"]["url"][:200]))

    def open(self, path: Path, width: int, height: int, *, mobile: bool = False) -> None:
        """Load a file at a size of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def ask(self, script: str) -> Any:
        """Value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + seconds
        while not self.ask(script):
            assert time.monotonic() < end, f"never came: {script}"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Type keys into what has the focus."""
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def shot(self, path: Path, *, whole: bool = False) -> bytes:
        """A picture of the window, or of the whole page."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        data = base64.b64decode(taken["data"])
        path.write_bytes(data)
        return data


@contextmanager
def chromium(*, webgl: bool = True) -> Iterator[Page]:
    """A browser with an empty profile."""
    program = find_chromium()
    assert program is not None
    here, there = os.pipe(), os.pipe()
    flags = _GL if webgl else ("--disable-gpu", "--disable-3d-apis")
    with tempfile.TemporaryDirectory(prefix="vlwm-chromium-") as profile:

        def connect() -> None:
            os.dup2(here[0], 103)
            os.dup2(there[1], 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        process = subprocess.Popen(
            [program, *_FLAGS, *flags, f"--user-data-dir={profile}/profile"],
            preexec_fn=connect, close_fds=False, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(here[0])
        os.close(there[1])
        try:
            with os.fdopen(here[1], "wb") as to, os.fdopen(there[0], "rb", 1 << 16) as back:
                yield Page(to, back)
        finally:
            process.terminate()
            process.wait(20)
            time.sleep(0.3)  # its children write into the profile until they have ended
