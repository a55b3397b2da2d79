"""The lab's decisions before it starts processes; the running lab is tested in tests/system."""

import socket
from pathlib import Path

import pytest

from models.settings import Settings
from service.lab.address import running_lab, write_address
from service.lab.lab import Lab, LabFailed, environment_of, is_loopback, lock_data_dir, names_of_this_machine


def test_the_environment_makes_the_same_settings_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        data_dir=tmp_path / "a b", port=1234, allowed_hosts=["x", "y"], auth=True, broker_url="redis://b/1"
    )
    monkeypatch.setenv("EPOCHAL_DATABASE_URL", "postgresql://left-over")
    monkeypatch.setenv("UNRELATED", "kept")
    environment = environment_of(settings)
    assert environment["UNRELATED"] == "kept"
    assert "EPOCHAL_DATABASE_URL" not in environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("EPOCHAL_DATABASE_URL")
    assert Settings() == settings


def test_two_labs_cannot_share_a_data_directory(tmp_path: Path) -> None:
    lock = lock_data_dir(tmp_path)
    write_address(tmp_path, "http://127.0.0.1:9")
    lab = Lab(Settings(data_dir=tmp_path, port=0))
    with pytest.raises(LabFailed, match=r"http://127\.0\.0\.1:9"):
        lab.start()
    assert running_lab(tmp_path) is not None, "the other lab's address is not ours to remove"
    lock.close()
    lock_data_dir(tmp_path).close()


def test_an_address_whose_process_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text('{"url": "http://127.0.0.1:9", "pid": 4194305}')
    assert running_lab(tmp_path) is None
    (tmp_path / "lab.json").write_text("half a f")
    assert running_lab(tmp_path) is None


def test_a_port_in_use_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lab = Lab(Settings(data_dir=tmp_path, port=taken.getsockname()[1]))
        with pytest.raises(LabFailed, match="cannot be used") as caught:
            lab.start()
    assert "--port 0" in str(caught.value.fix)


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabFailed, match="cannot be used as the data directory"):
        Lab(Settings(data_dir=tmp_path / "file" / "lab", port=0)).start()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("lab.example", False),
    ],
)
def test_what_counts_as_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_lab_open_to_others_answers_to_this_machines_names() -> None:
    assert socket.gethostname() in names_of_this_machine("0.0.0.0")
    assert "0.0.0.0" not in names_of_this_machine("0.0.0.0")
