"""Regression check of results: losses and weights of seeded runs, compared to the last bit.

    python -m benchmarks.identical --write before.json      on the code as it was
    python -m benchmarks.identical --compare before.json    on the code as it is: exit status 1 if anything differs

Each case trains for two epochs on a few hundred images of CIFAR-10, as the worker would, with one thread that computes
and one that prepares batches. Figures are kept as hexadecimal floats, final weights as a SHA-256 of their bytes. The
last bits also depend on the processor and on the version of torch, so both files must come from the same machine.
"""

import argparse
import hashlib
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

import torch
from safetensors import safe_open

from models.data.dataset import ImageDataset, load_dataset
from models.findings import CAUSES, FindingCode
from models.settings import get_settings
from models.spec.parse import parse_spec
from worker.training.engine import train
from worker.training.sink import MemorySink
from worker.training.thread_control import ThreadControl
from worker.training.threads import START, ThreadHistory

FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "grad_norm")
"""What is compared of an epoch: all that is measured but for times and memory."""

Record = dict[str, Any]
"""A case's figures by "epoch 1 val_loss" and the like, in the order in which they came, and its weights' digests."""


@dataclass(frozen=True)
class Case:
    """What is trained. `shutdown_after` hands the run back after so many steps, and another call goes on with it."""

    body: dict[str, Any]
    shutdown_after: int | None = None


_COMMON = {"epochs": 2, "seed": 7}
_IMAGES = {"name": "cifar10", "train_limit": 300, "val_limit": 200}
_TURNS = {"hflip": 0.5, "vflip": 0.5, "rotation_degrees": 15, "shift_pixels": 2}

CASES = {
    "baseline": Case({"model": "baseline", "batch_size": 16}),
    "three_blocks_batch_norm": Case({"model": "three_blocks_batch_norm", "batch_size": 32, "augmentation": _TURNS}),
    "fast_resnet": Case({"preset": "fast_resnet", "batch_size": 64}),
    "fine_tune_squeezenet": Case({"preset": "fine_tune_squeezenet", "batch_size": 64}),
    "every option": Case(
        {
            "model": "three_blocks_batch_norm",
            "batch_size": 16,
            "accumulate_batches": 3,
            "augmentation": {
                **_TURNS,
                "random_erase": 0.3,
                "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
                "mixup_alpha": 0.4,
            },
            "optimizer": {"name": "adamw", "lr": 0.002, "weight_decay": 0.01},
            "lr_scheduler": {"name": "cosine", "warmup_epochs": 0.5},
            "early_stopping": {"monitor": "val_loss", "patience": 1},
            "test_time_augmentation": "mirror",
            "label_smoothing": 0.1,
            "clip_grad_norm": 1.0,
            "ema_decay": 0.9,
        }
    ),
    "resumed": Case({"model": "three_blocks_batch_norm", "batch_size": 32, "augmentation": _TURNS}, shutdown_after=13),
    "diverged": Case(
        {"model": "baseline", "batch_size": 16, "optimizer": {"name": "sgd", "lr": 3.0}, "on_divergence": "lower_lr"}
    ),
}


def run(case: Case, dataset: ImageDataset) -> Record:
    """Train a case and record its figures and final weights."""
    spec = parse_spec({**_COMMON, **case.body, "dataset": _IMAGES})
    sink = MemorySink()
    with tempfile.TemporaryDirectory() as folder:

        def go_on(should_stop: Callable[[], Any]) -> str:
            thread_control = ThreadControl(limit=2, replay=ThreadHistory(((START, 1),)))
            return train(
                spec,
                dataset,
                sink,
                Path(folder),
                device="cpu",
                checkpoints=sink.checkpoints(),
                should_stop=should_stop,
                cache_dir=get_settings().cache_dir,
                thread_control=thread_control,
            ).status

        statuses = []
        if case.shutdown_after is not None:
            steps = iter(range(1, case.shutdown_after + 1))
            statuses.append(go_on(lambda: "shutdown" if next(steps, 0) == case.shutdown_after else None))
        statuses.append(go_on(lambda: None))
        record: Record = {"outcome": ", ".join(statuses)}
        for metrics in sink.epochs:
            record |= {f"epoch {metrics.epoch} {name}": as_hex(getattr(metrics, name)) for name in FIGURES}
        record["notices"] = ", ".join(code for code, _, _ in sink.notices)
        # calibration follows from the best weights, which are compared themselves; causes are read off what is measured
        # when training has ended
        left_out = {FindingCode.CALIBRATION, *CAUSES}
        of_training = [one.code for one in sink.verdicts[-1].findings if one.code not in left_out]
        record["findings"] = ", ".join(of_training)
        for which in ("best", "last"):
            if (path := Path(folder) / f"weights-{which}.safetensors").exists():
                record[f"{which} weights"] = digest_of_weights(path)
    return record


def as_hex(value: float | None) -> str | None:
    """A figure to the last bit."""
    return None if value is None else float(value).hex()


def digest_of_weights(path: Path) -> str:
    """Return the SHA-256 of a safetensors file's tensors by name, without the metadata."""
    digest = hashlib.sha256()
    with safe_open(path, "numpy") as file:
        for name in sorted(file.keys()):
            digest.update(name.encode())
            digest.update(file.get_tensor(name).tobytes())
    return digest.hexdigest()


def differences(before: Record, now: Record) -> Iterator[str]:
    """What differs between two records of a case, in the order of training."""
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old != new:
            yield f"{name} was {_readable(old)} and is {_readable(new)}"


def _readable(value: str | None) -> str:
    if value is not None and value.lstrip("-").startswith(("0x", "nan", "inf")):
        return f"{value} ({float.fromhex(value)!r})"
    return str(value)


def machine() -> dict[str, str]:
    """What the last bits depend on beside the code."""
    return {
        "torch": str(torch.__version__),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "os": platform.platform(),
    }


def main() -> int:
    """Run the cases, and write what they gave or compare it. 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identical", description=(__doc__ or "").split("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", metavar="FILE", type=Path, help="run the cases and keep their figures")
    action.add_argument("--compare", metavar="FILE", type=Path, help="run the cases and compare their figures")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case (may be repeated)")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    dataset = load_dataset("cifar10", get_settings())
    records = {}
    for name in options.case or CASES:
        records[name] = run(CASES[name], dataset)
        print(name)
        for figure, value in records[name].items():
            if "loss" in figure:
                print(f"    {figure:<20} {_readable(value)}")
        if options.compare:
            before = json.loads(options.compare.read_text())["cases"].get(name, {})
            found = list(differences(before, records[name]))
            print(f"    differs: {found[0]} ({len(found)} figures in all)" if found else "    equal")
        sys.stdout.flush()
    if options.write:
        options.write.write_text(json.dumps({"machine": machine(), "cases": records}, indent=1) + "\n")
        return 0
    kept = json.loads(options.compare.read_text())
    if kept["machine"] != machine():
        print(f"the file was written on {kept['machine']}, this is {machine()}: last bits may differ for that reason")
    equal = all(kept["cases"].get(name) == record for name, record in records.items())
    print("all equal to the last bit" if equal else "NOT equal")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
