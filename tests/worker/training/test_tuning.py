"""How the machine is used: threads by the work of a step, memory kept while training."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from models.spec.parse import parse_spec
from tests.worker.training.tiny import images, spec
from worker.training.tuning import choose_tuning


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (40, 2), (128, 7)])
def test_threads_grow_with_the_work_of_a_step(batch_size: int, threads: int) -> None:
    small = spec(model={"name": "cnn", "blocks": [{"convs": [{"channels": 64}]}]}, batch_size=batch_size)
    assert choose_tuning(small, images(), "cpu").most_threads == threads


KEEPING = """
import os
from pathlib import Path
import torch
from models.data.dataset import load_dataset
from models.settings import Settings
from models.spec.parse import parse_spec
from worker.training.tuning import choose_tuning

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

with choose_tuning(parse_spec({"model": "baseline"}), load_dataset("cifar10", Settings()), "cpu").applied():
    before = resident_mb()
    torch.ones(50_000_000).sum()
    print(resident_mb() - before)
print(resident_mb() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library keeps memory its own way")
def test_memory_is_kept_while_training_and_given_back_after() -> None:
    # in a process of its own: what earlier tests have freed would be taken again and nothing would grow
    project = Path(__file__).parents[3]
    result = subprocess.run([sys.executable, "-c", KEEPING], capture_output=True, text=True, check=True, cwd=project)
    kept, after = map(float, result.stdout.split())
    assert kept > 150
    assert after < 50


def test_every_preset_gets_a_tuning() -> None:
    for name in ("baseline", "three_blocks_batch_norm", "fast_resnet", "squeezenet1_1"):
        assert choose_tuning(parse_spec({"model": name}), images(), "cpu").most_threads >= 1
