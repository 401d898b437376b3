"""A real browser for tests: headless Chromium, driven by the DevTools protocol over a pipe.

    with Browser.start(tmp_path) as browser:
        page = browser.open("http://127.0.0.1:8000/?q=lamp", width=390, is_dark=True)
        page.wait_for("document.querySelectorAll('.card').length")
        assert page.errors == []

Source: https://chromedevtools.github.io/devtools-protocol/ (domains Target, Page, Runtime, Network, Emulation, Input).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LOWEST_OWN_FD = 20
"""The pipe's ends get numbers from here on, out of the way of 3 and 4, where Chromium expects them."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)
KEYS = {"Enter": "\r", "/": "/"}
"""Keys that type something; all others are known by their name alone."""


class BrowserError(Exception):
    """The browser, or a script in the page, did not do what it was asked."""


@dataclass
class Page:
    """One tab, and what has happened in it so far."""

    browser: Browser
    session_id: str
    requests: list[str] = field(default_factory=list)
    """Every address asked for, in order; `data:` and `blob:` too."""
    errors: list[str] = field(default_factory=list)
    """Uncaught exceptions and what the policy of the page refused."""
    dialogs: list[str] = field(default_factory=list)
    """Texts of alert, confirm and prompt; each is closed at once."""

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        return self.browser.send(method, params, self.session_id)

    def navigate(self, url: str) -> None:
        """Open an address and wait until the page and its scripts are there."""
        # Until the new document is there, the script would answer from the one before.
        self.evaluate("window.isBefore = true")
        self.send("Page.navigate", url=url)
        self.wait_for("!window.isBefore && document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, waited for where it is a promise.

        Raises:
            BrowserError: the script failed.
        """
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait_for(self, script: str, *, timeout_s: float = 20) -> None:
        """Wait until an expression is true, or any object.

        Raises:
            BrowserError: it was not in time; the message holds the page's text.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.evaluate(f"Boolean({script})"):
                return
            self.browser.listen(0.03)
        text = self.evaluate("document.body?.innerText")
        raise BrowserError(f"waited {timeout_s} s for {script}\nerrors: {self.errors}\npage: {text}")

    def click(self, selector: str) -> None:
        """Click the first element that a selector matches."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press and release a key: Enter, Escape, ArrowDown, or a character."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9}.get(key, 0)
        common: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": KEYS[key]} if key in KEYS else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def drop_file(self, content: bytes, *, name: str, media_type: str) -> None:
        """Drop a file onto the page."""
        encoded = base64.b64encode(content).decode()
        self.evaluate(
            f"""{{
                const bytes = Uint8Array.from(atob("{encoded}"), (letter) => letter.charCodeAt(0));
                const held = new DataTransfer();
                held.items.add(new File([bytes], {json.dumps(name)}, {{ type: {json.dumps(media_type)} }}));
                const how = {{ dataTransfer: held, bubbles: true, cancelable: true }};
                for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, how));
            }}"""
        )

    def screenshot(self, file: Path) -> None:
        """Write a PNG of what is to be seen."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def happened(self, method: str, params: dict[str, Any]) -> None:
        """Remember an event of this tab."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["source"] in ("security", "violation", "javascript"):
            self.errors.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])
            self.browser.post("Page.handleJavaScriptDialog", {"accept": True}, self.session_id)


class Browser:
    """A running Chromium; its profile is a folder of its own."""

    def __init__(self, process: subprocess.Popen[bytes], to_fd: int, from_fd: int) -> None:
        self._process, self._to_fd, self._from_fd = process, to_fd, from_fd
        self._pages: dict[str, Page] = {}
        self._unread = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._last_id = 0

    @classmethod
    def start(cls, profile: Path, program: str = "chromium") -> Self:
        """Start it; `profile` is an empty folder."""
        commands, answers = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST_OWN_FD) for fd in (*commands, *answers)]
        for fd in (*commands, *answers):
            os.close(fd)
        command_read, command_write, answer_read, answer_write = ends
        shell = f'exec "$@" 3<&{command_read} 4>&{answer_write}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(command_read, answer_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(command_read)
        os.close(answer_write)
        return cls(process, command_write, answer_read)

    def open(self, url: str, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> Page:
        """Open a new tab of its own storage at an address."""
        context = self.send("Target.createBrowserContext", {"disposeOnDetach": True})["browserContextId"]
        target = self.send("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session_id = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session_id] = Page(self, session_id)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        page.send("Emulation.setFocusEmulationEnabled", enabled=True)
        page.navigate(url)
        return page

    def send(self, method: str, params: dict[str, Any], session_id: str | None = None) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            BrowserError: the browser refused it, or has ended.
        """
        number = self.post(method, params, session_id)
        end = time.monotonic() + 60
        while number not in self._answers:
            if time.monotonic() > end:
                raise BrowserError(f"{method}: no answer in 60 s")
            self.listen(1)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def post(self, method: str, params: dict[str, Any], session_id: str | None = None) -> int:
        """Send a command and return its number."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params, "sessionId": session_id}
        text = json.dumps({key: value for key, value in message.items() if value is not None})
        unsent = text.encode() + b"\0"
        while unsent:
            unsent = unsent[os.write(self._to_fd, unsent) :]
        return self._last_id

    def listen(self, timeout_s: float) -> None:
        """Take in what the browser says, waiting so long for a first word."""
        if not select.select([self._from_fd], [], [], timeout_s)[0]:
            return
        read = os.read(self._from_fd, 1 << 20)
        if not read:
            raise BrowserError(f"the browser ended with {self._process.poll()}")
        *messages, self._unread = (self._unread + read).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            elif page := self._pages.get(message.get("sessionId", "")):
                page.happened(message["method"], message["params"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the browser and what it started."""
        os.close(self._to_fd)
        os.close(self._from_fd)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
