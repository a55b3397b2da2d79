"""An image is classified and looked at closer on an experiment's page, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from models.store import runs
from models.store.states import Status
from service.app import create_app
from tests.browser.driver import BROWSER, Driver, browser
from tests.service.lab_of_one import Filled, LiveServer, settings_in
from tests.service.predictions.trained import Lab

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium (Debian, Ubuntu)")
CHOICE, SHOWN, REFUSED = ".look select", ".look figure img", ".look figure .problem"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Driver]:
    """The page of an experiment that has ended, opened in a browser."""
    filled = Filled(settings_in(tmp_path))
    trained = Lab(filled.store, filled.settings).train()
    with filled.store.writing() as session:
        runs.settle(session, trained.claim, Status.COMPLETED)
    with LiveServer(create_app(filled.settings)) as server, browser(tmp_path) as driver:
        driver.open(f"{server.url}/experiments/{trained.id}")
        yield driver
    filled.store.dispose()


@pytest.mark.timeout(120)
def test_a_picture_is_classified_and_looked_at_in_each_way_that_needs_no_worker(page: Driver, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    Image.new("RGB", (40, 32), "red").save(file)
    page.choose_file("form.predict input[type=file]", file)
    page.wait("document.querySelectorAll('#predictions .class').length === 3")
    assert page.read("document.querySelector('#predictions .name').textContent") == "red.png"
    offered = page.read(f"[...document.querySelectorAll('{CHOICE} option')].map((one) => one.textContent)")
    assert offered == [
        *("look closer ...", "occlusion", "Grad-CAM", "integrated gradients", "feature maps", "timeline"),
    ]
    for value, name in (("explanations?method=occlusion", "occlusion"), ("timeline?format=svg", "timeline")):
        page.choose(CHOICE, value)
        page.wait(f"document.querySelector('{SHOWN}')?.alt === '{name} of red.png'")
        page.wait(f"document.querySelector('{SHOWN}').naturalWidth > 500")
        assert not page.read("document.querySelector('.look figure').hidden")
    assert page.errors == []

    page.choose(CHOICE, "explanations?method=grad_cam")
    said = page.wait(f"document.querySelector('{REFUSED}')?.textContent")
    assert "no worker is running" in said
    page.choose(CHOICE, "")
    assert page.read("document.querySelector('.look figure').hidden")
