"""What torch's threads are told before it is imported."""

import os
import subprocess
import sys

from worker.training.threads import SPIN_COUNT


def test_spinning_is_limited_without_importing_torch() -> None:
    code = (
        "import os, sys; from worker.training.threads import limit_spinning; limit_spinning();"
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPIN_COUNT, "False"]
