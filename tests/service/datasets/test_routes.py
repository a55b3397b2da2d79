"""Datasets over HTTP: uploaded, imported, listed, looked at, changed, deleted; specs name their versions."""

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.data.health.report import Finding, HealthReport, Severity
from models.data.health.stored import StoredCheck, write_check
from models.data.uploaded import health_folder
from models.errors import ProblemJson
from models.settings import Settings
from models.store import Status, datasets, experiments, keys
from models.store.states import Role
from service.app import create_app
from tests.service.datasets.photos import CLASSES, do_jobs, photos, picture
from tests.service.lab_of_one import Filled, LiveServer, client_of, settings_in

API = "/api/v1"
ZIP = {"Content-Type": "application/zip"}
SPEC = {"model": {"blocks": [{"convs": [{"channels": 2}]}]}, "dataset": {"name": "photos"}}


def upload(client: TestClient, name: str = "photos", body: bytes | None = None, **query: Any) -> Any:
    return client.post(
        f"{API}/datasets", params={"name": name, **query}, content=photos() if body is None else body, headers=ZIP
    )


def num_classes(filled: Filled, experiment_id: int) -> int:
    """How many outputs the network of an experiment has."""
    with filled.store.reading() as session:
        layers = experiments.get(session, experiment_id).layers
    assert layers
    return int(layers[-1]["output_shape"][-1])


