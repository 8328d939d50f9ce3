"""A headless Chromium that opens pages, asked over its DevTools pipe; only the browser itself has to be installed.

with Browser(tmp_path / "profile") as browser:
    visit = browser.open(page, width=390, height=844, dark=True)
    assert visit.requests == [page.as_uri()]
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    *(("--no-sandbox",) if os.geteuid() == 0 else ()),  # the sandbox refuses to run as root
)
PATIENCE = 60  # seconds until an answer that does not come fails the test
KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27}
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
# Texts whose contrast with their background is below the 4.5 of WCAG 2.2, level AA. A canvas turns any color into bytes.
FAINT = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const bytes = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = color => {
    const [red, green, blue] = [...bytes(color)].map(byte => byte / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = element => {
    while (element && bytes(getComputedStyle(element).backgroundColor)[3] === 0) element = element.parentElement;
    return getComputedStyle(element ?? document.body).backgroundColor;
  };
  return [...document.body.querySelectorAll("*")]
    .filter(each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(each => each.checkVisibility() && !each.closest("svg"))
    .filter(each => {
      const [low, high] = [getComputedStyle(each).color, behind(each)].map(luminance).sort((one, two) => one - two);
      return (high + 0.05) / (low + 0.05) < 4.5;
    })
    .map(each => each.outerHTML.slice(0, 100));
})()
"""


@dataclass
class Visit:
    """A page that is open: what it asked for and complained about while it was loaded."""

    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loaded: bool = False

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, or what the promise that it is comes to."""
        settings = {"returnByValue": True, "awaitPromise": True}
        answer = self.browser.ask("Runtime.evaluate", self.session, expression=expression, **settings)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return when a JavaScript condition holds."""
        self.evaluate(
            f"new Promise(done => {{ const look = () => {condition} ? done() : setTimeout(look, 10); look(); }})"
        )

    def press(self, key: str, *, control: bool = False, shift: bool = False) -> None:
        """Press a key and let it go, as a person would: what has the focus receives it."""
        modifiers = 2 * control + 8 * shift
        event = {"key": key, "code": key, "windowsVirtualKeyCode": KEY_CODES[key], "modifiers": modifiers}
        text = {"text": "\r"} if key == "Enter" else {}  # without it, Enter in a field submits nothing
        self.browser.ask("Input.dispatchKeyEvent", self.session, type="keyDown", **event, **text)
        self.browser.ask("Input.dispatchKeyEvent", self.session, type="keyUp", **event)

    def take_picture(self) -> bytes:
        """What is visible, as PNG."""
        return base64.b64decode(self.browser.ask("Page.captureScreenshot", self.session, format="png")["data"])

    def note(self, event: dict[str, Any]) -> None:
        """Keep what an event of the page says about requests and errors."""
        parameters = event["params"]
        match event["method"]:
            case "Page.loadEventFired":
                self.loaded = bool(self.requests)  # else it is the empty page's
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(parameters["exceptionDetails"]["text"])
            case "Runtime.consoleAPICalled":
                self.errors.append(f"{parameters['type']}: {parameters['args']}")
            case "Log.entryAdded":
                self.errors.append(parameters["entry"]["text"])


class Browser:
    """A running Chromium with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM, "no Chromium on this machine"
        child_input, self._commands = os.pipe()
        self._events, child_output = os.pipe()
        redirection = f'exec "$@" 3<&{child_input} 4>&{child_output}'  # where the browser reads and writes
        self._process = subprocess.Popen(
            ["bash", "-c", redirection, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(child_input, child_output),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_input)
        os.close(child_output)
        self._rest, self._number = b"", 0
        self._visit: Visit | None = None

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._commands)  # which is how the browser learns that nobody needs it any longer
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._events)

    def open(self, page: Path | str, *, width: int, height: int, dark: bool = False, scale: float = 1) -> Visit:
        """Open a file or a URL in a window of this size, and wait until it is loaded; the page opened before it is closed."""
        if self._visit:
            self.ask("Page.close", self._visit.session)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._visit = Visit(self, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable", session)
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", session, features=[scheme])
        self.ask("Page.navigate", session, url=page if isinstance(page, str) else page.as_uri())
        while not self._visit.loaded:
            self._next()
        return self._visit

    def ask(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        """The next message; an event of the open page is noted."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._events], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._events, 2**16) if ready else b""
            assert data, f"no answer from the browser within {PATIENCE} seconds, or it has ended"
            self._rest += data
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        if self._visit and message.get("sessionId") == self._visit.session and "method" in message:
            self._visit.note(message)
        return message
