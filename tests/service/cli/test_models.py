"""`epochal model`, and `classify` by a model's name, against a lab that serves."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from models.store import runs
from models.store.states import Status
from service.app import create_app
from service.cli import options
from service.cli.client import Client
from service.cli.main import app
from tests.service.lab_of_one import Filled, LiveServer, settings_in
from tests.service.predictions.pictures import encode
from tests.service.predictions.trained import Lab

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A lab with two experiments that have ended."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("models")))
    lab = Lab(filled.store, filled.settings)
    trained = [lab.train(seed=seed) for seed in (0, 1)]
    with filled.store.writing() as session:
        for one in trained:
            runs.settle(session, one.claim, Status.COMPLETED)
    with LiveServer(create_app(filled.settings)) as server:
        yield server.url
    filled.store.dispose()


@pytest.fixture
def run(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command in a folder with one image; the connection is closed at the end, as by a process's end."""
    monkeypatch.chdir(tmp_path)
    Path("cat.png").write_bytes(encode(Image.new("RGB", (32, 32), "red"), "PNG"))

    def run(*arguments: str, expect: int = 0) -> Any:
        result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
        assert result.exit_code == expect, f"{result.stdout}\n{result.stderr}"
        return result

    with Client(address) as client:
        monkeypatch.setattr(options, "connect", lambda *_: client)
        yield run


def test_a_model_is_set_shown_listed_rolled_back_and_deleted(run: Run) -> None:
    assert "no models" in run("model", "list").stdout
    assert (
        "model cats serves version 1: the best weights of experiment 1, of epoch 3"
        in run("model", "set", "cats", "1").stdout
    )
    assert json.loads(run("model", "set", "cats", "2", "--json").stdout)["version"] == 2
    assert [item["name"] for item in json.loads(run("model", "list", "--json").stdout)["items"]] == ["cats"]
    assert "cats" in run("model", "list").stdout
    back = run("model", "rollback", "cats").stdout
    assert "serves version 1" in back
    shown = run("model", "show", "cats").stdout
    assert "withdrawn" in shown
    assert "served" in shown
    versions = json.loads(run("model", "show", "cats", "--json").stdout)["versions"]
    assert [(one["version"], one["serving"]) for one in versions] == [(2, False), (1, True)]
    assert "no version before it" in run("model", "rollback", "cats", expect=1).stderr
    assert "experiment 1 cannot be deleted" in run("delete", "1", expect=1).stderr
    assert "is what model 'cats' serves" in run("model", "delete", "cats", "--version", "1", expect=1).stderr
    assert "version 2 of model cats is withdrawn" in run("model", "delete", "cats", "--version", "2").stdout
    assert "is deleted" in run("model", "delete", "cats").stdout
    assert "no model 'cats'" in run("model", "show", "cats", expect=1).stderr


def test_names_of_another_form_are_refused_with_the_nearest(run: Run) -> None:
    refused = run("model", "set", "my cats/2", "1", expect=1).stderr
    assert "begins with a letter" in refused
    assert "my-cats-2" in refused
    for name in ("../../experiments/1", "..", "my cats", "\u732b", ""):
        assert run("model", "show", name, expect=1).stderr.startswith("Not found")
    run("model", "set", "cats", "1", "--weights", "worst", expect=1)


def test_images_are_classified_by_a_models_name(run: Run) -> None:
    run("model", "set", "reds", "2")
    by_name = json.loads(run("classify", "reds", "cat.png", "--json").stdout)
    assert (by_name["model"], by_name["version"], by_name["experiment_id"]) == ("reds", 1, 2)
    by_number = json.loads(run("classify", "2", "cat.png", "--json").stdout)
    assert by_name["predictions"] == by_number["predictions"]
    assert "cat.png" in run("classify", "reds", "cat.png").stdout
    assert "no model 'dogs'" in run("classify", "dogs", "cat.png", expect=1).stderr
    assert "there is no file" in run("classify", "reds", expect=2).stderr
    assert "there is no file" in run("classify", "gone.png", "cat.png", expect=2).stderr
    assert "which weights" in run("classify", "reds", "cat.png", "--weights", "last", expect=2).stderr
    Path("reds").mkdir()
    assert "holds no images" in run("classify", "reds", "cat.png", expect=2).stderr, "a folder of that name is meant"
    run("model", "delete", "reds")  # the lab is the other tests' too
