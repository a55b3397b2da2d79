"""The commands against a running lab, interactively and in scripts."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from models.data.dataset import load_dataset
from service.cli.client import Client
from service.cli.main import app
from service.lab.lab import Lab
from tests.postgres import SERVER
from tests.processes import wait_until
from tests.system.experiments import long_spec, small_spec, wait_for_epochs, wait_until_ended
from tests.system.foreign import EPOCHAL, foreign_environment


@pytest.fixture
def epochal(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Runs a command in this process, in a temporary folder; fails the test unless it exits as expected.

    A process for each takes a second of imports; `installed` starts some.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, expect: int = 0, url: str | None = None) -> Result:
        ended = CliRunner().invoke(app, [*arguments, "--url", url or lab.url])
        assert ended.exit_code == expect, f"{ended.output}\n{ended.exception}"
        return ended

    return run


@pytest.fixture
def installed(lab: Lab, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs the installed command in a folder, and with a PYTHONPATH, that hold others' packages of the same names."""
    environment = foreign_environment(tmp_path)

    def run(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [*EPOCHAL, *arguments, "--url", lab.url],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=100,
            check=False,
        )
        assert result.returncode == expect, f"{result.stdout}\n{result.stderr}"
        return result

    return run


def test_submit_and_watch_shows_every_epoch_and_how_it_ended(installed, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small_spec()))
    shown = installed("submit", "spec.yaml", "--set", "epochs=2", "--name", "from a file", "--watch").stdout
    assert "epoch 1/2" in shown
    assert "epoch 2/2" in shown
    assert "completed; best validation accuracy" in shown


def test_watch_for_scripts_writes_one_event_a_line(epochal, completed: int) -> None:  # type: ignore[no-untyped-def]
    lines = [json.loads(line) for line in epochal("watch", str(completed), "--json").stdout.splitlines()]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2, 3]


def test_a_preset_is_submitted_by_name_with_changes(epochal, client: Client) -> None:  # type: ignore[no-untyped-def]
    changes = ("--set", "dataset.train_limit=500", "--set", "dataset.val_limit=200", "--set", "epochs=1")
    found = json.loads(epochal("submit", "lab-report/3a", *changes, "--json").stdout)
    assert found["model"] == "narrow"
    assert found["spec"]["epochs"] == 1
    assert wait_until_ended(client, found["id"])["status"] == "completed"


def test_list_show_and_verdict_for_people_and_for_scripts(epochal, completed: int) -> None:  # type: ignore[no-untyped-def]
    assert "completed" in epochal("list", "--tag", "shared").stdout
    items = json.loads(epochal("list", "--tag", "shared", "--json").stdout)["items"]
    assert completed in [item["id"] for item in items]  # other tests continue and reproduce it, tags and all
    assert all("shared" in item["tags"] for item in items)
    assert "val_accuracy" in epochal("show", str(completed)).stdout
    assert json.loads(epochal("show", str(completed), "--json").stdout)["id"] == completed
    spec = yaml.safe_load(epochal("show", str(completed), "--spec").stdout)
    assert spec["epochs"] == 3
    assert json.loads(epochal("verdict", str(completed), "--json").stdout)["summary"] in " ".join(
        epochal("verdict", str(completed)).stdout.split()
    )


