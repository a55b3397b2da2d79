"""Memory of training on many large images: they stay on the disk, mapped, and only batches are held.

    python -m benchmarks.large_images [--images 5000] [--size 224] [--model shufflenet_v2_x0_5] [--dataset FOLDER]

Writes so many images of noise as a dataset's arrays (5,000 of 224 pixels: 753 MB), then trains one epoch of a network
on them in this process. Reported are the peak of the process's own memory (anonymous pages) and of all that it had
resident, mapped pages of the images included, which the system takes back when it needs them. With --dataset the
images are those of an imported dataset's folder.
"""

import argparse
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

from models.data.cifar10 import CIFAR10
from models.data.dataset import ImageDataset, load_folder
from models.spec.parse import parse_spec
from worker.training.engine import train
from worker.training.sink import MemorySink

CHUNK = 100
SMALL = {
    "name": "cnn",
    "blocks": [{"convs": [{"channels": 8, "kernel_size": 5, "stride": 4}], "pool": 4}, {"convs": [{"channels": 16}]}],
}
"""Takes so little time that reading, normalising and holding the images is what is measured."""


def write_images(folder: Path, num_images: int, size: int) -> ImageDataset:
    """A dataset of noise, each class of a colour of its own, memory-mapped as fetched and imported ones are."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % 10
    images = np.lib.format.open_memmap(
        folder / "train_images.npy", mode="w+", dtype=np.uint8, shape=(num_images, 3, size, size)
    )
    for start in range(0, num_images, CHUNK):
        part = labels[start : start + CHUNK]
        noise = rng.integers(0, 128, (len(part), 3, size, size), dtype=np.uint8)
        images[start : start + CHUNK] = noise + (part * 12).astype(np.uint8)[:, None, None, None]
    images.flush()
    del images
    mapped = np.load(folder / "train_images.npy", mmap_mode="c")
    info = replace(CIFAR10, name="noise", title="Noise", size=size, num_train=num_images, num_test=CHUNK)
    return ImageDataset(info, mapped, labels, mapped[:CHUNK], labels[:CHUNK], "noise")


class Peak:
    """Watches this process's memory, a few times a second, until it is left."""

    def __init__(self) -> None:
        self.own = self.resident = 0
        """Megabytes."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            found = {name: int(rest.split()[0]) // 1024 for name, _, rest in (line.partition(":") for line in lines)
                     if name in ("RssAnon", "VmRSS")}  # fmt: skip
            self.own, self.resident = max(self.own, found["RssAnon"]), max(self.resident, found["VmRSS"])


def main() -> None:
    """Write the images, train, print the peaks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_images", description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--model", default="small", help="a network by name; a small one of its own by default")
    parser.add_argument("--dataset", type=Path, help="an imported dataset's folder, in place of images of noise")
    options = parser.parse_args()
    spec = parse_spec(
        {
            "model": SMALL if options.model == "small" else options.model,
            "dataset": {"val_fraction": 0.1},
            "epochs": 1,
            "batch_size": 32,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        if options.dataset is not None:
            dataset = load_folder(options.dataset)
        else:
            dataset = write_images(Path(folder), options.images, options.size)
        began = time.perf_counter()
        with Peak() as peak:
            sink = MemorySink()
            train(spec, dataset, sink, Path(folder) / "run", device="cpu")
        seconds = time.perf_counter() - began
    count, size = len(dataset.train_images), dataset.info.size
    print(f"{count:,} images of {size} pixels, {dataset.train_images.nbytes / 1e6:,.0f} MB on the disk")
    print(f"{options.model}: one epoch at batch 32 in {seconds:.0f} s, accuracy {sink.epochs[0].val_accuracy:.2f}")
    print(f"peak memory of its own: {peak.own:,} MB; resident with mapped images: {peak.resident:,} MB")


if __name__ == "__main__":
    main()
