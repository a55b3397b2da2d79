"""Imports and the health of datasets: how fast files are read, and what of planted faults is found.

    python -m benchmarks.data import       images a second against plain Pillow in a loop, two kinds of archives
    python -m benchmarks.data copies       planted copies of CIFAR-10's images (or --dataset's): recall and precision
    python -m benchmarks.data leakage      CIFAR-10's own near copies between training and test images
    python -m benchmarks.data labels       5% planted label errors on CIFAR-10: recall and precision
    python -m benchmarks.data health       the whole check of CIFAR-10: seconds of each stage and the peak of memory
    python -m benchmarks.data memory       the peaks of an import and of an epoch on it, 5,000 images at 224 pixels

`--images` takes fewer images. Each prints a line of JSON.
"""

import argparse
import io
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.cores import usable_cores
from models.data.dataset import ImageDataset, load_dataset, load_folder
from models.data.health.duplicates import near_copies
from models.data.importing import ImportOptions, import_archive
from models.settings import get_settings
from models.spec.torchvision_names import ZooName
from worker.training.environment import peak_resident_mb

Images = npt.NDArray[np.uint8]
KINDS = ("mirrored", "cropped", "compressed", "brightened")
PLANTED = 1_000
CIFAIR_SHARE = 0.0286
"""Of CIFAR-10's test images, those with a near copy among the training images by Barz and Denzler 2020 (Do we train on
test data?, arXiv:1902.00423): 286 in their list. Their 3.25% are these and 39 that are copies of other test images."""
ERRORS = 0.05


def cpu() -> str:
    """The processor's name, and how many cores may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {usable_cores()} cores"


# Import


def photo(random: np.random.Generator, images: Images, width: int, height: int) -> Image.Image:
    """A picture with the structure of photos at several sizes: CIFAR-10's images beside each other, enlarged."""
    across, down = max(1, width // 128), max(1, height // 128)
    tiles = images[random.integers(0, len(images), across * down)].transpose(0, 2, 3, 1)
    mosaic = tiles.reshape(down, across, 32, 32, 3).swapaxes(1, 2).reshape(down * 32, across * 32, 3)
    return Image.fromarray(mosaic).resize((width, height), Image.Resampling.BICUBIC)


def make_archive(path: Path, count: int, make: Callable[[int], Image.Image], file_format: str) -> None:
    """A zip of ten class folders."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            buffer = io.BytesIO()
            make(number).save(buffer, file_format, **({"quality": 90} if file_format == "JPEG" else {}))
            archive.writestr(f"photos/class{number % 10}/{number}.{file_format.lower()}", buffer.getvalue())


def plain_loop(archive: Path, target: Path, side: int, channels: int) -> float:
    """Images a second of what a script would do: open, convert, crop, resize, into a memory-mapped array."""
    started = time.perf_counter()
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        pixels = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(names), channels, side, side))
        for number, name in enumerate(names):
            image = Image.open(io.BytesIO(opened.read(name))).convert("RGB" if channels == 3 else "L")
            short = min(image.size)
            left, top = (image.width - short) // 2, (image.height - short) // 2
            square = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))
            pixels[number] = np.asarray(square).reshape(side, side, channels).transpose(2, 0, 1)
        pixels.flush()
        return len(names) / (time.perf_counter() - started)


def processor_seconds() -> float:
    """Processor time of this process and of the children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def bench_import(folder: Path) -> dict[str, Any]:
    """Turns of the import and the loop on the same archives; the medians of three.

    The processor time of an image is given too: it says what two free cores would make of it while others are at work.
    """
    cifar, fashion = (load_dataset(name, get_settings()) for name in ("cifar10", "fashion-mnist"))
    random = np.random.default_rng(0)
    cases: dict[str, tuple[int, str, Callable[[int], Image.Image], int, int]] = {
        "JPEG 640 x 480 to 224": (2_000, "JPEG", lambda n: photo(random, cifar.train_images, 640, 480), 224, 3),
        "JPEG 4000 x 3000 to 224": (60, "JPEG", lambda n: photo(random, cifar.train_images, 4000, 3000), 224, 3),
        "PNG 28 x 28, gray": (20_000, "PNG", lambda n: Image.fromarray(fashion.train_images[n, 0]), 28, 1),
    }
    found: dict[str, Any] = {"cpu": cpu()}
    for name, (count, file_format, make, side, channels) in cases.items():
        archive = folder / "photos.zip"
        make_archive(archive, count, make, file_format)
        rates, loops, spent = list[float](), list[float](), list[tuple[float, float]]()
        for turn in range(3):
            before = processor_seconds()
            loops.append(plain_loop(archive, folder / "plain.npy", side, channels))
            between, started = processor_seconds(), time.perf_counter()
            options = ImportOptions(name="photos", image_size=side)
            report = import_archive(archive, folder / f"{turn}-{count}", options, lambda what, done, total: None)
            rates.append(report.num_images / (time.perf_counter() - started))
            spent.append((between - before, processor_seconds() - between))
        rate, loop = float(np.median(rates)), float(np.median(loops))
        loop_cpu, import_cpu = (1e6 * float(np.median(one)) / count for one in zip(*spent, strict=True))
        found[name] = {
            "import": round(rate),
            "loop": round(loop),
            "ratio": round(rate / loop, 2),
            "processor_us": {"import": round(import_cpu), "loop": round(loop_cpu)},
        }
    return found


def bench_memory(folder: Path, num_images: int) -> dict[str, Any]:
    """JPEGs at 224 pixels: the peaks of the import's own process and of its decoders, and of training on them."""
    cifar = load_dataset("cifar10", get_settings())
    random = np.random.default_rng(0)
    make_archive(folder / "a.zip", num_images, lambda n: photo(random, cifar.train_images, 640, 480), "JPEG")
    before = peak_resident_mb()
    started = time.perf_counter()
    options = ImportOptions(name="photos", image_size=224)
    import_archive(folder / "a.zip", folder / "1", options, lambda what, done, total: None)
    seconds = time.perf_counter() - started
    own, decoders = peak_resident_mb(), peak_resident_mb(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "benchmarks.large_images", "--dataset", str(folder / "1")]
    trained = subprocess.run(command, check=True, capture_output=True, text=True)
    return {
        "cpu": cpu(),
        "images": num_images,
        "training": trained.stdout.splitlines(),
        "seconds": round(seconds, 1),
        "own_peak_mb": round(own),
        "own_before_mb": round(before),
        "decoder_peak_mb": round(decoders),
        "arrays_mb": load_folder(folder / "1").train_images.nbytes // 2**20,
    }


# Copies


def copy_of(image: Images, kind: str, random: np.random.Generator) -> Images:
    """A changed copy of (C, S, S)."""
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    mode = picture.mode
    side = picture.width
    if kind == "mirrored":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif kind == "cropped":
        left, top = random.uniform(0, 0.05 * side, 2)
        box = (left, top, left + 0.95 * side, top + 0.95 * side)
        picture = picture.resize((side, side), Image.Resampling.BILINEAR, box=box)
    elif kind == "compressed":
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=50)
        picture = Image.open(buffer).convert(mode)
    else:
        picture = picture.point(lambda value: min(255, int(1.3 * value)))
    return np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)