@pytest.mark.parametrize("command", ["curves", "kernels"])
def test_pictures_are_saved_as_png_or_svg(epochal, completed: int, tmp_path: Path, command: str) -> None:  # type: ignore[no-untyped-def]
    epochal(command, str(completed))
    with Image.open(tmp_path / f"{command}-{completed}.png") as picture:
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 20
    epochal(command, str(completed), "-o", "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    epochal(command, str(completed), "-o", "picture.gif", expect=2)


@pytest.mark.parametrize("command", ["confusion", "mistakes"])
def test_what_was_wrong_is_listed_or_drawn(epochal, completed: int, tmp_path: Path, command: str) -> None:  # type: ignore[no-untyped-def]
    assert "predicted as" in epochal(command, str(completed)).stdout
    assert json.loads(epochal(command, str(completed), "--json").stdout)["split"] == "validation"
    epochal(command, str(completed), "-o", "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 500
    assert "evaluate_test" in epochal(command, str(completed), "--split", "test", expect=1).stderr


def test_classify_names_what_it_sees(installed, completed: int, lab: Lab, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    dataset = load_dataset("cifar10", lab.settings)
    Image.fromarray(dataset.test_images[0].transpose(1, 2, 0)).save(tmp_path / "image.png")
    shown = installed("classify", str(completed), "image.png", "--top-k", "2").stdout
    assert "image.png" in shown
    assert any(name in shown for name in dataset.info.class_names)
    found = json.loads(installed("classify", str(completed), "image.png", "--json").stdout)
    assert len(found["predictions"]) == 1
    (tmp_path / "text.png").write_text("not an image")
    refused = installed("classify", str(completed), "image.png", "text.png", expect=1)
    assert "text.png" in refused.stderr


def test_cancel_resume_and_delete(epochal, client: Client) -> None:  # type: ignore[no-untyped-def]
    number = client.post("/experiments", long_spec())["id"]
    wait_for_epochs(client, number, 1)
    epochal("cancel", str(number))
    wait_until_ended(client, number)
    assert "queued" in epochal("resume", str(number)).stdout
    epochal("delete", str(number), expect=1) if client.get(f"/experiments/{number}")["status"] == "running" else None
    epochal("cancel", str(number))
    wait_until_ended(client, number)
    assert "deleted" in epochal("delete", str(number)).stdout
    gone = epochal("show", str(number), expect=1)
    assert str(number) in gone.stderr


def test_a_dry_run_measures_and_queues_nothing(epochal, client: Client) -> None:  # type: ignore[no-untyped-def]
    before = client.get("/experiments", limit=1)["items"]
    few = ("--set", "dataset.train_limit=400", "--set", "dataset.val_limit=200")
    assert json.loads(epochal("submit", "baseline", *few, "--dry-run", "--json").stdout)
    assert client.get("/experiments", limit=1)["items"] == before


def test_a_learning_rate_test_suggests_a_rate_and_draws_it(epochal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(epochal("lr-test", "baseline", "--json", "-o", "lr.png").stdout)
    assert found["result"]["suggestion"]["lr"] > 0
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU adds up in another order each time")
def test_a_reproduction_on_the_same_machine_agrees_to_the_bit(epochal, completed: int) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(epochal("reproduce", str(completed), "--json").stdout)
    assert found["original"] == completed
    assert found["first_difference"] is None
    assert found["weights_identical"] is True


def test_an_experiment_is_not_more_stable_than_itself(epochal, completed: int) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(epochal("stability", str(completed), str(completed), "--json").stdout)
    assert found["more_stable"] is None
    assert found["sentence"] in epochal("stability", str(completed), str(completed)).stdout.replace("\n", " ")


def test_a_refusal_is_shown_as_title_detail_and_fix_with_exit_code_1(installed) -> None:  # type: ignore[no-untyped-def]
    refused = installed("submit", "baselin", expect=1)
    assert "baseline" in refused.stderr
    assert "model.name" in refused.stderr
    assert refused.stdout == ""
    assert json.loads(installed("submit", "baselin", "--json", expect=1).stdout)["status"] == 422


def test_a_lab_that_is_not_there_is_said_to_be_not_there(epochal) -> None:  # type: ignore[no-untyped-def]
    silent = epochal("list", expect=1, url="http://127.0.0.1:1")
    assert "does not answer" in silent.stderr
    assert "epochal up" in silent.stderr
    assert epochal("list", expect=2, url="not an address").stderr


@pytest.mark.skipif(SERVER is not None, reason="PostgreSQL is backed up by pg_dump")
def test_backup_while_training_restores_to_a_lab_that_holds_the_same(client: Client, lab: Lab, tmp_path: Path) -> None:
    number = client.post("/experiments", long_spec())["id"]
    wait_for_epochs(client, number, 1)
    data_dir, archive, copy = str(lab.settings.data_dir), str(tmp_path / "backup.tar"), str(tmp_path / "copy")
    subprocess.run([*EPOCHAL, "backup", archive, "--data-dir", data_dir], check=True, timeout=60)
    client.post(f"/experiments/{number}/cancel")
    wait_until_ended(client, number)
    subprocess.run([*EPOCHAL, "restore", archive, "--data-dir", copy], check=True, timeout=60)
    from models.settings import Settings
    from models.store import Store, experiments, history

    store = Store(Settings(data_dir=Path(copy)))
    with store.reading() as session:
        assert experiments.get(session, number).status == "running"
        assert len(history.read(session, number)) >= 1
    store.dispose()


def test_a_killed_api_is_started_again(lab: Lab) -> None:
    assert lab.api is not None
    assert lab.api.process is not None
    restarts = lab.api.restarts
    lab.api.process.kill()
    wait_until(lambda: lab.api.restarts > restarts and _healthy(lab.url), what="the API to be started again")


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
