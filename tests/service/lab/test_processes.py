"""The lab's child processes: restarted with growing pauses, ended with their children."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.lab import processes
from service.lab.processes import Part, describe_exit
from tests.processes import alive, wait_until


def part_that_runs(script: str, folder: Path, grace_seconds: float = 5.0) -> Part:
    return Part(
        "part", lambda: [sys.executable, "-c", script], folder / "part.log", folder, dict(os.environ), grace_seconds
    )


def test_its_output_is_in_its_log(tmp_path: Path) -> None:
    part = part_that_runs("import sys; print('to out', flush=True); print('to err', file=sys.stderr)", tmp_path)
    part.start()
    wait_until(lambda: part.exit_code() is not None)
    assert part.last_lines() == "to out\nto err"
    part.wait_or_kill(time.monotonic())


def test_pauses_grow_with_every_death_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_PAUSE_SECONDS", 0.02)
    part = part_that_runs("raise SystemExit(3)", tmp_path)
    part.start()
    said = []
    while part.restarts < 3:
        if sentence := part.revive():
            said.append(sentence)
        time.sleep(0.005)
    part.wait_or_kill(time.monotonic() + 5)
    deaths = [sentence for sentence in said if "exit code 3" in sentence]
    assert [sentence.split(" in ")[1].split(" s;")[0] for sentence in deaths] == ["0.02", "0.04", "0.08"]


def test_a_process_that_ignores_term_is_ended_with_its_children(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    part = part_that_runs(script, tmp_path)
    part.start()
    wait_until(lambda: part.last_lines() != "")
    child = int(part.last_lines())
    part.terminate()
    part.wait_or_kill(time.monotonic() + 0.1)
    wait_until(lambda: not alive(child))
    assert part.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_command_is_not_started_when_its_parent_is_gone_already(tmp_path: Path) -> None:
    command = processes.tethered([sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"])
    command[command.index(str(os.getpid()))] = "1"  # another process than the one that starts it
    assert subprocess.run(command, check=False).returncode == 1
    assert not (tmp_path / "ran").exists()


def test_a_large_log_is_cut_and_one_earlier_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LARGEST_LOG_BYTES", 10)
    part = part_that_runs("", tmp_path)
    for number in range(processes.KEPT_LOGS + 3):
        part.log.write_text(f"more than ten bytes {number}\n")
        part.trim_log()
        part.log.write_text("few\n")
        part.trim_log()
        assert part.log.read_text() == "few\n"
    kept = {path.name: path.read_text() for path in tmp_path.glob("part.log.*")}
    newest = processes.KEPT_LOGS + 2
    assert kept == {
        f"part.log.{n}": f"more than ten bytes {newest + 1 - n}\n" for n in range(1, processes.KEPT_LOGS + 1)
    }


def test_an_exit_is_described_in_words() -> None:
    assert describe_exit(1) == "exit code 1"
    assert describe_exit(-signal.SIGKILL) == "SIGKILL"
