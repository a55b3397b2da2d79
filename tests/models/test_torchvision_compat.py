"""torchvision can be imported beside any build of torch, and its own operators are used where they load."""

import subprocess
import sys

from models import torchvision_compat
from models.torchvision_compat import torchvision


def test_operators_are_declared_only_where_torchvisions_own_do_not_load() -> None:
    assert torchvision_compat.declare_missing_operators() == (not torchvision.extension._has_ops())


def test_the_first_import_in_a_process_passes_without_a_warning() -> None:
    script = """
from models.torchvision_compat import torchvision
from torchvision.transforms import v2
import torch
assert v2.RandomHorizontalFlip(1.0)(torch.arange(4).view(1, 2, 2))[0, 0].tolist() == [1, 0]
print(torchvision.__version__)
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == torchvision.__version__
