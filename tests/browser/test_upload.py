"""The form for people's own images, in a real browser: chosen, sent in pieces, imported, ready to train on."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from tests.browser.driving import BROWSER, Browser
from tests.service.datasets.photos import do_jobs, photos
from tests.service.lab_of_one import Filled, LiveServer, settings_in

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium (Debian, Ubuntu)"),
    pytest.mark.timeout(180),
]
PIECE = 8 << 20


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    filled = Filled(settings_in(tmp_path / "lab"))
    yield filled
    filled.store.dispose()


class Served:
    """The application, with what was asked of its uploads; once it answers a piece as a lab that is being restarted."""

    def __init__(self, filled: Filled) -> None:
        self._app = create_app(filled.settings)
        self.offsets: list[int] = []
        self.away = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "PATCH":
            self.offsets.append(int(dict(scope["headers"])[b"upload-offset"]))
            if self.away and self.offsets[-1]:
                self.away = False
                await send({"type": "http.response.start", "status": 502, "headers": []})
                await send({"type": "http.response.body", "body": b"<html>Bad gateway</html>"})
                return
        await self._app(scope, receive, send)


def test_from_a_file_to_a_dataset_that_can_be_trained_on(filled: Filled, tmp_path: Path) -> None:
    archive = tmp_path / "my photos (2).zip"
    archive.write_bytes(photos(also={"notes/large.bin": bytes(2 * PIECE)}))
    served = Served(filled)
    served.away = True
    with LiveServer(served) as server, Browser(tmp_path) as browser:
        browser.open(f"{server.url}/datasets")
        browser.choose_file("input[name=file]", archive)
        browser.wait(lambda: browser.run("document.querySelector('[name=name]').value") == "my-photos-2-", "a name")
        assert "my photos (2).zip, 16.8 MB" in browser.run("document.querySelector('.chosen').textContent")
        browser.run("document.querySelector('[name=name]').value = 'shots'")
        browser.run("document.querySelector('form.upload [type=submit]').click()")
        browser.wait(lambda: browser.run("document.querySelector('form.upload .problem').hidden") is False, "a problem")
        assert "8 of 17 MB sent" in browser.run("document.querySelector('[data-sent]').textContent")
        browser.run("document.querySelector('form.upload [type=submit]').click()")
        browser.wait(lambda: browser.run("location.pathname") == "/datasets/shots", "the dataset's page")
        assert served.offsets == [0, PIECE, PIECE, 2 * PIECE], "it went on where it had stopped"
        browser.wait(lambda: "importing" in (browser.run("document.body.textContent") or ""), "the import's state")
        assert do_jobs(filled) == 1
        browser.wait(lambda: "Train on it" in (browser.run("document.body.textContent") or ""), "the page to follow")
        browser.wait(lambda: browser.run("document.querySelectorAll('.gallery img').length") == 20, "the images")
        browser.wait(
            lambda: browser.run("[...document.querySelectorAll('.gallery img')].every((one) => one.naturalWidth)"),
            "the images to be drawn",
        )
        browser.run("document.querySelector('main a.button.primary').click()")
        browser.wait(lambda: browser.run("location.pathname") == "/new", "the form")
        spec = "document.querySelector('textarea')?.value"
        browser.wait(lambda: re.search(r'"?name"?: "?shots', browser.run(spec) or ""), "its spec")
        assert browser.problems == []


def test_what_is_refused_is_said_in_the_form(filled: Filled, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.write_bytes(photos())
    with LiveServer(create_app(filled.settings)) as server, Browser(tmp_path) as browser:
        browser.open(f"{server.url}/datasets")
        browser.choose_file("input[name=file]", archive)
        browser.run("document.querySelector('[name=name]').value = 'cifar10'")
        browser.run("document.querySelector('form.upload [type=submit]').click()")
        problem = "document.querySelector('form.upload .problem')"
        browser.wait(lambda: browser.run(f"{problem}.hidden") is False, "a problem")
        assert "cifar10 is the name of a built-in dataset" in browser.run(f"{problem}.textContent")
        assert "my-cifar10" in browser.run(f"{problem}.textContent")
