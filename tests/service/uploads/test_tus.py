"""Uploads by the tus protocol: a real client's, broken ones that go on, and what is refused."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from tusclient.client import TusClient

from models import uploads
from models.settings import Settings
from models.store import datasets, keys
from models.store.states import DatasetStatus, Role
from service.app import create_app
from tests.service.datasets.photos import do_jobs, photos
from tests.service.lab_of_one import Filled, LiveServer, client_of, settings_in

API = "/api/v1"
TUS = {"Tus-Resumable": "1.0.0"}
BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Filled]]:
    filled = Filled(settings_in(tmp_path_factory.mktemp("uploads")))
    with LiveServer(create_app(filled.settings)) as server:
        yield server.url, filled
    filled.store.dispose()


def begin(client: Any, length: int, **headers: str) -> str:
    answer = client.post(f"{API}/uploads", headers={**TUS, "Upload-Length": str(length), **headers})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])


def append(client: Any, address: str, offset: int, data: bytes, **headers: str) -> Any:
    return client.patch(address, headers={**BODY, "Upload-Offset": str(offset), **headers}, content=data)


def offset_of(client: Any, address: str) -> int:
    answer = client.head(address, headers=TUS)
    assert answer.status_code == 200, answer.text
    return int(answer.headers["Upload-Offset"])


def test_a_tus_client_uploads_a_dataset(served: tuple[str, Filled], tmp_path: Path) -> None:
    url, filled = served
    archive = tmp_path / "my photos.zip"
    archive.write_bytes(photos())
    client = TusClient(f"{url}{API}/uploads")
    with archive.open("rb") as file:
        uploader = client.uploader(file_stream=file, chunk_size=2000, metadata={"filename": archive.name})
        uploader.upload_chunk()
        assert 0 < uploader.offset < archive.stat().st_size
    with archive.open("rb") as file:
        again = client.uploader(file_stream=file, chunk_size=2000, url=uploader.url)  # another process goes on
        assert again.offset == uploader.offset
        again.upload()
    made = httpx.post(f"{url}{API}/datasets", params={"name": "sent", "upload": again.url.rpartition("/")[2]})
    assert made.status_code == 202, made.text
    assert do_jobs(filled) == 1
    assert httpx.get(f"{url}{API}/datasets/sent").json()["num_images"] == 20
    assert httpx.head(again.url, headers=TUS).status_code == 404


def test_the_bytes_are_those_that_were_sent_whatever_the_pieces(client: TestClient, settings: Settings) -> None:
    content = bytes(range(256)) * 700
    address = begin(client, len(content), **{"Upload-Metadata": "filename cGhvdG9zLnppcA=="})
    for start in range(0, len(content), 50_001):
        answer = append(client, address, start, content[start : start + 50_001])
        assert answer.status_code == 204
        assert int(answer.headers["Upload-Offset"]) == offset_of(client, address)
        assert answer.headers["Upload-Expires"].endswith("GMT")
    asked = client.head(address, headers=TUS)
    assert asked.headers["Upload-Length"] == str(len(content))
    assert asked.headers["Upload-Metadata"] == "filename cGhvdG9zLnppcA=="
    assert asked.headers["Cache-Control"] == "no-store"
    stored = next(settings.uploads_dir.glob("*.part")).read_bytes()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()


def test_an_upload_goes_on_after_the_api_was_started_again(settings: Settings, filled: Filled, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.write_bytes(photos())
    length = archive.stat().st_size
    with LiveServer(create_app(settings)) as server, httpx.Client(base_url=server.url) as client:
        address = begin(client, length)
        assert append(client, address, 0, archive.read_bytes()[:1000]).status_code == 204
    with LiveServer(create_app(settings)) as server, archive.open("rb") as file:
        uploader = TusClient(f"{server.url}{API}/uploads").uploader(file_stream=file, url=server.url + address)
        assert uploader.offset == 1000
        uploader.upload()
        made = httpx.post(f"{server.url}{API}/datasets", params={"name": "sent", "upload": address.rpartition("/")[2]})
    assert made.status_code == 202, made.text
    do_jobs(filled)
    with filled.store.reading() as session:
        assert datasets.get_version(session, "sent").status is DatasetStatus.READY


def test_what_arrived_before_a_connection_broke_stays(served: tuple[str, Filled]) -> None:
    url, _ = served
    with httpx.Client(base_url=url) as client:
        address = begin(client, 300_000)
        gone = threading.Event()

        def half() -> Iterator[bytes]:
            yield bytes(100_000)
            gone.wait(0)
            raise ConnectionError("pulled out")

        with pytest.raises(ConnectionError):
            append(client, address, 0, half())  # type: ignore[arg-type]
    with httpx.Client(base_url=url) as client:
        there = offset_of(client, address)
        assert there <= 100_000
        while (answer := append(client, address, there, bytes(300_000 - there))).status_code == 409:
            there = offset_of(client, address)  # the server may notice the broken connection a moment later
        assert answer.status_code == 204
        assert offset_of(client, address) == 300_000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 412),
        ({"Tus-Resumable": "0.2.2", "Upload-Length": "1"}, 412),
        (TUS, 422),
        ({**TUS, "Upload-Length": "-1"}, 422),
        ({**TUS, "Upload-Length": "1e3"}, 422),
        ({**TUS, "Upload-Length": "9" * 30}, 422),
        ({**TUS, "Upload-Length": str(10**15)}, 413),
        ({**TUS, "Upload-Length": "5", "Upload-Metadata": "filename not base64!"}, 422),
        ({**TUS, "Upload-Length": "5", "Upload-Metadata": "x" * 5000}, 422),
        ({**TUS, "Upload-Defer-Length": "1"}, 422),
        ({**TUS, "Upload-Length": "5", "Upload-Concat": "whole"}, 422),
        ({**TUS, "Upload-Concat": "final;"}, 422),
        ({**TUS, "Upload-Concat": "final;/api/v1/datasets/x"}, 422),
        ({**TUS, "Upload-Concat": f"final;/api/v1/uploads/{'0' * 32}"}, 404),
    ],
)
def test_what_cannot_be_begun_is_refused_and_leaves_nothing(
    client: TestClient, settings: Settings, headers: dict[str, str], status: int
) -> None:
    answer = client.post(f"{API}/uploads", headers=headers)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (status, "1.0.0")
    assert answer.headers.get("Tus-Version") == ("1.0.0" if status == 412 else None)
    assert not list(settings.uploads_dir.glob("*"))


def test_a_body_is_taken_at_its_offset_and_no_further_than_announced(client: TestClient) -> None:
    address = begin(client, 10)
    assert append(client, address, 3, b"abc").status_code == 409
    assert append(client, address, 0, b"abc", **{"Content-Type": "text/plain"}).status_code == 415
    assert append(client, address, 0, bytes(11)).status_code == 413
    assert offset_of(client, address) == 0
    assert append(client, address, 0, b"abc").status_code == 204
    assert append(client, address, 0, b"abc").status_code == 409
    assert offset_of(client, address) == 3
    assert client.patch(address, headers=BODY, content=b"x").status_code == 422
    assert client.patch(f"{API}/uploads/../../etc", headers=BODY, content=b"x").status_code in (404, 405)
    assert client.patch(f"{API}/uploads/{'0' * 32}", headers={**BODY, "Upload-Offset": "0"}).status_code == 404


def test_the_beginning_may_come_with_the_creation(client: TestClient) -> None:
    answer = client.post(f"{API}/uploads", headers={**BODY, "Upload-Length": "6"}, content=b"abc")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "3")
    assert append(client, answer.headers["Location"], 3, b"def").headers["Upload-Offset"] == "6"


def test_patch_and_delete_may_come_as_post(client: TestClient) -> None:
    address = begin(client, 3)
    sent = client.post(
        address, headers={**BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}, content=b"abc"
    )
    assert sent.headers["Upload-Offset"] == "3"
    assert client.post(address, headers={**TUS, "X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert client.head(address, headers=TUS).status_code == 404


def test_an_upload_that_is_not_whole_is_no_dataset(client: TestClient, filled: Filled) -> None:
    archive = photos()
    address = begin(client, len(archive))
    append(client, address, 0, archive[:100])
    query = {"name": "photos", "upload": address.rpartition("/")[2]}
    early = client.post(f"{API}/datasets", params=query)
    assert early.status_code == 409
    assert "100 bytes of" in early.json()["detail"]
    append(client, address, 100, archive[100:])
    assert client.post(f"{API}/datasets", params={**query, "group": "("}).status_code == 422
    assert client.post(f"{API}/datasets", params={**query, "name": "cifar10"}).status_code == 422
    assert client.post(f"{API}/datasets", params=query).status_code == 202
    assert client.post(f"{API}/datasets", params={**query, "name": "other"}).status_code == 404
    assert do_jobs(filled) == 1


def test_an_empty_upload_is_no_dataset(client: TestClient, filled: Filled) -> None:
    address = begin(client, 0)
    answer = client.post(f"{API}/datasets", params={"name": "photos", "upload": address.rpartition("/")[2]})
    assert (answer.status_code, answer.json()["detail"]) == (422, "the upload is empty")
    assert do_jobs(filled) == 0


def test_parts_that_are_sent_side_by_side_become_one_upload(client: TestClient, settings: Settings) -> None:
    content = bytes(range(256)) * 40
    parts = [begin(client, 5120, **{"Upload-Concat": "partial"}) for _ in range(2)]
    for place, address in enumerate(parts):
        assert client.head(address, headers=TUS).headers["Upload-Concat"] == "partial"
        assert append(client, address, 0, content[5120 * place : 5120 * (place + 1)]).status_code == 204
    final = f"final;http://other.example/lab{parts[0]} {parts[1]}"
    made = client.post(f"{API}/uploads", headers={**TUS, "Upload-Concat": final, "Upload-Metadata": "filename YQ=="})
    assert made.status_code == 201, made.text
    asked = client.head(made.headers["Location"], headers=TUS)
    assert (asked.headers["Upload-Length"], asked.headers["Upload-Offset"]) == ("10240", "10240")
    assert asked.headers["Upload-Concat"] == final
    (stored,) = settings.uploads_dir.glob("*.part")
    assert stored.read_bytes() == content
    assert {client.head(address, headers=TUS).status_code for address in parts} == {404}
    assert append(client, made.headers["Location"], 10240, b"more").status_code == 403


def test_only_whole_parts_of_ones_own_become_an_upload(client: TestClient, settings: Settings) -> None:
    whole, short = (begin(client, 4, **{"Upload-Concat": "partial"}) for _ in range(2))
    usual = begin(client, 4)
    for address in (whole, usual):
        append(client, address, 0, b"abcd")
    append(client, short, 0, b"abc")
    for parts, status in (((whole, short), 409), ((whole, usual), 409), ((whole, whole), 422)):
        answer = client.post(f"{API}/uploads", headers={**TUS, "Upload-Concat": "final;" + " ".join(parts)})
        assert answer.status_code == status, answer.text
    assert len(list(settings.uploads_dir.glob("*.part"))) == 3


def test_the_server_says_what_it_speaks(client: TestClient) -> None:
    answer = client.options(f"{API}/uploads")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) >= {"creation", "termination", "expiration", "concatenation"}
    assert int(answer.headers["Tus-Max-Size"]) > 10**9


def test_an_upload_is_its_owners_alone_and_counts_against_its_quota(settings: Settings, filled: Filled) -> None:
    with filled.store.writing() as session:
        texts = {name: keys.create(session, name, Role.SUBMITTER)[1] for name in ("ada", "bob")}
    locked = settings.model_copy(update={"auth": True, "max_disk_mb": 1})
    with client_of(locked) as client:
        assert client.post(f"{API}/uploads", headers={**TUS, "Upload-Length": "1"}).status_code == 401
        client.headers["X-API-Key"] = texts["ada"]
        address = begin(client, 900_000)
        over = client.post(f"{API}/uploads", headers={**TUS, "Upload-Length": "200000"})
        assert (over.status_code, over.json()["code"]) == (507, "disk-quota")
        client.headers["X-API-Key"] = texts["bob"]
        assert client.head(address, headers=TUS).status_code == 404
        assert append(client, address, 0, b"mine").status_code == 404
        assert client.delete(address, headers=TUS).status_code == 404


def test_uploads_that_nobody_went_on_with_are_removed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settings.uploads_dir
    old, kept = uploads.create_upload(folder, 5, "", ""), uploads.create_upload(folder, 5, "", "")
    archive = uploads.new_archive(folder)
    archive.write_bytes(b"waits")
    assert uploads.prune_uploads(folder, set()) == 0
    later = uploads.time.time() + 8 * 24 * 3600
    monkeypatch.setattr(uploads.time, "time", lambda: later)
    with pytest.raises(uploads.NotFound):
        uploads.find_upload(folder, old.id, "")
    assert uploads.prune_uploads(folder, {archive.name}) == 4
    assert [path.name for path in folder.iterdir()] == [archive.name]
    assert kept.id != old.id
