"""Running out of memory is recognised by the error's type, or by the kernel's own count."""

import errno
from pathlib import Path

import pytest
import torch

from worker.processes.child import is_out_of_memory
from worker.processes.memory import oom_kills


def allocate_too_much() -> None:
    torch.empty(1 << 58, dtype=torch.uint8)


def test_torchs_cpu_allocator_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        allocate_too_much()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_other_ways_to_run_out_of_memory_are_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_the_cause_of_an_error_is_looked_at_too() -> None:
    error = ValueError("could not prepare a batch")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [ValueError("out of memory"), RuntimeError("mat1 and mat2 shapes"), OSError(errno.ENOSPC, "full")]
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


V2, V1 = "cgroup2 cgroup rw", "cgroup cgroup rw,memory"


@pytest.mark.parametrize(
    ("cgroup", "mount", "file", "content"),
    [
        ("0::/lab/worker", V2, "sys/lab/worker/memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 2\n"),
        ("0::/lab/worker", V2, "sys/lab/memory.events", "oom_kill 2\n"),
        ("0::/../elsewhere", V2, "sys/memory.events", "oom_kill 2\n"),
        ("4:memory:/lab\n0::/", V1, "sys/lab/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("0::/", V2, "proc/vmstat", "nr_free_pages 17\noom_kill 2\n"),
    ],
)
def test_the_kernels_count_is_found(cgroup: str, mount: str, file: str, content: str, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup + "\n")
    (proc / "self" / "mountinfo").write_text(f"30 23 0:26 / {tmp_path / 'sys'} rw - {mount}\n")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    assert oom_kills(proc) == 2


def test_where_nothing_tells_the_count_is_zero(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == 0


def test_on_this_machine_the_count_is_read_without_an_error() -> None:
    assert oom_kills() >= 0
