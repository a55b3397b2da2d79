"""A headless Chromium that is driven over a pipe, by the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tests.processes import wait_until

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--remote-debugging-pipe"),
)
SECONDS = 60.0
IDLE = "networkAlmostIdle"
"""The lifecycle event of a page that has had two connections or fewer for half a second: one is an open stream's."""


class Refused(AssertionError):
    """The browser did not do what it was told."""


class Driver:
    """One tab. Messages are JSON with a zero byte behind each."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands, self._answers = commands, answers
        self._number = 0
        self._session: str | None = None
        self._shown = ""
        self._idle: set[str] = set()
        self.errors: list[str] = []
        """What scripts logged as errors, exceptions that nothing caught, and what the browser refused to load."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Page.setLifecycleEventsEnabled", enabled=True)

    def open(self, address: str) -> None:
        """Go to a page and wait until it has been parsed."""
        self._shown = self._call("Page.navigate", url=address)["loaderId"]
        self.wait(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def wait_until_idle(self) -> None:
        """Wait until what was opened has loaded everything and asks for nothing more; a stream may stay open."""
        wait_until(lambda: self.read("true") and self._shown in self._idle, SECONDS, "an idle page")

    def wait(self, condition: str) -> Any:
        """Evaluate an expression of JavaScript until it is true; returns what it gave."""
        try:
            return wait_until(lambda: self.read(condition), SECONDS, condition)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page says {self.read('document.body.innerText')}") from None

    def read(self, expression: str) -> Any:
        """The value of an expression of JavaScript; None where it has none yet, and while one page follows another."""
        try:
            return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")
        except Refused:
            return None

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in an input, as a person does in the dialogue."""
        node = self._call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        self._call("DOM.setFileInputFiles", files=[str(file)], objectId=node["objectId"])

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select, as a person does."""
        chosen = (
            f"((s) => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change', {{ bubbles: true }})); }})"
        )
        self.read(f"{chosen}(document.querySelector({json.dumps(selector)}))")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            found = json.loads(self._read())
            if found.get("id") == self._number:
                if "error" in found:
                    raise Refused(f"{method}: {found['error']}")
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def _read(self) -> bytes:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise AssertionError("the browser has ended")
            message += byte
        return bytes(message)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Page.lifecycleEvent" and params["name"] == IDLE:
            self._idle.add(params["loaderId"])
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        if event.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(json.dumps(params["args"]))
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])


@contextmanager
def browser(folder: Path) -> Iterator[Driver]:
    """A browser with a profile of its own, ended with the block."""
    to_browser, to_test = os.pipe(), os.pipe()
    # The browser reads from file descriptor 3 and writes to 4.
    command = ["bash", "-c", f'exec 3<&{to_browser[0]} 4>&{to_test[1]} "$0" "$@"', str(BROWSER), *FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder / 'driven'}"],
        pass_fds=(to_browser[0], to_test[1]),
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(to_test[1])
    try:
        with os.fdopen(to_browser[1], "wb") as commands, os.fdopen(to_test[0], "rb") as answers:
            yield Driver(commands, answers)
    finally:
        process.terminate()
        process.wait(10)
