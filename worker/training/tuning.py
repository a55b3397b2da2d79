"""Decides how a run uses the machine, from the device and the network.

What was measured for each choice, and what was tried and dropped, is in docs/decisions/engine.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from models.cores import machine_cores
from models.data.dataset import ImageDataset
from models.data.info import DatasetInfo
from models.libc import glibc
from models.networks.family import family_of
from models.networks.inputs import preprocessing_for
from models.networks.inspection import inspect_network
from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec

MACS_PER_THREAD = 20e6
"""Multiply-accumulates of a step below which one more thread costs more in hand-offs than it computes."""

CPU_CHUNK = 512 * 32**2
"""Pixels prepared at once on a CPU: enough to make each operation's overhead small, and few enough for the cache."""
GPU_CHUNK = 16_384 * 32**2
CPU_EVAL, GPU_EVAL = 512 * 64**2, 2048 * 64**2
"""Pixels measured at once."""
DEVICE_SHARE = 0.4
"""Share of the GPU's free memory that the images may take; a larger dataset stays on the host."""


@dataclass(frozen=True)
class Tuning:
    """How a run uses the machine, except the number of threads. The same spec and device give the same choices."""

    device: torch.device
    most_threads: int
    """The largest number of threads that a step can use; the actual number is chosen in thread_control.py."""
    channels_last: bool
    optimizer: str
    """direct, fused, foreach or forloop (see worker.training.optimizers)."""
    images_on_device: bool
    """Keep the images on the GPU; on a CPU they stay memory-mapped."""
    chunk_images: int
    """Images that are prepared at once."""
    prefetch: bool
    """Prepare the next chunk of batches in a thread. On a CPU that depends on the threads."""
    eval_batch: int
    graphs: bool
    """Record steps as CUDA graphs where a spec allows it."""
    keep_memory: bool
    """Keep freed memory for the next step instead of giving it back (see `_kept_memory`)."""

    def as_json(self) -> JsonObject:
        """Plain data for the run's record."""
        return {**asdict(self), "device": str(self.device)}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the process-wide settings within this block."""
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # shapes repeat: try convolutions out once
        try:
            with _kept_memory(self.keep_memory):
                yield
        finally:
            torch.backends.cudnn.benchmark = benchmark


def resolve_device(name: str) -> torch.device:
    """The torch device for a name: auto (a GPU if there is one), cpu, cuda or cuda:N."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def choose_tuning(spec: ExperimentSpec, dataset: ImageDataset, device: str, *, cuda_graphs: bool = False) -> Tuning:
    """Decide how to train this spec on the device of this name. `cuda_graphs` records steps on a GPU."""
    chosen = resolve_device(device)
    pixels = preprocessing_for(spec, dataset.info).input_size ** 2
    if chosen.type == "cpu":
        return Tuning(
            device=chosen,
            most_threads=_most_threads(spec, dataset.info),
            channels_last=True,
            optimizer="direct",
            images_on_device=False,
            chunk_images=max(1, CPU_CHUNK // pixels),
            prefetch=False,
            eval_batch=max(16, min(512, CPU_EVAL // pixels)),
            graphs=False,
            keep_memory=True,
        )
    free, _ = torch.cuda.mem_get_info(chosen)
    image_bytes = dataset.train_images.nbytes + dataset.test_images.nbytes
    on_device = image_bytes <= DEVICE_SHARE * free
    return Tuning(
        device=chosen,
        most_threads=1,
        channels_last=True,
        optimizer="fused",
        images_on_device=on_device,
        chunk_images=max(1, GPU_CHUNK // pixels),
        prefetch=not on_device,
        eval_batch=max(16, min(2048, GPU_EVAL // pixels)),
        graphs=cuda_graphs,
        keep_memory=False,
    )


def _most_threads(spec: ExperimentSpec, info: DatasetInfo) -> int:
    """The largest number of threads that the work of a step can use."""
    if family_of(spec.model).is_large:
        return machine_cores()
    seen = preprocessing_for(spec, info)
    inspection = inspect_network(
        spec.model, num_classes=info.num_classes, in_channels=seen.channels, size=seen.input_size
    )
    step_macs = 3 * inspection.macs * spec.batch_size  # a backward pass costs two forward passes
    return max(1, round(step_macs / MACS_PER_THREAD))


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65_536


@contextmanager
def _kept_memory(wanted: bool) -> Iterator[None]:
    """Make glibc keep freed memory within this block.

    It returns every block above 32 MB to the kernel at once, which clears each page anew when the next step asks for
    as much: a fifth of the time of three_blocks at batch 128, a third of SqueezeNet's. Elsewhere (macOS, musl) nothing
    is done.
    """
    libc = glibc() if wanted else None
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        libc.malloc_trim(0)
