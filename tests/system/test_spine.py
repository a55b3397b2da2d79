"""POST an experiment on real images, and read everything back over HTTP."""

import csv
import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from models.data.dataset import load_dataset
from models.files import verify
from service.cli.client import Client, Problem
from service.lab.lab import Lab
from tests.system.experiments import long_spec, small_spec, wait_for_epochs, wait_until_ended


def test_a_posted_experiment_completes_with_its_complete_spec(client: Client, completed: int) -> None:
    experiment = client.get(f"/experiments/{completed}")
    assert experiment["status"] == "completed"
    assert experiment["spec"]["optimizer"]["momentum"] == 0.9
    assert experiment["spec"]["augmentation"] is not None, "defaults are written into the stored spec"
    assert [run["status"] for run in experiment["runs"]] == ["completed"]


def test_its_epochs_are_counted_from_1_each_once_and_finite(client: Client, completed: int) -> None:
    epochs = client.get(f"/experiments/{completed}/metrics")["epochs"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert all(row["val_loss"] is not None and row["seconds"] > 0 for row in epochs)
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]


def test_it_is_continued_with_more_epochs_after_its_own(client: Client, completed: int) -> None:
    longer = client.post(f"/experiments/{completed}/continue", {"epochs": 1})
    assert wait_until_ended(client, longer["id"])["status"] == "completed"
    before, after = (client.get(f"/experiments/{number}/metrics")["epochs"] for number in (completed, longer["id"]))
    assert after[:3] == before
    assert [row["epoch"] for row in after] == [1, 2, 3, 4]
    assert client.get(f"/experiments/{longer['id']}")["runs"][0]["start_epoch"] == 3


def test_the_table_says_the_same_as_the_json(client: Client, completed: int) -> None:
    rows = list(csv.DictReader(io.StringIO(client.get_bytes(f"/experiments/{completed}/metrics.csv").decode())))
    epochs = client.get(f"/experiments/{completed}/metrics")["epochs"]
    assert next(iter(rows[0])) == "epoch"
    assert [float(row["val_loss"]) for row in rows] == pytest.approx([row["val_loss"] for row in epochs])


@pytest.mark.parametrize("picture", ["curves.png", "kernels.png"])
def test_pictures_are_real_pictures(client: Client, completed: int, picture: str) -> None:
    pixels = Image.open(io.BytesIO(client.get_bytes(f"/experiments/{completed}/{picture}"))).convert("RGB")
    assert pixels.height > 100
    assert len(pixels.getcolors(pixels.width * pixels.height)) > 20


def test_uploaded_images_are_classified_in_the_order_sent(
    client: Client, completed: int, lab: Lab, tmp_path: Path
) -> None:
    dataset = load_dataset("cifar10", lab.settings)
    files = []
    for index in range(3):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(dataset.test_images[index].transpose(1, 2, 0)).save(files[-1])
    forward = client.post_images(f"/experiments/{completed}/predictions", files, top_k=10)["predictions"]
    backward = client.post_images(f"/experiments/{completed}/predictions", files[::-1], top_k=10)["predictions"]
    assert [_top(one) for one in forward] == [_top(one) for one in backward[::-1]]
    for one in forward:
        assert sum(label["probability"] for label in one["top"]) == pytest.approx(1, abs=1e-4)
        assert {label["label"] for label in one["top"]} == set(dataset.info.class_names)


def _top(prediction: dict[str, list[dict[str, object]]]) -> object:
    return prediction["top"][0]["label"]


def test_the_files_on_disk_are_those_that_the_store_names(client: Client, completed: int, lab: Lab) -> None:
    from models.store import Store, artifacts

    store = Store(lab.settings)
    with store.reading() as session:
        records = artifacts.list_for(session, completed)
    store.dispose()
    assert {"weights-best", "weights-last", "kernels"} <= {str(record.kind) for record in records}
    for record in records:
        verify(record.file(lab.settings.experiments_dir), record.sha256)


def test_events_are_replayed_from_the_start_and_from_the_last_one_seen(client: Client, completed: int) -> None:
    every = list(client.events(f"/experiments/{completed}/events", None))
    kinds = [event.kind for event in every]
    assert kinds.count("epoch") == 3
    assert kinds[-1] == "end"
    stored = [event for event in every if event.id is not None]
    later = list(client.events(f"/experiments/{completed}/events", stored[1].id))
    assert [event.id for event in later if event.id is not None] == [event.id for event in stored[2:]]


def test_a_completed_experiment_has_a_verdict(client: Client, completed: int) -> None:
    verdict = client.get(f"/experiments/{completed}/verdict")
    assert verdict["summary"]
    assert verdict["findings"]


