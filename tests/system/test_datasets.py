"""A folder of photos, uploaded, imported, trained on and asked about, in the real lab."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.cli.client import Client, Problem
from service.lab.lab import Lab
from tests.processes import wait_until
from tests.system.experiments import wait_until_ended

pytestmark = pytest.mark.timeout(300)
SIDE = 20


def write_photos(folder: Path) -> None:
    """Gray pictures of two shapes and sizes, with what other programs leave beside them."""
    generator = np.random.default_rng(0)
    for name, bright in (("dark ones", 60), ("bright ones", 190)):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            pixels = generator.normal(bright, 15, (SIDE, SIDE + number % 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"photo {number}.png")
    (folder / "dark ones" / ".DS_Store").write_bytes(b"x")
    (folder / "dark ones" / "broken.png").write_bytes(b"no picture at all")
    (folder / "Thumbs.db").write_bytes(b"x")


def run(lab: Lab, *arguments: str) -> Any:
    command = [sys.executable, "-m", "epochal", *arguments, "--url", lab.url, "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def photos(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("own") / "shades"
    write_photos(folder)
    planned = run(lab, "data", "add", str(folder), "--dry-run")
    assert planned["num_images"] == 49  # names alone do not say that one is broken
    made: dict[str, Any] = run(lab, "data", "add", str(folder), "--image-size", str(SIDE))
    assert made["status"] == "ready", made["reason"]
    return made


@pytest.fixture(scope="module")
def trained(photos: dict[str, Any], client: Client) -> dict[str, Any]:
    spec = {
        "model": {"blocks": [{"convs": [{"channels": 4}]}], "head": {"hidden": [8]}},
        "dataset": {"name": "shades", "fingerprint": photos["fingerprint"][:12], "evaluate_test": True},
        "optimizer": {"name": "adam", "lr": 0.01},
        "epochs": 12,
        "batch_size": 8,
    }
    ended = wait_until_ended(client, client.post("/experiments", spec)["id"])
    assert ended["status"] == "completed", ended["reason"]
    return ended


def test_a_folder_becomes_a_dataset_and_the_broken_file_is_named(photos: dict[str, Any]) -> None:
    assert (photos["num_images"], photos["channels"], photos["image_size"]) == (48, 1, SIDE)
    assert [one["name"] for one in photos["classes"]] == ["bright ones", "dark ones"]
    assert [one["file"] for one in photos["skipped"]] == ["dark ones/broken.png"]


def test_an_experiment_trains_on_it_and_everything_else_follows(
    photos: dict[str, Any], trained: dict[str, Any], client: Client, lab: Lab, tmp_path: Path
) -> None:
    number = trained["id"]
    assert trained["spec"]["dataset"]["fingerprint"] == photos["fingerprint"]
    assert trained["best"]["val_accuracy"]["value"] >= 0.9
    assert trained["test"]["accuracy"] >= 0.9
    assert client.get(f"/experiments/{number}/verdict")["summary"]
    assert client.get(f"/experiments/{number}/confusion", split="test")["class_names"] == ["bright ones", "dark ones"]
    for picture in ("kernels.png", "curves.png", "confusion.png", "images/test/0.png"):
        assert client.get_bytes(f"/experiments/{number}/{picture}")
    Image.fromarray(np.full((33, 40), 200, np.uint8)).save(tmp_path / "new.png")
    answer = client.post_images(f"/experiments/{number}/predictions", [tmp_path / "new.png"])
    assert answer["predictions"][0]["label"] == "bright ones"


def test_a_dry_run_and_a_learning_rate_test_use_it_too(photos: dict[str, Any], client: Client) -> None:
    spec = {"model": {"blocks": [{"convs": [{"channels": 4}]}]}, "dataset": {"name": "shades"}, "batch_size": 8}
    measured = client.post("/experiments", spec, dry_run="true")
    assert measured["finite"]
    test = client.post("/learning-rate-tests", {**spec, "steps": 10})
    path = f"/learning-rate-tests/{test['id']}"
    wait_until(lambda: client.get(path)["status"] in ("completed", "failed"), 60.0, "the learning-rate test")
    assert client.get(path)["status"] == "completed", client.get(path)["reason"]


def test_what_training_sees_is_drawn_by_a_worker(photos: dict[str, Any], client: Client) -> None:
    plain = client.get_bytes("/datasets/shades/augmented.png", spec='{"model": "baseline"}')
    turned = client.get_bytes(
        "/datasets/shades/augmented.png", spec='{"model": "baseline", "augmentation": {"rotation_degrees": 90}}'
    )
    assert Image.open(io.BytesIO(plain)).size == Image.open(io.BytesIO(turned)).size
    assert plain != turned


def test_a_worker_checks_the_images_and_says_what_it_found(photos: dict[str, Any], lab: Lab) -> None:
    found = run(lab, "data", "health", "shades", "--version", str(photos["version"]))
    assert found["status"] == "ready", found["reason"]
    assert found["report"]["num_images"] == 48
    assert all(one["sentence"] and one["code"] for one in found["report"]["findings"])


def test_relabelled_and_dropped_images_are_a_new_version_and_the_old_one_stays(
    photos: dict[str, Any], client: Client
) -> None:
    changed = client.post("/datasets/shades/relabel", {"images": [{"id": 0, "label": "dark ones"}]})
    assert (changed["version"], changed["made_of"]) == (photos["version"] + 1, photos["version"])

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get("/datasets/shades", version=changed["version"])
        return found if found["status"] != "importing" else None

    ready = wait_until(ended, 60.0, "the changed version")
    assert ready["status"] == "ready", ready["reason"]
    assert ready["num_images"] == 48
    assert ready["fingerprint"] != photos["fingerprint"]
    assert client.get("/datasets/shades/images", limit=1)["items"][0]["label"] == "dark ones"
    dropped = client.post("/datasets/shades/drop", {"images": [0, 1, 47]})
    found = wait_until(
        lambda: (made := client.get("/datasets/shades", version=dropped["version"]))["status"] != "importing" and made,
        60.0,
        "the version without three images",
    )
    assert found["num_images"] == 45, found["reason"]
    assert client.get("/datasets/shades", version=photos["version"])["fingerprint"] == photos["fingerprint"]


def test_an_import_that_loses_its_process_is_done_again(client: Client, lab: Lab) -> None:
    """Its worker is asked for by the database alone; the process that imports is killed under it."""
    import psutil

    from tests.service.datasets.photos import photos as archive

    body = archive({f"class {number}": 40 for number in range(12)}, side=96)
    upload = client.request(
        "POST",
        "/uploads",
        headers={
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(len(body)),
            "Content-Type": "application/offset+octet-stream",
        },
        content=body,
    ).headers["Location"]
    client.post("/datasets", name="killed", upload=upload.rpartition("/")[2])
    staging = lab.settings.datasets_dir / ".jobs"
    wait_until(lambda: any(staging.glob("*/.dataset.importing")), 30.0, "the import to begin")
    workers = [psutil.Process(part.pid) for part in lab.parts if part.name.startswith("worker") and part.pid]
    for process in [child for worker in workers for child in worker.children(recursive=True)]:
        if process.is_running() and process.parent() and process.parent().parent() in workers:
            process.kill()
    found = wait_until(
        lambda: (made := client.get("/datasets/killed"))["status"] != "importing" and made, 100.0, "the import"
    )
    assert (found["status"], found["num_images"]) == ("ready", 480), found["reason"]
    client.delete("/datasets/killed")
    wait_until(lambda: not any((lab.settings.uploads_dir).glob("*.archive")), 30.0, "the archive to go")


def test_deleting_is_refused_for_none_but_those_in_use(photos: dict[str, Any], client: Client) -> None:
    with pytest.raises(Problem, match="built in"):
        client.delete("/datasets/cifar10")
