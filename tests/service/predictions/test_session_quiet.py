"""What loading onnxruntime leaves on the machine and tells its maker: nothing."""

import os
import subprocess
import sys
from pathlib import Path

SUPPRESSING = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "GITHUB_ACTIONS", "TF_BUILD")
"""Variables by which onnxruntime already collects nothing."""


def test_onnxruntime_keeps_no_device_identifier_and_starts_no_thread_that_uploads(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SUPPRESSING}
    folders = {
        name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
    }
    code = "import service.predictions.session, psutil; print(psutil.Process().num_threads())"
    started = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | folders | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert list(tmp_path.rglob("*")) == []
    assert started.stdout == "1\n"
