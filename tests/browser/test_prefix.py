"""The lab's pages in a real browser, behind a path prefix: no address leaves it, and no script fails."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from tests.service.lab_of_one import Filled, LiveServer, epoch, settings_in

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
PREFIX = "/group/epochal"
ADDRESS = re.compile(r'\b(?:href|src|action|data-submit)="(/[^"]*)"')
LOGGED = re.compile(r"CONSOLE[^\n]*")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium (Debian, Ubuntu)")


@dataclass
class Page:
    """What a page was once its scripts had run."""

    dom: str
    logged: list[str]


@dataclass
class Site:
    """A lab behind a prefix, and every path that was asked of it."""

    folder: Path
    paths: list[str] = field(default_factory=list)
    url: str = ""
    running: int = 0
    ended: int = 0

    def open(self, path: str) -> Page:
        """Open a page as a person would, and wait until it is idle."""
        command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--no-first-run"]
        command += ["--disable-dev-shm-usage", "--disable-background-networking", "--enable-logging=stderr", "--v=0"]
        command += [f"--user-data-dir={self.folder / 'profile'}", "--timeout=20000", "--dump-dom"]
        environment = {**os.environ, "HOME": str(self.folder)}
        ended = subprocess.run(
            [*command, self.url + PREFIX + path], capture_output=True, text=True, env=environment, check=True
        )
        return Page(ended.stdout, LOGGED.findall(ended.stderr))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    settings = settings_in(folder).model_copy(update={"root_path": PREFIX})
    filled = Filled(settings)
    site = Site(folder, ended=filled.trained([epoch(1), epoch(2)]))
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    site.running = claim.experiment_id
    app = create_app(settings)

    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            site.paths.append(scope["path"])
        await app(scope, receive, send)

    with LiveServer(recorded) as server:
        site.url = server.url
        yield site
    filled.store.dispose()


@pytest.mark.timeout(120)
def test_no_address_of_any_page_leaves_the_prefix_and_no_script_fails(site: Site) -> None:
    for path in ("/", f"/experiments/{site.ended}", f"/experiments/{site.running}", "/new", "/docs", "/nothing"):
        site.paths.clear()
        page = site.open(path)
        assert f'data-root="{PREFIX}"' in page.dom, path
        addresses = ADDRESS.findall(page.dom)
        assert len(addresses) > 3, path
        assert [one for one in addresses if not f"{one}/".startswith(f"{PREFIX}/")] == [], path
        assert [one for one in site.paths if not one.startswith(PREFIX)] == [], path
        if path == "/":  # after which the browser keeps them
            static = {one.rpartition("/")[2] for one in site.paths if one.startswith(f"{PREFIX}/static/")}
            assert static >= {"epochal.js", "epochal.css"}
        if path != "/nothing":  # whose 404 the browser logs by itself
            assert page.logged == [], path
        if path == f"/experiments/{site.running}":
            assert f"{PREFIX}/api/v1/experiments/{site.running}/events" in site.paths, "the script follows the run"