def test_the_list_filters_and_sorts(client: Client, completed: int) -> None:
    items = client.get("/experiments", tag="shared", status="completed", sort="val_accuracy.best")["items"]
    assert completed in [item["id"] for item in items]  # others reproduce it, tags and all
    assert all(item["status"] == "completed" and "shared" in item["tags"] for item in items)
    bests = [item["best"]["val_accuracy"]["value"] for item in items]
    assert bests == sorted(bests, reverse=True)
    assert client.get("/experiments", model="wide", tag="shared")["items"] == []


def test_a_running_experiment_is_cancelled_resumed_and_cancelled_again_without_losing_epochs(client: Client) -> None:
    number = client.post("/experiments", long_spec())["id"]
    wait_for_epochs(client, number, 2)
    assert client.post(f"/experiments/{number}/cancel")["status"] in ("running", "cancelled")
    assert wait_until_ended(client, number)["status"] == "cancelled"
    before = client.get(f"/experiments/{number}/metrics")["epochs"]
    client.post(f"/experiments/{number}/resume")
    wait_for_epochs(client, number, len(before) + 2)
    client.post(f"/experiments/{number}/cancel")
    ended = wait_until_ended(client, number)
    after = client.get(f"/experiments/{number}/metrics")["epochs"]
    assert ended["status"] == "cancelled"
    assert [row["epoch"] for row in after] == list(range(1, len(after) + 1))
    assert after[: len(before)] == before, "what was learned before the cancel is kept"
    assert [run["attempt"] for run in ended["runs"]] == [1, 2]


def test_a_queued_experiment_is_cancelled_at_once(client: Client) -> None:
    running = client.post("/experiments", long_spec())["id"]
    queued = client.post("/experiments", small_spec())["id"]
    assert client.post(f"/experiments/{queued}/cancel")["status"] == "cancelled"
    client.post(f"/experiments/{running}/cancel")
    wait_until_ended(client, running)
    assert client.get(f"/experiments/{queued}")["runs"] == []


def test_a_deleted_experiment_is_gone_with_its_files(client: Client, lab: Lab) -> None:
    number = client.post("/experiments", small_spec(epochs=1))["id"]
    wait_until_ended(client, number)
    folder = lab.settings.experiments_dir / str(number)
    assert folder.is_dir()
    client.delete(f"/experiments/{number}")
    assert not folder.exists()
    with pytest.raises(Problem) as caught:
        client.get(f"/experiments/{number}")
    assert caught.value.status == 404


def test_a_running_experiment_is_not_deleted(client: Client) -> None:
    number = client.post("/experiments", long_spec())["id"]
    wait_for_epochs(client, number, 1)
    with pytest.raises(Problem) as caught:
        client.delete(f"/experiments/{number}")
    assert caught.value.status == 409
    client.post(f"/experiments/{number}/cancel")
    wait_until_ended(client, number)


def test_one_idempotency_key_makes_one_experiment(client: Client) -> None:
    headers = {"Idempotency-Key": "the same"}
    first = client.post("/experiments", small_spec(epochs=1), headers=headers)
    again = client.post("/experiments", small_spec(epochs=1), headers=headers)
    assert first["id"] == again["id"]
    with pytest.raises(Problem) as caught:
        client.post("/experiments", small_spec(epochs=2), headers=headers)
    assert caught.value.status == 422


def test_a_wrong_spec_names_the_field_and_the_nearest_value_and_stores_nothing(client: Client) -> None:
    before = client.get("/experiments", limit=1)["total"]
    with pytest.raises(Problem) as caught:
        client.post("/experiments", small_spec(model="baselin"))
    assert caught.value.status == 422
    assert caught.value.document["errors"][0]["field"] == "model.name"
    assert caught.value.document["errors"][0]["nearest"] == "baseline"
    assert client.get("/experiments", limit=1)["total"] == before


def test_the_lab_is_healthy_and_ready(lab: Lab) -> None:
    assert httpx.get(f"{lab.url}/healthz").status_code == 200
    ready = httpx.get(f"{lab.url}/readyz")
    assert ready.status_code == 200, ready.text


def test_what_a_lab_leaves_on_the_disk_is_its_users_alone(lab: Lab, completed: int) -> None:
    paths = [lab.settings.data_dir, *lab.settings.data_dir.rglob("*")]
    assert any(path.name.startswith("weights-best") for path in paths)
    open_to_others = [path for path in paths if path.lstat().st_mode & 0o077 and not path.is_symlink()]
    assert open_to_others == []
