"""The form for people's own images, in a real browser: chosen, sent in pieces, imported, ready to train on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from tests.browser.driver import BROWSER, browser
from tests.service.datasets.photos import do_jobs, photos
from tests.service.lab_of_one import Filled, LiveServer, settings_in

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium (Debian, Ubuntu)"),
    pytest.mark.timeout(180),
]
PIECE = 8 << 20
NAME, PROBLEM = "document.querySelector('[name=name]')", "document.querySelector('form.upload .problem')"
SUBMIT = "document.querySelector('form.upload [type=submit]').click()"
TEXT = "document.body.textContent"


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
    with LiveServer(served) as server, browser(tmp_path) as page:
        page.open(f"{server.url}/datasets")
        page.choose_file("input[name=file]", archive)
        page.wait(f"{NAME}.value === 'my-photos-2-'")
        assert "my photos (2).zip, 16.8 MB" in page.read("document.querySelector('.chosen').textContent")
        page.read(f"{NAME}.value = 'shots'")
        page.read(SUBMIT)
        page.wait(f"{PROBLEM}.hidden === false")
        assert "8 of 17 MB sent" in page.read("document.querySelector('[data-sent]').textContent")
        assert [error for error in page.errors if "502" not in error] == []
        page.errors.clear()
        page.read(SUBMIT)
        page.wait("location.pathname === '/datasets/shots'")
        assert served.offsets == [0, PIECE, PIECE, 2 * PIECE], "it went on where it had stopped"
        page.wait(f"{TEXT}.includes('importing')")
        assert do_jobs(filled) == 1
        page.wait(f"{TEXT}.includes('Train on it')")
        page.wait("document.querySelectorAll('.gallery img').length === 20")
        page.wait("[...document.querySelectorAll('.gallery img')].every((one) => one.naturalWidth)")
        page.read("document.querySelector('main a.button.primary').click()")
        page.wait("location.pathname === '/new'")
        page.wait('/"?name"?: "?shots/.test(document.querySelector(\'textarea\')?.value)')
        assert page.errors == []


def test_what_is_refused_is_said_in_the_form(filled: Filled, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.write_bytes(photos())
    with LiveServer(create_app(filled.settings)) as server, browser(tmp_path) as page:
        page.open(f"{server.url}/datasets")
        page.choose_file("input[name=file]", archive)
        page.read(f"{NAME}.value = 'cifar10'")
        page.read(SUBMIT)
        page.wait(f"{PROBLEM}.hidden === false")
        assert "cifar10 is the name of a built-in dataset" in page.read(f"{PROBLEM}.textContent")
        assert "my-cifar10" in page.read(f"{PROBLEM}.textContent")