@pytest.fixture(scope="module")
def photo_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Filled]]:
    """A lab with the dataset `photos`, shared by tests that change nothing."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("photos")))
    with client_of(filled.settings) as client:
        junk = {"cat/.DS_Store": b"x", "cat/broken.png": b"no picture", "__MACOSX/cat/._0.png": b"y"}
        assert upload(client, body=photos(also=junk)).status_code == 202
        do_jobs(filled)
        yield client, filled
    filled.store.dispose()


def test_an_upload_is_accepted_then_imported_then_ready(client: TestClient, filled: Filled) -> None:
    answer = upload(client)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{API}/datasets/photos"
    first = answer.json()
    assert (first["name"], first["version"], first["status"]) == ("photos", 1, "importing")
    assert do_jobs(filled) == 1
    ready = client.get(answer.headers["Location"]).json()
    assert ready["status"] == "ready"
    assert [(one["name"], one["train"] + one["test"]) for one in ready["classes"]] == list(CLASSES.items())
    assert ready["num_images"] == 20
    assert len(ready["fingerprint"]) == 64
    assert ready["image_size"] == 12
    assert [one["version"] for one in ready["versions"]] == [1]


def test_skipped_files_are_named_with_the_reason(photo_lab: tuple[TestClient, Filled]) -> None:
    client, _ = photo_lab
    found = client.get(f"{API}/datasets/photos").json()
    assert [(one["file"], bool(one["reason"])) for one in found["skipped"]] == [("cat/broken.png", True)]


def test_the_list_has_built_in_and_uploaded_datasets(photo_lab: tuple[TestClient, Filled]) -> None:
    client, _ = photo_lab
    listed = {item["name"]: item for item in client.get(f"{API}/datasets").json()["datasets"]}
    assert listed["cifar10"]["built_in"]
    assert listed["cifar10"]["num_classes"] == 10
    assert not listed["photos"]["built_in"]
    assert listed["photos"]["class_names"] == ["cat", "dog"]
    assert listed["photos"]["status"] == "ready"


def test_a_form_is_read_as_it_arrives(client: TestClient, filled: Filled) -> None:
    answer = client.post(f"{API}/datasets?name=formed", files={"file": ("my photos.zip", photos(), "application/zip")})
    assert answer.status_code == 202, answer.text
    assert do_jobs(filled) == 1
    assert client.get(f"{API}/datasets/formed").json()["num_images"] == 20


@pytest.mark.parametrize("name", ["", "9lives", "a/b", "..", "cifar10", "CIFAR10", "a" * 65, "photos\n", "ünïcode"])
def test_what_cannot_be_a_name_is_refused_before_the_body_is_read(
    client: TestClient, filled: Filled, name: str
) -> None:
    answer = upload(client, name=name)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "name"
    assert not list(filled.settings.uploads_dir.glob("*"))


def test_a_group_that_is_no_regular_expression_is_named_with_what_is_wrong_in_it(client: TestClient) -> None:
    answer = upload(client, group="(").json()
    assert answer["detail"].startswith("group: '(' is not a regular expression: ")
    assert answer["errors"][0]["field"] == "group"
    assert upload(client, group="").json()["errors"][0]["field"] == "group"


@pytest.mark.parametrize("given", [1, ["cifar10"], "fashion-mnist", {"name": "fashion-mnist"}, None])
def test_what_training_sees_is_of_the_dataset_that_the_address_names(client: TestClient, given: Any) -> None:
    spec = json.dumps({"model": "baseline", "dataset": given})
    answer = client.get(f"{API}/datasets/cifar10/augmented.png", params={"spec": spec})
    assert answer.status_code == 422
    assert "cifar10 as in the address" in answer.json()["detail"]


def test_what_training_sees_is_of_the_version_that_the_spec_names(photo_lab: tuple[TestClient, Filled]) -> None:
    client, _ = photo_lab
    spec = json.dumps({"dataset": {"fingerprint": "abcdef0123"}})
    unknown = client.get(f"{API}/datasets/photos/augmented.png", params={"spec": spec})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "dataset.fingerprint")
    other = client.get(f"{API}/datasets/photos/augmented.png", params={"spec": spec, "version": 1})
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "spec.dataset.fingerprint")


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ("", "spec", "is not valid JSON"),
        ("{", "spec", "is not valid JSON"),
        ("[1]", "spec", "spec must be an object"),
        ('"baseline"', "spec", "spec must be an object"),
        ('{"epochs": NaN}', "spec", "holds NaN"),
        ('{"model": 1, "model": 2}', "spec.model", "is given twice"),
        ("[" * 40 + "]" * 40, "spec.0", "nested deeper"),
        ('{"epochs": 1e999}', "spec", "beyond the range"),
        ('{"model": "\\ud800"}', "spec.model", "spec.model: "),
    ],
)
def test_a_spec_in_the_address_is_named_as_such_where_it_is_wrong(
    client: TestClient, spec: str, field: str, said: str
) -> None:
    answer = client.get(f"{API}/datasets/cifar10/augmented.png", params={"spec": spec})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert "body" not in answer.text


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", ZIP, 422),
        (photos(), {"Content-Type": "text/plain"}, 415),
        (photos(), {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        (b"", {"Content-Type": "multipart/form-data"}, 400),
        (
            b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nb\r\n--x--\r\n',
            {"Content-Type": "multipart/form-data; boundary=x"},
            422,
        ),
    ],
)
def test_a_body_that_is_no_upload_leaves_nothing_behind(
    client: TestClient, filled: Filled, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client.post(f"{API}/datasets?name=photos", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert client.get(f"{API}/datasets/photos").status_code == 404
    assert not list(filled.settings.uploads_dir.glob("*"))


def test_a_failed_import_says_which_file_and_why_and_may_be_sent_again(client: TestClient, filled: Filled) -> None:
    upload(client, body=photos({"only": 3}))
    do_jobs(filled)
    failed = client.get(f"{API}/datasets/photos").json()
    assert failed["status"] == "failed"
    assert "one class only" in failed["reason"]["detail"]
    refused = client.post(f"{API}/experiments", json=SPEC)
    assert refused.status_code == 409
    assert "one class only" in refused.json()["detail"]
    assert upload(client).json()["version"] == 2


def test_of_two_uploads_of_one_name_one_wins(client: TestClient, filled: Filled) -> None:
    assert upload(client).status_code == 202
    second = upload(client)
    assert second.status_code == 409
    assert "is being imported" in second.json()["detail"]
    do_jobs(filled)
    third = upload(client)
    assert third.status_code == 409
    assert "PUT" in third.json()["fix"]
    assert upload(client, name="Photos").status_code == 409
    assert len(list(filled.settings.uploads_dir.glob("*.archive"))) <= 1


def test_of_many_uploads_of_one_name_at_once_one_wins(settings: Settings, filled: Filled) -> None:
    bodies = [photos({"cat": 3, "dog": 3}, first=100 * number) for number in range(6)]
    with LiveServer(create_app(settings)) as server, ThreadPoolExecutor(len(bodies)) as pool:

        def send(body: bytes) -> tuple[int, str]:
            address = f"{server.url}{API}/datasets?name=photos"
            answer = httpx.post(address, content=pieces(body, together), headers=ZIP, timeout=60)
            return answer.status_code, answer.json().get("detail", "")

        together = threading.Barrier(len(bodies))  # every body has begun before any has ended
        answers = sorted(pool.map(send, bodies))
    assert [status for status, _ in answers] == [202, 409, 409, 409, 409, 409]
    assert all("is being imported" in detail for status, detail in answers if status == 409)
    assert len(list(settings.uploads_dir.glob("*"))) == 1, "archives of those that lost are removed"
    assert do_jobs(filled) == 1
    with filled.store.reading() as session:
        assert [found.version for found in datasets.list_versions(session, "photos")] == [1]


def pieces(body: bytes, together: threading.Barrier) -> Iterator[bytes]:
    """A body in two halves."""
    yield body[: len(body) // 2]
    together.wait(30)
    yield body[len(body) // 2 :]


def test_put_makes_the_next_version_and_the_one_before_stays(client: TestClient, filled: Filled) -> None:
    upload(client)
    do_jobs(filled)
    answer = client.put(f"{API}/datasets/photos", content=photos({"cat": 6, "emu": 6}, first=900), headers=ZIP)
    assert answer.status_code == 202
    assert client.get(f"{API}/datasets/photos").json()["version"] == 1  # the newest that is ready
    do_jobs(filled)
    assert client.get(f"{API}/datasets/photos").json()["version"] == 2
    before = client.get(f"{API}/datasets/photos?version=1").json()
    assert [one["name"] for one in before["classes"]] == ["cat", "dog"]
    assert client.get(f"{API}/datasets/photos/images?version=1&class=dog").json()["total"] == 8


def test_a_spec_names_the_version_by_its_fingerprint(client: TestClient, filled: Filled) -> None:
    upload(client)
    waiting = client.post(f"{API}/experiments", json=SPEC)
    assert waiting.status_code == 409
    assert "still being imported" in waiting.json()["detail"]
    do_jobs(filled)
    first = client.get(f"{API}/datasets/photos").json()["fingerprint"]
    stored = client.post(f"{API}/experiments", json=SPEC)
    assert stored.status_code == 202, stored.text
    spec = stored.json()["spec"]
    assert spec["dataset"]["fingerprint"] == first
    client.put(f"{API}/datasets/photos", content=photos({"cat": 6, "emu": 6, "yak": 6}, first=900), headers=ZIP)
    do_jobs(filled)
    again = client.post(f"{API}/experiments", json=spec).json()
    assert again["spec"] == spec
    assert num_classes(filled, again["id"]) == 2
    newest = client.post(f"{API}/experiments", json=SPEC).json()
    assert newest["spec"]["dataset"]["fingerprint"] != first
    assert num_classes(filled, newest["id"]) == 3
    short = client.post(f"{API}/experiments", json={**SPEC, "dataset": {"name": "photos", "fingerprint": first[:8]}})
    assert short.json()["spec"]["dataset"]["fingerprint"] == first


@pytest.mark.parametrize(
    ("dataset", "field"),
    [
        ({"name": "photo"}, "dataset.name"),
        ({"name": "photos", "fingerprint": "0" * 64}, "dataset.fingerprint"),
        ({"name": "photos", "fingerprint": "nothex!!"}, "dataset.fingerprint"),
        ({"name": "cifar10", "fingerprint": "0" * 64}, "dataset.fingerprint"),
    ],
)
def test_a_version_that_there_is_not_is_refused_by_its_field(
    photo_lab: tuple[TestClient, Filled], dataset: dict[str, str], field: str
) -> None:
    client, _ = photo_lab
    answer = client.post(f"{API}/experiments?dry_run=false", json={**SPEC, "dataset": dataset})
    assert answer.status_code == 422, answer.text
    assert [entry["field"] for entry in answer.json()["errors"]] == [field]


def test_a_dataset_that_an_experiment_waits_for_cannot_be_deleted(client: TestClient, filled: Filled) -> None:
    upload(client)
    do_jobs(filled)
    number = client.post(f"{API}/experiments", json=SPEC).json()["id"]
    refused = client.delete(f"{API}/datasets/photos")
    assert refused.status_code == 409
    assert refused.json()["experiments"] == [number]
    client.post(f"{API}/experiments/{number}/cancel")
    assert client.delete(f"{API}/datasets/photos").status_code == 204
    assert client.get(f"{API}/datasets/photos").status_code == 404
    assert not list(filled.settings.datasets_dir.rglob("*.npy"))
    again = client.post(f"{API}/experiments/{number}/resume")
    assert again.status_code == 409
    assert "was deleted" in again.json()["detail"]


def test_a_dataset_that_a_study_will_train_on_cannot_be_deleted(client: TestClient, filled: Filled) -> None:
    upload(client)
    do_jobs(filled)
    variants = [{"key": "low", "title": "A lower rate", "overrides": {"optimizer": {"lr": 0.001}}}]
    study = {"title": "Which rate?", "question": "Is less more?", "base": SPEC, "variants": variants}
    made = client.post(f"{API}/studies", json={**study, "seeds": 2})
    assert made.status_code == 202, made.text
    for number in client.delete(f"{API}/datasets/photos").json()["experiments"]:
        client.post(f"{API}/experiments/{number}/cancel")  # and the study goes on with the next seed
    refused = client.delete(f"{API}/datasets/photos")
    assert refused.status_code == 409
    assert refused.json()["studies"] == [made.json()["id"]]
    client.post(f"{API}/studies/{made.json()['id']}/cancel")
    assert client.delete(f"{API}/datasets/photos").status_code == 204


def test_deleting_while_it_is_imported_takes_the_job_away(client: TestClient, filled: Filled) -> None:
    upload(client)
    with filled.store.writing() as session:
        claim = datasets.claim_next(session, "worker-1")
    assert claim is not None
    assert client.delete(f"{API}/datasets/photos").status_code == 204
    with filled.store.writing() as session:
        assert not datasets.beat(session, claim)
        assert datasets.finish(session, claim, fingerprint="f", num_bytes=1, info={}, report={}) is None
    assert upload(client).json()["version"] == 1


def test_deleting_before_its_import_begins_leaves_no_archive(client: TestClient, filled: Filled) -> None:
    before = set(filled.settings.uploads_dir.glob("*"))
    upload(client)
    upload(client, "others")
    assert len(set(filled.settings.uploads_dir.glob("*")) - before) == 2
    assert client.delete(f"{API}/datasets/photos/versions/1").status_code == 204
    assert client.delete(f"{API}/datasets/others").status_code == 204
    assert set(filled.settings.uploads_dir.glob("*")) == before


def test_images_are_listed_by_class_and_split_in_pages(photo_lab: tuple[TestClient, Filled]) -> None:
    client, _ = photo_lab
    everything = client.get(f"{API}/datasets/photos/images?limit=7").json()
    assert (everything["total"], everything["pages"], len(everything["items"])) == (20, 3, 7)
    cats = client.get(f"{API}/datasets/photos/images", params={"class": "cat"}).json()
    assert cats["total"] == 12
    assert {item["label"] for item in cats["items"]} == {"cat"}
    assert all(item["file"].startswith("cat/") for item in cats["items"])
    test = client.get(f"{API}/datasets/photos/images?split=test").json()
    assert {item["split"] for item in test["items"]} == {"test"}
    last = test["items"][-1]
    shown = client.get(last["links"]["image"] + "&scale=3")
    assert Image.open(io.BytesIO(shown.content)).size == (36, 36)
    again = client.get(last["links"]["image"] + "&scale=3", headers={"If-None-Match": shown.headers["ETag"]})
    assert again.status_code == 304
    assert client.get(f"{API}/datasets/photos/images/20.png").status_code == 404
    assert client.get(f"{API}/datasets/photos/images", params={"class": "cow"}).status_code == 422


ODD = (
    "a b",
    "50% & more",
    "x+y=z",
    "#1?",
    "é",
    "e\u0301\u0302",
    "猫/no".replace("/", "-"),
    "line\nbreak",
    "'quoted\"",
    "<b>",
    "train",
)


def test_classes_of_any_name_are_listed_by_their_name(client: TestClient, filled: Filled) -> None:
    upload(client, body=photos(dict.fromkeys(ODD, 2)), test_fraction=0)
    do_jobs(filled)
    document = client.get(f"{API}/datasets/photos").json()
    names = [one["name"] for one in document["classes"]]
    assert len(names) == len(ODD)
    for name in names:
        for address in (f"{API}/datasets/photos/images", "/datasets/photos"):
            for query in (quote(name, safe=""), quote(name, safe="").replace("%20", "+")):
                answer = client.get(f"{address}?class={query}")
                assert answer.status_code == 200, (address, query, answer.text)
        found = client.get(f"{API}/datasets/photos/images", params={"class": name}).json()
        assert (found["total"], {one["label"] for one in found["items"]}) == (2, {name})
    page = client.get("/datasets/photos").text
    assert "<b>" not in page
    missing = client.get(f"{API}/datasets/photos/images", params={"class": "no&thing"})
    assert missing.status_code == 422
    assert missing.json()["errors"][0]["choices"] == names


def test_pages_follow_each_other_without_gaps_in_the_order_of_ids(client: TestClient, filled: Filled) -> None:
    given = {
        f"{split}/{name}/{n}.png": picture(hash_of(split, name, n), 8)
        for split, count in (("train", 7), ("valid", 3), ("test", 2))
        for name in ("cat", "dog")
        for n in range(count)
    }
    upload(client, body=photos({}, also=given))
    do_jobs(filled)
    everything = client.get(f"{API}/datasets/photos/images?limit=200").json()
    assert [one["id"] for one in everything["items"]] == list(range(24))
    splits = {one["id"]: one["split"] for one in everything["items"]}
    for one in everything["items"]:
        assert one["file"].split("/")[0] == {"validation": "valid"}.get(one["split"], one["split"])
    for query in ("", "&split=train", "&split=validation", "&split=test", "&split=validation&class=dog"):
        ids: list[int] = []
        page = 1
        while found := client.get(f"{API}/datasets/photos/images?limit=4&page={page}{query}").json():
            assert found["pages"] == max(1, -(-found["total"] // 4))
            if not found["items"]:
                break
            ids += [one["id"] for one in found["items"]]
            page += 1
        assert ids == sorted(set(ids))
        assert len(ids) == found["total"]
        assert "split=" not in query or {splits[one] for one in ids} == {query.split("split=")[1].split("&")[0]}
    counted = client.get(f"{API}/datasets/photos").json()["classes"][1]
    assert (counted["train"], counted["validation"], counted["test"]) == (7, 3, 2)
    assert len(ids) == 3


def hash_of(split: str, name: str, number: int) -> int:
    """A seed of its own for each picture."""
    return 100 * len(split) + 10 * number + len(name) + ord(name[0])


def test_the_images_are_those_that_were_sent(photo_lab: tuple[TestClient, Filled]) -> None:
    client, _ = photo_lab
    import zipfile

    archive = zipfile.ZipFile(io.BytesIO(photos()))
    for item in client.get(f"{API}/datasets/photos/images").json()["items"]:
        sent = np.asarray(Image.open(archive.open(item["file"])))
        kept = np.asarray(Image.open(io.BytesIO(client.get(item["links"]["image"]).content)))
        assert (sent == kept).all(), item


def test_relabelled_and_dropped_images_are_refused_by_their_ids(photo_lab: tuple[TestClient, Filled]) -> None:
    client, _ = photo_lab
    for where, body, field in (
        ("relabel", {"images": [{"id": 0, "label": "cow"}]}, "images.0.label"),
        ("relabel", {"images": [{"id": 20, "label": "cat"}]}, "images.0.id"),
        ("relabel", {"images": [{"id": 3, "label": "dog"}, {"id": 3, "label": "cat"}]}, "images.1.id"),
        ("drop", {"images": [0, 20]}, "images.1"),
        ("drop", {"images": [-1]}, "images.0"),
        ("drop", {"images": [4, 5, 4]}, "images.2"),
        ("drop", {"images": []}, "images"),
        ("drop", {"pictures": [1]}, "images"),
    ):
        answer = client.post(f"{API}/datasets/photos/{where}", json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.json()["errors"][0]["field"] == field
    assert client.post(f"{API}/datasets/cifar10/drop", json={"images": [1]}).status_code == 409


def test_what_would_leave_too_little_is_refused_at_once_with_what_would_be_left(
    photo_lab: tuple[TestClient, Filled],
) -> None:
    client, _ = photo_lab
    ids: dict[str, list[int]] = {"cat": [], "dog": [], "train": [], "test": []}
    for one in client.get(f"{API}/datasets/photos/images").json()["items"]:
        ids[one["label"]].append(one["id"])
        ids[one["split"]].append(one["id"])
    for where, images, left in (
        ("drop", list(range(20)), "none of the 20 images would be left"),
        ("drop", ids["dog"], "only 'cat' (12 images) would have images left"),
        ("drop", ids["train"], "the training split would have images of fewer than two classes: none"),
        ("relabel", [{"id": one, "label": "dog"} for one in ids["cat"]], "only 'dog' (20 images)"),
    ):
        answer = client.post(f"{API}/datasets/photos/{where}", json={"images": images})
        assert answer.status_code == 409, (where, answer.text)
        assert left in answer.json()["detail"]
        assert answer.json()["fix"]
    assert [one["version"] for one in client.get(f"{API}/datasets/photos").json()["versions"]] == [1]


def test_health_is_being_checked_until_a_worker_has_done_it(client: TestClient, filled: Filled) -> None:
    upload(client)
    assert client.get(f"{API}/datasets/photos/health").status_code == 409
    do_jobs(filled)
    answer = client.get(f"{API}/datasets/photos/health")
    assert (answer.status_code, answer.json()["status"]) == (202, "checking")
    leak = Finding("duplicates.leakage", Severity.PROBLEM, "3 test images are copies", image_ids=[1], num_images=3)
    do_jobs(filled)
    folder = filled.settings.datasets_dir / "photos" / "1"
    write_check(folder, StoredCheck(HealthReport("f", 10, [leak], None)))
    answer = client.get(f"{API}/datasets/photos/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["report"]["findings"] == [json.loads(json.dumps(asdict(leak)))]
    warned = {
        found["code"]: found["sentence"] for found in client.post(f"{API}/experiments", json=SPEC).json()["warnings"]
    }
    assert warned["dataset-leakage"] == "3 test images are copies."


def test_a_check_that_failed_can_be_asked_for_once_more(client: TestClient, filled: Filled) -> None:
    upload(client)
    do_jobs(filled)
    problem: ProblemJson = {
        "title": "The check was given up",
        "detail": "the process was lost 3 times",
        "fix": "more memory",
    }
    write_check(filled.settings.datasets_dir / "photos" / "1", StoredCheck(problem=problem))
    failed = client.get(f"{API}/datasets/photos/health").json()
    assert (failed["status"], failed["reason"]) == ("failed", problem)
    again = client.post(f"{API}/datasets/photos/health")
    assert (again.status_code, again.json()["status"]) == (202, "checking")
    with filled.store.writing() as session:
        claim = datasets.claim_next(session, "worker-1")
        assert claim is not None
        assert (claim.kind, claim.dataset, claim.version) == ("health", "photos", 1)
        assert datasets.beat(session, claim, {"phase": "looking for copies", "done": 5, "total": 20})
    waiting = client.get(f"{API}/datasets/photos/health").json()
    assert waiting["progress"] == {"phase": "looking for copies", "done": 5, "total": 20, "seconds_left": None}
    assert client.get(f"{API}/datasets/photos").json()["progress"] is None


def test_a_built_in_dataset_is_checked_once_that_is_asked_for(client: TestClient, filled: Filled) -> None:
    known = client.get(f"{API}/datasets/cifar10").json()
    assert "3.25% of the test images are near copies, 286 of a training image" in known["warnings"][0]
    health = known["links"]["health"]
    assert "have not been checked" in client.get("/datasets/cifar10").text
    with filled.store.writing() as session:
        assert datasets.claim_next(session, "worker-1") is None, "a look at its page asks for nothing"
    first = client.get(health)
    assert (first.status_code, first.json()["status"], first.json()["version"]) == (202, "checking", None)
    assert client.get(health).status_code == 202
    with filled.store.writing() as session:
        claim = datasets.claim_next(session, "worker-1")
        assert claim is not None
        assert (claim.kind, claim.dataset) == ("health", "cifar10")
        assert datasets.claim_next(session, "worker-2") is None
        datasets.end_check(session, claim)
    folder = health_folder(filled.settings.datasets_dir, claim.dataset, claim.version)
    folder.mkdir(parents=True)
    write_check(folder, StoredCheck(HealthReport("f", 60_000, [], None)))
    assert client.get(health).json()["report"]["findings"] == []
    assert "Nothing was found" in client.get("/datasets/cifar10").text
    assert client.get(f"{health}?version=1").status_code == 404
    assert [one["name"] for one in client.get(f"{API}/datasets").json()["datasets"] if not one["built_in"]] == []
    assert client.delete(f"{API}/datasets/cifar10").status_code == 409
    assert client.post(f"{API}/datasets?name=cifar10", content=photos(), headers=ZIP).status_code == 422


def test_classes_that_are_made_up_for_twice_are_warned_of(client: TestClient, filled: Filled) -> None:
    upload(client, body=photos({"cat": 40, "dog": 4}))
    do_jobs(filled)
    both = {**SPEC, "class_weights": "balanced", "sampler": "balanced"}
    warnings = client.post(f"{API}/experiments", json=both).json()["warnings"]
    found = next(one for one in warnings if one["code"] == "balanced-twice")
    assert found["changes"] == {"class_weights": None}
    for once in ({"class_weights": "balanced"}, {"sampler": "balanced"}):
        codes = [one["code"] for one in client.post(f"{API}/experiments", json={**SPEC, **once}).json()["warnings"]]
        assert not {"balanced-twice", "uneven-classes"} & set(codes)


def test_classes_of_very_unequal_size_are_warned_of_when_something_is_trained_on_them(
    client: TestClient, filled: Filled
) -> None:
    upload(client, body=photos({"cat": 40, "dog": 4}))
    do_jobs(filled)
    warnings = client.post(f"{API}/experiments", json=SPEC).json()["warnings"]
    found = next(one for one in warnings if one["code"] == "uneven-classes")
    assert "'cat' has 32 training images, 'dog' 3" in found["sentence"]
    assert found["changes"] == {"class_weights": "balanced"}
    weighed = client.post(f"{API}/experiments", json={**SPEC, "class_weights": "balanced"}).json()["warnings"]
    assert "uneven-classes" not in [one["code"] for one in weighed]


def test_a_dataset_without_test_images_is_trained_on_and_not_tested_on(client: TestClient, filled: Filled) -> None:
    upload(client, test_fraction=0)
    do_jobs(filled)
    assert client.get(f"{API}/datasets/photos").json()["num_test"] == 0
    assert client.post(f"{API}/experiments", json=SPEC).status_code == 202
    asked = {**SPEC, "dataset": {"name": "photos", "evaluate_test": True}}
    refused = client.post(f"{API}/experiments", json=asked)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "dataset.evaluate_test"


def test_nobody_may_send_more_than_the_lab_takes(settings: Settings, filled: Filled) -> None:
    small = settings.model_copy(update={"max_dataset_mb": 1})
    with client_of(small) as client:
        announced = upload(client, body=photos(also={"cat/big.png": bytes(2_000_000)}))
        assert announced.status_code == 413

        def chunks() -> Iterator[bytes]:
            for _ in range(30):
                yield bytes(100_000)

        streamed = client.post(f"{API}/datasets?name=photos", content=chunks(), headers=ZIP)
        assert streamed.status_code == 413
    assert not list(filled.settings.uploads_dir.glob("*"))


def test_roles_and_quotas_hold_for_datasets(settings: Settings, filled: Filled) -> None:
    with filled.store.writing() as session:
        _, viewer = keys.create(session, "eve", Role.VIEWER)
        _, submitter = keys.create(session, "ada", Role.SUBMITTER)
    locked = settings.model_copy(update={"auth": True, "max_disk_mb": 1})
    with client_of(locked) as client:
        assert client.get(f"{API}/datasets").status_code == 401
        client.headers["X-API-Key"] = viewer
        assert client.get(f"{API}/datasets").status_code == 200
        for method, path in (
            ("POST", "/datasets?name=photos"),
            ("PUT", "/datasets/photos"),
            ("DELETE", "/datasets/photos"),
            ("POST", "/datasets/photos/drop"),
            ("POST", "/uploads"),
        ):
            assert client.request(method, API + path, content=photos(), headers=ZIP).status_code == 403, path
        client.headers["X-API-Key"] = submitter
        assert upload(client).json()["created_by"] == "ada"
        do_jobs(filled)
        over = upload(client, name="more", body=photos(also={"cat/big.png": bytes(1_000_000)}))
        assert (over.status_code, over.json()["code"]) == (507, "disk-quota")
    assert len(list(settings.uploads_dir.glob("*"))) <= 1


def test_a_built_in_dataset_is_read_like_an_uploaded_one(steady: TestClient) -> None:
    found = steady.get(f"{API}/datasets/cifar10").json()
    assert found["built_in"]
    assert found["num_images"] == 60_000
    assert found["classes"][3]["name"] == "cat"
    assert steady.get(f"{API}/datasets/cifar10?version=1").status_code == 404
    missing = steady.get(f"{API}/datasets/cifar11")
    assert missing.status_code == 404
    assert "cifar10" in missing.json()["detail"]


def test_stability_needs_no_dataset_that_was_deleted(client: TestClient, filled: Filled) -> None:
    upload(client)
    do_jobs(filled)
    numbers = [client.post(f"{API}/experiments", json={**SPEC, "seed": seed}).json()["id"] for seed in (1, 2)]
    for number in numbers:
        with filled.store.writing() as session:
            experiments.request_cancel(session, number)
            assert experiments.get(session, number).status is Status.CANCELLED
    client.delete(f"{API}/datasets/photos")
    answer = client.get(f"{API}/experiments/{numbers[0]}/stability?compare={numbers[1]}")
    assert answer.status_code == 200, answer.text
