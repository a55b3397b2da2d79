"""The pages of datasets, as a browser without scripts uses them."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from models.data.health.report import Finding, HealthReport, Severity
from models.data.health.stored import StoredCheck, write_check
from models.errors import ProblemJson
from models.settings import Settings
from models.store import datasets, keys
from models.store.states import Role
from tests.service.datasets.photos import do_jobs, photos
from tests.service.lab_of_one import BASE_URL, Filled, client_of, settings_in


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Filled]]:
    filled = Filled(settings_in(tmp_path_factory.mktemp("pages")))
    with client_of(filled.settings) as client:
        junk = {"cat/<b>.png": b"no picture"}
        sent = client.post(
            "/datasets",
            data={"name": "photos", "image_size": "10", "fit": "pad"},
            files={"file": ("my photos.zip", photos(also=junk), "application/zip")},
            follow_redirects=False,
        )
        assert (sent.status_code, sent.headers["location"]) == (303, "/datasets/photos")
        assert "importing" in client.get("/datasets/photos").text
        do_jobs(filled)
        yield client, filled
    filled.store.dispose()


def test_a_form_leads_to_the_dataset_which_shows_classes_images_and_what_was_left_out(
    shown: tuple[TestClient, Filled],
) -> None:
    client, _ = shown
    page = client.get("/datasets/photos?class=dog").text
    for words in ("Train on it", "/new?dataset=photos", "8 images of dog", "cat/&lt;b&gt;.png", "10 \u00d7 10 pixels"):
        assert words in page, words
    assert "<b>.png" not in page
    assert 'name="spec"' in client.get("/new?dataset=photos").text
    assert "name: photos" in client.get("/new?dataset=photos").text
    assert "photos" in client.get("/datasets").text
    assert "CIFAR-10" in client.get("/datasets/cifar10").text


def test_what_a_check_found_is_shown_with_the_images_to_look_at(shown: tuple[TestClient, Filled]) -> None:
    client, filled = shown
    do_jobs(filled)  # a page that was looked at has asked for a check
    found = Finding(
        "duplicates.leakage", Severity.PROBLEM, "3 test images are <copies>", image_ids=[4, 7], num_images=3
    )
    plain = Finding("counts.imbalance", Severity.INFO, "cat has most images")
    folder = filled.settings.datasets_dir / "photos" / "1"
    write_check(folder, StoredCheck(HealthReport("f", 20, [found, plain], None)))
    page = client.get("/datasets/photos").text
    for words in ("3 test images are &lt;copies&gt;", "cat has most images", "images/7.png?version=1", ">problem<"):
        assert words in page, words
    problem: ProblemJson = {"title": "The check was given up", "detail": "the process was lost 3 times"}
    write_check(folder, StoredCheck(problem=problem))
    assert "the process was lost 3 times" in client.get("/datasets/photos").text


def test_how_far_a_check_is_and_how_long_its_step_takes_are_shown(shown: tuple[TestClient, Filled]) -> None:
    client, filled = shown
    do_jobs(filled)
    assert client.post("/api/v1/datasets/photos/health").status_code == 202
    assert "waiting for a worker" in client.get("/datasets/photos").text
    with filled.store.writing() as session:
        claim = datasets.claim_next(session, "worker-1")
        assert claim is not None
        datasets.beat(session, claim, {"phase": "judging labels", "done": 3000, "total": 60000, "seconds_left": 120.0})
    page = client.get("/datasets/photos").text
    assert "judging labels, 3\u202f000 of 60\u202f000, about 2 min left of this step" in page
    assert client.get("/api/v1/datasets/photos/health").json()["progress"]["seconds_left"] == 120
    with filled.store.writing() as session:
        datasets.end_check(session, claim)


def test_a_failed_import_says_on_its_page_why(shown: tuple[TestClient, Filled]) -> None:
    client, filled = shown
    files = {"file": ("a.zip", photos({"cat": 2}), "application/zip")}
    client.post("/datasets", data={"name": "one"}, files=files)
    do_jobs(filled)
    assert "there is one class only" in client.get("/datasets/one").text
    assert "failed" in client.get("/datasets").text


def test_a_refused_form_is_shown_again_with_the_reason_and_what_was_written(shown: tuple[TestClient, Filled]) -> None:
    client, filled = shown
    before = set(filled.settings.uploads_dir.glob("*"))
    for data, words in (
        ({"name": "9 lives"}, "begins with a letter"),
        ({"name": "ok", "image_size": "x"}, "image_size"),
    ):
        answer = client.post("/datasets", data=data, files={"file": ("a.zip", photos(), "application/zip")})
        assert answer.status_code == 422
        assert words in answer.text
        assert data["name"] in answer.text
    assert set(filled.settings.uploads_dir.glob("*")) == before


def test_only_who_may_submit_may_upload_and_no_other_site_may(settings: Settings, filled: Filled) -> None:
    with filled.store.writing() as session:
        _, viewer = keys.create(session, "eve", Role.VIEWER)
    with client_of(settings.model_copy(update={"auth": True})) as client:
        files = {"file": ("a.zip", photos(), "application/zip")}
        login = client.post("/datasets", files=files, follow_redirects=False)
        assert login.status_code == 303
        assert login.headers["location"].startswith("/login")
        client.headers["X-API-Key"] = viewer
        assert client.post("/datasets", files=files).status_code == 403
    with client_of(settings) as client:
        foreign = client.post("/datasets", files=files, headers={"Origin": "http://evil.example", "Host": BASE_URL[7:]})
        assert foreign.status_code == 403
