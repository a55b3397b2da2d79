"""The lab's pages in a real browser, behind a path prefix: no address leaves it, and no script fails."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from tests.browser.driver import BROWSER, browser
from tests.processes import wait_until
from tests.service.lab_of_one import Filled, LiveServer, epoch, settings_in

PREFIX = "/group/epochal"
ADDRESS = re.compile(r'\b(?:href|src|action|data-submit)="(/[^"]*)"')

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium (Debian, Ubuntu)")


@dataclass
class Site:
    """A lab behind a prefix, and every path that was asked of it."""

    paths: list[str] = field(default_factory=list)
    url: str = ""
    running: int = 0
    ended: int = 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = settings_in(tmp_path_factory.mktemp("site")).model_copy(update={"root_path": PREFIX})
    filled = Filled(settings)
    site = Site(ended=filled.trained([epoch(1), epoch(2)]))
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
def test_no_address_of_any_page_leaves_the_prefix_and_no_script_fails(site: Site, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        for path in ("/", f"/experiments/{site.ended}", f"/experiments/{site.running}", "/new", "/docs", "/nothing"):
            site.paths.clear()
            page.errors.clear()
            page.open(site.url + PREFIX + path)
            page.wait_until_idle()
            dom = page.read("document.documentElement.outerHTML")
            assert f'data-root="{PREFIX}"' in dom, path
            addresses = ADDRESS.findall(dom)
            assert len(addresses) > 3, path
            assert [one for one in addresses if not f"{one}/".startswith(f"{PREFIX}/")] == [], path
            assert [one for one in site.paths if not one.startswith(PREFIX)] == [], path
            if path == "/":  # after which the browser keeps them
                static = {one.rpartition("/")[2] for one in site.paths if one.startswith(f"{PREFIX}/static/")}
                assert static >= {"epochal.js", "epochal.css"}
            if path != "/nothing":  # whose 404 the browser logs by itself
                assert page.errors == [], path
            if path == f"/experiments/{site.running}":
                followed = f"{PREFIX}/api/v1/experiments/{site.running}/events"
                wait_until(lambda followed=followed: followed in site.paths, what="the script to follow the run")