def bench_copies(dataset: str, num_images: int) -> dict[str, Any]:
    """Copies of images planted among them. A found pair with a copy in it is right if it is that of its original, or
    of another copy or the dataset's own near copy of the same original."""
    base = np.array(load_dataset(dataset, get_settings()).train_images[:num_images])
    random = np.random.default_rng(0)
    originals = random.choice(len(base), min(PLANTED, len(base) // 5), replace=False)
    copies = np.stack([copy_of(base[n], KINDS[at % 4], random) for at, n in enumerate(originals)])
    started = time.process_time()
    pairs = near_copies(base, copies)
    seconds = time.process_time() - started
    own = {frozenset((one.first, one.second)) for one in pairs if one.second < len(base)}
    found: set[int] = set()
    wrong = 0
    for one in pairs:
        if one.second < len(base):
            continue
        of_second = int(originals[one.second - len(base)])
        of_first = one.first if one.first < len(base) else int(originals[one.first - len(base)])
        if one.first == of_second:
            found.add(one.second - len(base))
        elif of_first != of_second and frozenset((of_first, of_second)) not in own:
            wrong += 1
    kinds = {kind: [at in found for at in range(len(originals)) if KINDS[at % 4] == kind] for kind in KINDS}
    return {
        "images": num_images,
        "planted": len(originals),
        "pairs_of_its_own": len(own),
        "recall": {kind: round(float(np.mean(hits)), 3) for kind, hits in kinds.items()},
        "precision": round(len(found) / max(1, len(found) + wrong), 4),
        "cpu_seconds": round(seconds, 1),
    }


def bench_leakage(num_images: int) -> dict[str, Any]:
    """Test images of CIFAR-10 that have a near copy among the training images."""
    dataset = load_dataset("cifar10", get_settings())
    train, test = dataset.train_images[:num_images], dataset.test_images
    started = time.process_time()
    across = near_copies(np.array(train), np.array(test), within=False)
    hit = {one.second for one in across}
    labels = np.concatenate([dataset.train_labels[: len(train)], dataset.test_labels])
    agree = [labels[one.first] == labels[one.second] for one in across]
    return {
        "training_images": len(train),
        "test_images_with_a_copy": len(hit),
        "share": round(len(hit) / len(test), 4),
        "cifair_share": CIFAIR_SHARE,
        "pairs_of_one_label": round(float(np.mean(agree)), 3) if agree else None,
        "cpu_seconds": round(time.process_time() - started, 1),
    }


# Labels


def bench_labels(num_images: int) -> dict[str, Any]:
    """One in twenty labels changed to another class at random: recall and precision of what is named."""
    from models.data.health.check import MIN_MARGIN, MOST_MIRRORED
    from models.data.health.classifiers import probabilities
    from models.data.health.features import features
    from models.data.health.labels import suspects
    from models.networks.pretrained import load_pretrained

    dataset: ImageDataset = load_dataset("cifar10", get_settings())
    random = np.random.default_rng(0)
    labels = np.array(dataset.train_labels[:num_images])
    wrong = random.random(len(labels)) < ERRORS
    given = labels.copy()
    given[wrong] = (labels[wrong] + random.integers(1, 10, int(wrong.sum()))) % 10
    started = time.process_time()
    parts = [(dataset.train_images, np.arange(len(labels)))]
    weights = partial(load_pretrained, ZooName.SQUEEZENET1_1, get_settings().cache_dir)
    values, made_by = features(parts, weights, lambda done, total: None, mirrored=len(labels) <= MOST_MIRRORED)
    seen = time.process_time() - started
    judged = probabilities(values, given, 10)
    doubted = suspects(judged, given)
    named = [one for one in doubted if one.margin >= MIN_MARGIN]
    hits = int(sum(wrong[one.image] for one in named))
    as_many = doubted[: int(wrong.sum())]  # as many as are wrong: where recall and precision are the same
    return {
        "images": len(labels),
        "features": made_by,
        "accuracy": round(float((judged.argmax(axis=1) == labels).mean()), 4),
        "planted": int(wrong.sum()),
        "named": len(named),
        "recall": round(hits / int(wrong.sum()), 3),
        "precision": round(hits / max(1, len(named)), 3),
        "both_if_as_many_are_named": round(float(np.mean([wrong[one.image] for one in as_many])), 3),
        "margin_of_the_last": round(as_many[-1].margin, 3),
        "cpu_seconds": round(time.process_time() - started, 1),
        "cpu_seconds_of_features": round(seen, 1),
    }


# The whole check


def bench_health(num_images: int) -> dict[str, Any]:
    """The check of so many training images and a fifth as many test images, as a worker makes it."""
    from benchmarks.large_images import Peak
    from models.data.health import health_report
    from models.networks.pretrained import load_pretrained

    whole = load_dataset("cifar10", get_settings())
    num_test = min(num_images // 5, len(whole.test_labels))
    dataset = replace(
        whole,
        info=replace(whole.info, num_train=num_images, num_test=num_test),
        train_images=whole.train_images[:num_images],
        train_labels=whole.train_labels[:num_images],
        test_images=whole.test_images[:num_test],
        test_labels=whole.test_labels[:num_test],
    )
    stages: dict[str, float] = {}
    last, now = "", time.perf_counter()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last, now
        before, now = now, time.perf_counter()
        stages[last] = stages.get(last, 0.0) + now - before
        last = what

    began, before = time.perf_counter(), processor_seconds()
    with Peak() as peak:
        weights = partial(load_pretrained, ZooName.SQUEEZENET1_1, get_settings().cache_dir)
        report = health_report(dataset, (), progress, load_weights=weights)
        progress("", 0, 0)
    return {
        "cpu": cpu(),
        "images": num_images + num_test,
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(processor_seconds() - before, 1),
        "stages": {what: round(seconds, 1) for what, seconds in stages.items() if what},
        "own_peak_mb": peak.own,
        "resident_peak_mb": peak.resident,
        "findings": [one.code for one in report.findings],
    }


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["import", "memory", "copies", "leakage", "labels", "health"])
    parser.add_argument("--images", type=int, default=50_000, help="of CIFAR-10's training split, or to import")
    parser.add_argument("--dataset", default="cifar10", help="another built-in dataset for copies")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "import": lambda: bench_import(Path(folder)),
            "memory": lambda: bench_memory(Path(folder), min(options.images, 5_000)),
            "copies": lambda: bench_copies(options.dataset, options.images),
            "leakage": lambda: bench_leakage(options.images),
            "labels": lambda: bench_labels(options.images),
            "health": lambda: bench_health(options.images),
        }[options.what]()
    print(json.dumps({options.what: found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
