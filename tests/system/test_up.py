"""`epochal up` as a process: it stops cleanly when asked to, and leaves nothing even when it is killed."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from PIL import Image

from benchmarks.faults.waiting import patience
from tests.processes import wait_until
from tests.system.experiments import long_spec, small_spec
from tests.system.foreign import EPOCHAL, foreign_environment, run_commands

SECONDS = 60.0
"""For one answer: the first requests of a lab wait for imports, which take a busy machine longer than httpx waits."""
get = partial(httpx.get, timeout=SECONDS)

pytestmark = pytest.mark.timeout(300)  # a busy machine may take a minute to start a lab


@contextmanager
def up(data_dir: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str, list[psutil.Process]]]:
    """A lab of its own in a process group of its own: the process, its address, its descendants.

    Its working directory, and PYTHONPATH, hold other packages of the same names.
    """
    folder = data_dir.parent / "foreign"
    environment = {
        **foreign_environment(folder),
        "EPOCHAL_PORT": "0",
        "EPOCHAL_DATA_DIR": str(data_dir),
        "COLUMNS": "200",
        **variables,
    }
    with subprocess.Popen(
        [*EPOCHAL, "up"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            shown = ""
            while "Ctrl-C stops it" not in shown:
                line = process.stdout.readline()
                assert line, f"the lab ended: {shown}"
                shown += line
            process.shown = shown  # type: ignore[attr-defined]
            found = re.search(r"http://\S+", shown)
            assert found is not None
            yield process, found.group(), psutil.Process(process.pid).children(recursive=True)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                exit_code(process)


def exit_code(process: subprocess.Popen[Any]) -> int:
    """What a lab or a worker exits with that was told to end."""
    wait_until(lambda: process.poll() is not None, 30, "a process that was told to end")
    return process.wait()


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs; a zombie that waits for its new parent does not."""
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_other_packages_of_the_same_names_do_no_harm_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with up(tmp_path / "lab") as (process, url, children):
        assert get(f"{url}/readyz").status_code == 200
        assert len(children) >= 3, "broker, API and worker"
        folder = tmp_path / "foreign"
        (folder / "spec.yaml").write_text(yaml.safe_dump(small_spec(epochs=1)))
        write_photos(folder / "photos")
        commands = [  # the worker forks processes that train and import, the API starts one that describes networks
            "submit spec.yaml --watch",
            "watch 1",
            "show 1",
            "curves 1",
            "kernels 1",
            "data add photos",
            "classify 1 photos/a/0.png",
            "classify 1 photos --csv labels.csv",
        ]
        said = run_commands(folder, [[*command.split(), "--url", url] for command in commands])
        assert "completed; best validation accuracy" in said
        assert (folder / "curves-1.png").read_bytes().startswith(b"\x89PNG")
        assert len((folder / "labels.csv").read_text().splitlines()) == 1 + 8
        large = io.BytesIO()
        Image.new("RGB", (3000, 3000)).save(large, "png")  # the API starts a process that decodes it
        predicted = httpx.post(
            f"{url}/api/v1/experiments/1/predictions", files={"image": large.getvalue()}, timeout=SECONDS
        )
        assert predicted.status_code == 200, predicted.text
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
        assert exit_code(process) == 0
    assert gone(children)
    left = {path.name for path in (tmp_path / "lab").rglob("*") if path.is_socket()}
    assert not left
    assert not (tmp_path / "lab" / "lab.json").exists()


def write_photos(folder: Path) -> None:
    """Eight pictures of two classes."""
    for number, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        for shade in range(4):
            Image.new("RGB", (12, 12), (90 * number, 60 * shade, 30)).save(folder / name / f"{shade}.png")


