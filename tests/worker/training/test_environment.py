"""What is recorded of the software and the machine that a run is computed with."""

import subprocess
from importlib.metadata import version
from pathlib import Path

from tests.worker.training.tiny import images, spec
from worker.training.environment import describe_environment, git_revision
from worker.training.thread_control import ThreadControl
from worker.training.tuning import choose_tuning


def test_the_environment_says_what_a_run_is_computed_with() -> None:
    tuning = choose_tuning(spec(), images(), "cpu")
    with ThreadControl() as thread_control:
        found = describe_environment(tuning, thread_control, "abc", "fp32")
    assert (found["threads"], found["thread_changes"]) == (1, [])
    assert found["device_type"] == "cpu"
    assert found["dataset_fingerprint"] == "abc"
    assert found["tuning"]["device"] == "cpu"
    assert found["versions"]["torch"] == version("torch")


def test_the_revision_is_the_one_that_is_checked_out(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_revision(tmp_path) is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    (tmp_path / "below").mkdir()
    assert git_revision(tmp_path / "below") == head.stdout.strip()
    subprocess.run(["git", "-C", str(tmp_path), "pack-refs", "--all"], check=True)
    assert git_revision(tmp_path) == head.stdout.strip()
