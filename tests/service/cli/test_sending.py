"""A folder is packed on the way, and an upload that broke off goes on."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.app import create_app
from service.cli.client import Client
from service.cli.packing import FolderChanged, PackedFolder
from service.cli.sending import FileContent, send
from tests.service.lab_of_one import Filled, LiveServer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed") / "photos"
    for name, size in (
        ("cat/1.png", 700),
        ("cat/empty.png", 0),
        ("dog/a b\nc.png", 512),
        ("dog/\u732b" + "x" * 120 + ".png", 3),
        (".git/x", 9),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
    return root


def test_a_packed_folder_is_a_tar_of_its_files(folder: Path) -> None:
    packed = PackedFolder(folder)
    data = packed.read(0, 10**9)
    assert len(data) == packed.length
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


@given(start=st.integers(0, 8000), size=st.integers(1, 3000))
def test_any_part_of_it_is_that_part_of_the_whole(folder: Path, start: int, size: int) -> None:
    packed = PackedFolder(folder)
    whole = packed.read(0, 10**9)
    assert packed.read(start, size) == whole[start : start + size]


def test_a_file_that_changes_while_it_is_sent_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    packed = PackedFolder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"123")
    with pytest.raises(FolderChanged, match=r"a\.png had 5 bytes"):
        packed.read(0, 10**6)


def test_an_upload_goes_on_where_it_was_stopped(filled: Filled, tmp_path: Path) -> None:
    file = tmp_path / "photos.zip"
    file.write_bytes(bytes(range(256)) * 100_000)
    content, notes = FileContent(file), tmp_path / "notes"
    seen: list[int] = []

    def stop(done: int, _: int) -> None:
        seen.append(done)
        if done:
            raise KeyboardInterrupt

    with LiveServer(create_app(filled.settings)) as server, Client(server.url) as client:
        with pytest.raises(KeyboardInterrupt):
            send(client, content, notes, stop)
        went_on: list[int] = []
        upload_id = send(client, content, notes, lambda done, _: went_on.append(done))
        assert went_on[0] == seen[-1] > 0
    part = filled.settings.uploads_dir / f"{upload_id}.part"
    assert part.read_bytes() == file.read_bytes()
