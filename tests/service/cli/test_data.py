"""`epochal data fetch` lists and fetches datasets, whatever packages lie in the working directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with modules that have the names of this project's packages."""
    for name in ("models", "service", "worker", "epochal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported the wrong module')")
    return tmp_path


def fetch(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a shell would, in a folder that is also on PYTHONPATH."""
    command = [sys.executable, "-c", "from epochal_command import main; main()", "data", "fetch", *names]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_lists_fetches_and_explains(foreign: Path) -> None:
    listed = fetch(foreign)
    assert listed.returncode == 0, listed.stderr
    assert "cifar10" in listed.stdout
    assert "CIFAR-10 is in" in fetch(foreign, "cifar10").stdout
    refused = fetch(foreign, "cifar")
    assert refused.returncode == 1
    assert "there is no dataset" in refused.stderr
