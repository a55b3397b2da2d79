"""`epochal explain`, `feature-maps` and `timeline`, against a lab that serves."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from service.app import create_app
from service.cli import options
from service.cli.client import Client
from service.cli.main import app
from tests.service.explanations.conftest import Planted
from tests.service.lab_of_one import LiveServer

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def client(planted: Planted) -> Iterator[Client]:
    with LiveServer(create_app(planted.lab.settings)) as server, Client(server.url) as client:
        yield client


@pytest.fixture
def run(client: Client, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with `a.png`, in which a red corner is class 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "connect", lambda *_: client)
    Path("a.png").write_bytes(planted.file)

    def run(*arguments: str, expect: int = 0) -> Any:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        assert result.exit_code == expect, f"{result.stdout}\n{result.stderr}"
        return result

    return run


def width_of(picture: str) -> int:
    with Image.open(picture) as opened:
        return opened.width


def test_explain_saves_a_picture_under_the_name_asked_for_or_its_own(run: Run, planted: Planted) -> None:
    number = str(planted.trained.id)
    told = json.loads(run("explain", number, "a.png", "--json").stdout)
    assert told == {"file": f"explanation-{number}.png", "bytes": Path(told["file"]).stat().st_size}
    assert width_of(told["file"]) > 900
    run("explain", number, "a.png", "-o", "why.svg", "--target", "bird")
    drawn = Path("why.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "bird" in drawn


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients"])
def test_explain_has_a_worker_compute_gradients(run: Run, planted: Planted, worker: list[str], method: str) -> None:
    run("explain", str(planted.trained.id), "a.png", "--method", method, "-o", "why.png")
    assert width_of("why.png") > 900


def test_feature_maps_saves_the_layer_that_is_named(run: Run, planted: Planted, worker: list[str]) -> None:
    number = str(planted.trained.id)
    run("feature-maps", number, "a.png")
    first = Path(f"feature-maps-{number}.png").read_bytes()
    run("feature-maps", number, "a.png", "--layer", "0", "-o", "same.png")
    assert Path("same.png").read_bytes() == first
    run("feature-maps", number, "a.png", "--scaling", "map", "-o", "scaled.png")
    assert Path("scaled.png").read_bytes() != first


def test_timeline_saves_when_an_image_was_learned(run: Run, planted: Planted) -> None:
    number = str(planted.trained.id)
    run("timeline", number, "a.png")
    assert width_of(f"timeline-{number}.png") > 1000
    run("timeline", number, "a.png", "--target", "automobile", "-o", "other.svg")
    assert "automobile" in Path("other.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("explain", "{}", "a.png", "--method", "magic"), "grad_cam"),
        (("explain", "{}", "a.png", "--target", "unicorn"), "unicorn"),
        (("explain", "{}", "a.png", "--weights", "last"), "no last weights"),
        (("explain", "{}", "a.png", "--method", "grad_cam"), "no worker is running"),
        (("explain", "{}", "text.png"), "is of no known kind"),
        (("explain", "9999", "a.png"), "9999"),
        (("feature-maps", "{}", "a.png"), "no worker is running"),
        (("feature-maps", "{}", "a.png", "--layer", "feature.0"), "features.0"),
        (("timeline", "{}", "a.png", "--target", "10"), "0 to 9"),
    ],
)
def test_what_the_lab_refuses_is_said(run: Run, planted: Planted, arguments: tuple[str, ...], words: str) -> None:
    Path("text.png").write_text("no picture")
    result = run(*(one.format(planted.trained.id) for one in arguments), expect=1)
    assert words in " ".join(result.stderr.split())
    assert not list(Path().glob("*-*.png")), "nothing is saved"


@pytest.mark.parametrize("command", ["explain", "feature-maps", "timeline"])
def test_a_file_that_is_not_there_or_a_name_of_no_picture_is_refused_before_the_lab_is_asked(
    run: Run, command: str
) -> None:
    assert "nothing.png" in run(command, "1", "nothing.png", expect=2).stderr
    assert ".svg" in run(command, "1", "a.png", "-o", "out.gif", expect=2).stderr
