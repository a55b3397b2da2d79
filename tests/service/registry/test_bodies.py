"""Images in whatever body they come: parts of a form, one as it is, a zip; the answers are the same."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.service.lab_of_one import Filled, client_of, settings_in
from tests.service.predictions.pictures import encode, gradient
from tests.service.predictions.trained import Lab
from tests.service.registry.test_routes import API, MODELS, finish, put

UPRIGHT = encode(Image.fromarray(gradient()), "PNG")
MIRRORED = encode(Image.fromarray(gradient()[:, ::-1].copy()), "JPEG")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a lab in which experiment 1 is the model `cats`."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("bodies")))
    number = finish(filled, Lab(filled.store, filled.settings).train())
    with client_of(filled.settings) as client:
        assert put(client, "cats", number).status_code == 201
        yield client
    filled.store.dispose()


@pytest.fixture(params=[f"{API}/experiments/1/predictions", f"{MODELS}/cats/predictions"], ids=["experiment", "model"])
def address(request: pytest.FixtureRequest) -> str:
    """Where predictions are asked for."""
    return str(request.param)


def send(client: TestClient, address: str, body: bytes, kind: str) -> Any:
    return client.post(address, content=body, headers={"Content-Type": kind})


def make_zip(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return out.getvalue()


def test_forms_raw_images_and_zips_get_the_same_answers(client: TestClient, address: str) -> None:
    form = client.post(address, files=[("image", ("a.png", UPRIGHT)), ("image", ("b/c.jpg", MIRRORED))]).json()
    zipped = send(client, address, make_zip(a=UPRIGHT, b__c=MIRRORED), "application/zip")
    assert zipped.status_code == 200, zipped.text
    assert [one["image"] for one in zipped.json()["predictions"]] == ["a", "b/c"]
    alone = [send(client, address, UPRIGHT, "image/png"), send(client, address, MIRRORED, "Image/JPEG; q=1")]
    assert [answer.status_code for answer in alone] == [200, 200]
    assert [answer.json()["predictions"][0]["image"] for answer in alone] == ["image 1", "image 1"]
    wanted = [one["top"] for one in form["predictions"]]
    assert wanted[0] != wanted[1]
    assert [one["top"] for one in zipped.json()["predictions"]] == wanted
    assert [answer.json()["predictions"][0]["top"] for answer in alone] == wanted


def test_the_milliseconds_of_decoding_waiting_and_the_network_are_told(client: TestClient, address: str) -> None:
    timings = send(client, address, UPRIGHT, "image/png").json()["timings"]
    assert set(timings) == {"decode_ms", "wait_ms", "forward_ms"}
    assert all(value >= 0 for value in timings.values())
    assert timings["forward_ms"] > 0
    many = send(client, address, make_zip(**{f"n{n}": MIRRORED for n in range(20)}), "application/zip").json()
    assert many["timings"]["decode_ms"] > 0


def test_what_is_no_image_is_named_and_nothing_is_half_answered(client: TestClient, address: str) -> None:
    for body, kind, index in (
        (b"", "image/png", 0),
        (b"no image", "image/jpeg", 0),
        (make_zip(a=UPRIGHT, notes=b"read me"), "application/zip", 1),
        (make_zip(a=UPRIGHT, cut=UPRIGHT[:-30]), "application/x-zip-compressed", 1),
    ):
        answer = send(client, address, body, kind)
        assert (answer.status_code, answer.json()["code"]) == (422, "unreadable-image"), answer.text
        assert answer.json()["index"] == index
    named = send(client, address, make_zip(a=UPRIGHT, notes=b"x"), "application/zip").json()
    assert named["image"] == "notes"


def test_hostile_zips_are_refused_and_the_member_is_named(client: TestClient, address: str) -> None:
    inner = make_zip(a=UPRIGHT)
    for body, status, name in (
        (make_zip(a=UPRIGHT, inner=inner), 422, "'inner'"),
        (make_zip(a=UPRIGHT, **{"..__b": UPRIGHT}), 422, "'../b'"),
        (make_zip(__etc__b=UPRIGHT), 422, "'/etc/b'"),
        (make_zip(**{f"n{n}": b"" for n in range(257)}), 413, "'n256'"),
        (b"PK\x03\x04 not really", 400, ""),
    ):
        answer = send(client, address, body, "application/zip")
        assert answer.status_code == status, answer.text
        assert name in answer.json()["detail"]
        assert "predictions" not in answer.json()


def test_a_bomb_is_refused_before_it_is_unpacked(client: TestClient, address: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.bmp", "w") as member:
        for _ in range(80):
            member.write(bytes(1_000_000))
    assert len(out.getvalue()) < 100_000
    answer = send(client, address, out.getvalue(), "application/zip")
    assert answer.status_code == 413
    assert "'bomb.bmp' (80,000,000 bytes)" in answer.json()["detail"]


def test_any_other_body_says_what_is_taken(client: TestClient, address: str) -> None:
    for kind in ("application/json", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded", ""):
        answer = send(client, address, UPRIGHT, kind)
        assert answer.status_code == 415, kind
        for taken in ("multipart/form-data", "image/png", "application/zip"):
            assert taken in answer.json()["fix"]