def test_a_lab_shows_its_first_key_once_and_when_killed_takes_its_processes_with_it_and_starts_again(
    tmp_path: Path,
) -> None:
    """Each start of a lab takes seconds, so one lab with keys is used, killed, and started again."""
    data_dir = tmp_path / "lab"
    with up(data_dir, EPOCHAL_AUTH="true") as (process, url, children):
        found = re.search(r"epochal_\S{20,}", process.shown)  # type: ignore[attr-defined]
        assert found is not None
        assert get(f"{url}/api/v1/experiments").status_code == 401
        headers = {"Authorization": f"Bearer {found.group()}"}
        assert get(f"{url}/api/v1/experiments", headers=headers).status_code == 200
        log_out_while_the_cookie_is_kept(url, found.group())
        revoke_while_a_stream_is_open(url, headers, data_dir)
        process.kill()
        process.wait()
        # All at once, but for the nursery, which notices when it has imported torch.
        wait_until(lambda: gone(children), what="the end of the lab's processes")
    with up(data_dir, EPOCHAL_AUTH="true", EPOCHAL_WORKERS="0") as (process, url, _):
        assert not re.search(r"epochal_\S{20,}", process.shown)  # type: ignore[attr-defined]
        assert get(f"{url}/healthz").status_code == 200
        join_by_hand(url, headers, data_dir)


def log_out_while_the_cookie_is_kept(url: str, key: str) -> None:
    """The session is over with the answer to the logout, for whoever kept its cookie as well."""
    with httpx.Client(base_url=url, headers={"Origin": url}, timeout=SECONDS) as browser:
        token = re.search(r'name="token" value="([^"]+)"', browser.get("/login").text)
        assert token is not None
        assert browser.post("/login", data={"token": token[1], "key": key, "next": "/"}).status_code == 303
        kept = {"Cookie": f"epochal_session={browser.cookies['epochal_session']}"}
        assert get(f"{url}/api/v1/presets", headers=kept).status_code == 200
        assert browser.post("/logout").status_code == 303
    assert get(f"{url}/api/v1/presets", headers=kept).status_code == 401
    assert get(f"{url}/", headers=kept).headers["location"].startswith("/login")


def revoke_while_a_stream_is_open(url: str, headers: dict[str, str], data_dir: Path) -> None:
    """A key revoked by the command, so in another process: its stream ends, and its connection with it."""
    where = ["--data-dir", str(data_dir)]
    made = subprocess.run([*EPOCHAL, "keys", "create", "leaving", "--json", *where], capture_output=True, check=True)
    leaving = json.loads(made.stdout)["key"]
    number = httpx.post(
        f"{url}/api/v1/experiments", headers=headers, json=long_spec(batch_size=200), timeout=SECONDS
    ).json()["id"]
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as stream:
        stream.sendall(
            f"GET /api/v1/experiments/{number}/events HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n"
            f"Authorization: Bearer {leaving}\r\n\r\n".encode()
        )
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
        subprocess.run([*EPOCHAL, "keys", "revoke", "leaving", *where], capture_output=True, check=True)
        received = b""
        stream.settimeout(patience(10))  # an idle connection would be left open for longer
        while piece := stream.recv(65536):
            received += piece
    assert received.endswith(b"0\r\n\r\n")
    assert b"event: end" not in received


def join_by_hand(url: str, headers: dict[str, str], data_dir: Path) -> None:
    """A worker that is started by hand joins the lab of its data directory, and ends in order."""

    def seen() -> bool:
        # The worker that was killed with its lab passes for live for 15 seconds more.
        return "by-hand" in get(f"{url}/readyz", headers=headers).text

    assert not seen()
    folder = data_dir.parent / "foreign"
    with subprocess.Popen(
        [*EPOCHAL, "worker", "--name", "by-hand", "--data-dir", str(data_dir)],
        cwd=folder,
        env=foreign_environment(folder),
        stderr=subprocess.DEVNULL,
    ) as worker:
        wait_until(seen, what="the worker to be seen")
        worker.send_signal(signal.SIGTERM)
        assert exit_code(worker) == 0


def test_a_worker_that_finds_no_lab_says_so(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "epochal", "worker", "--data-dir", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "no lab runs on" in " ".join(ended.stderr.split())
    assert "--broker-url" in ended.stderr
