"""The embedded broker as a real server: socket, persistence, and its end with its parent process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from service.lab.broker import CONFIG_FILE, LONGEST_SOCKET_PATH, EmbeddedBroker, socket_folder
from service.lab.processes import Part
from tests.processes import alive, wait_until


def part_of(broker: EmbeddedBroker, folder: Path) -> Part:
    return Part("broker", broker.command, folder / "broker.log", broker.folder, dict(os.environ), grace_seconds=5.0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[EmbeddedBroker, Part]]:
    broker = EmbeddedBroker(tmp_path)
    part = part_of(broker, tmp_path)
    part.start()
    wait_until(broker.answers)
    yield broker, part
    part.terminate()
    part.wait_or_kill(time.monotonic() + 5)
    broker.clean_up()


def test_only_this_user_reaches_it_and_it_keeps_a_file(running: tuple[EmbeddedBroker, Part]) -> None:
    broker, _ = running
    assert broker.socket_path.stat().st_mode & 0o077 == 0
    with redis.Redis(unix_socket_path=str(broker.socket_path), password=broker.password) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_it_asks_for_a_password_that_no_command_line_shows(running: tuple[EmbeddedBroker, Part]) -> None:
    broker, part = running
    with redis.Redis(unix_socket_path=str(broker.socket_path)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert broker.password not in " ".join(psutil.Process(part.pid).cmdline())
    assert broker.password in broker.url
    readable = [path.name for path in broker.folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert CONFIG_FILE not in readable


def test_the_broker_of_a_running_lab_is_found_by_its_data_directory(
    running: tuple[EmbeddedBroker, Part], tmp_path: Path
) -> None:
    found = EmbeddedBroker.of(tmp_path)
    assert found is not None
    assert found.url == running[0].url
    assert EmbeddedBroker.of(tmp_path / "elsewhere") is None
    assert not (tmp_path / "elsewhere").exists()


def test_the_password_stays_the_same_for_workers_that_outlive_the_broker(tmp_path: Path) -> None:
    first = EmbeddedBroker(tmp_path)
    first.command()
    assert EmbeddedBroker(tmp_path).password == first.password
    (first.folder / CONFIG_FILE).write_text("requirepass x\n")
    assert len(EmbeddedBroker(tmp_path).password) > 20, "one that is too short, or cut off, is replaced"


def test_an_entry_that_no_lab_writes_is_too_long_for_it(running: tuple[EmbeddedBroker, Part]) -> None:
    broker, _ = running
    client = redis.Redis(unix_socket_path=str(broker.socket_path), password=broker.password)
    with client, pytest.raises(redis.RedisError):
        client.rpush("experiments", b"x" * 2_000_000)
    assert broker.answers()


def test_what_was_queued_is_there_after_a_kill_and_restart(running: tuple[EmbeddedBroker, Part]) -> None:
    broker, part = running
    with redis.Redis(unix_socket_path=str(broker.socket_path), password=broker.password) as client:
        client.rpush("experiments", "42")
        client.execute_command("WAITAOF", 1, 0, 2000)  # appended and synced
    assert part.pid is not None
    os.kill(part.pid, signal.SIGKILL)
    wait_until(lambda: part.exit_code() is not None)
    assert "SIGKILL" in (part.revive() or "")
    wait_until(lambda: part.revive() is not None)
    wait_until(broker.answers)
    with redis.Redis(unix_socket_path=str(broker.socket_path), password=broker.password) as client:
        assert client.lrange("experiments", 0, -1) == [b"42"]


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    assert broker.set_aside() is None
    (broker.folder / "appendonlydir").mkdir()
    aside = broker.set_aside()
    assert aside is not None
    assert aside.is_dir()
    assert not (broker.folder / "appendonlydir").exists()


@pytest.mark.parametrize("name", ["x" * LONGEST_SOCKET_PATH, "with space", "100%"])
def test_a_long_or_odd_path_gets_a_private_folder_for_the_socket(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    private = socket_folder(folder)
    assert private != folder
    assert private == socket_folder(folder)
    assert private.stat().st_mode & 0o777 == 0o700
    private.rmdir()


def test_a_private_folder_that_others_could_open_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    first = socket_folder(folder)
    first.chmod(0o755)
    second = socket_folder(folder)
    assert second != first
    first.rmdir()
    second.rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from service.lab.broker import EmbeddedBroker\n"
        "from service.lab.processes import Part\n"
        "folder = Path(sys.argv[1])\n"
        "broker = EmbeddedBroker(folder)\n"
        "part = Part('broker', broker.command, folder / 'log', broker.folder, dict(os.environ), 5.0)\n"
        "part.start()\n"
        "print(part.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(EmbeddedBroker(tmp_path).answers)
        parent.kill()
    wait_until(lambda: not alive(pid))
