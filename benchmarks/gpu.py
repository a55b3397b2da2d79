"""Checks on a GPU, in less than eight minutes: `make test-gpu`.

    python -m benchmarks.gpu                 the checks, as a table
    python -m benchmarks.gpu --write         the table goes to docs/benchmarks.md as well
    python -m benchmarks.gpu --device cpu    as far as it goes without a GPU, to test the checks themselves

Each check answers one question with a figure and a yes or no. Exit status 1 if an answer is no. Without a GPU nothing
is checked, which is said, and the exit status is 0.
"""

import argparse
import gc
import logging
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

import torch
from torch import Tensor

from benchmarks.rows import put_between
from benchmarks.training import Ceiling
from models.data.dataset import ImageDataset, load_dataset
from models.settings import get_settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from worker.processes.child import is_out_of_memory
from worker.training.batches.accumulation import micro_batches
from worker.training.batches.batch import Batch, MicroBatch
from worker.training.build import build_batches, build_data, build_graphs, build_state
from worker.training.engine import train
from worker.training.loop import train_epoch
from worker.training.sink import MemorySink, Outcome
from worker.training.tuning import choose_tuning

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- gpu: written by `make test-gpu` -->", "<!-- /gpu -->"

CPU_TOLERANCE = 0.01
"""Largest relative difference of the losses on CPU and GPU over the first steps. cuDNN multiplies in TF32: 10 bits."""
PRECISION_TOLERANCE = 0.1
"""By how much of fp32's validation loss that of bf16 and fp16 may differ after two epochs."""
MEMORY_TOLERANCE_MB = 1.0
OUT_OF_MEMORY_SHARE = 0.02
"""Part of the GPU's memory that the run which is to fail may have."""

EXACT: dict[str, Any] = {"name": "sgd", "lr": 0.03125, "momentum": 0.875}
"""A rate that float32 holds exactly: recorded steps read it from a float32 tensor, others from Python's float64."""
WITHOUT_DROPOUT: dict[str, Any] = {
    "name": "cnn",
    "blocks": [{"convs": [{"channels": 32, "padding": 1, "batch_norm": True}]}, {"convs": [{"channels": 64}]}],
    "head": {"hidden": [128]},
}
"""A CPU and a GPU draw different random numbers from one seed, so what is compared between them draws none."""


@dataclass(frozen=True)
class Answer:
    """What a check found. `ok` is None where it does not apply to the device."""

    figure: str
    ok: bool | None


def losses_on(
    spec: ExperimentSpec, dataset: ImageDataset, device: str, num_steps: int, *, cuda_graphs: bool = False
) -> tuple[list[float], dict[str, Tensor], str | None]:
    """Train some steps on images in the CPU's order. Returns the running mean loss after each, and the weights.

    Third comes why recording the steps failed, if it did. cuDNN takes deterministic algorithms, the same each time.
    """
    tuning = choose_tuning(spec, dataset, device, cuda_graphs=cuda_graphs)
    on_cpu = choose_tuning(spec, dataset, "cpu")
    data = build_data(spec, dataset, tuning)
    source = build_data(spec, dataset, on_cpu)
    state = build_state(spec, data, build_batches(spec, data, tuning), tuning, get_settings().cache_dir)
    state.begin_training()
    graphs = build_graphs(spec, state, tuning)
    taken = micro_batches(
        build_batches(spec, source, on_cpu), state.criterion, 1, source.input_format.size, 0, spec.accumulate_batches
    )

    def moved() -> Iterator[MicroBatch]:
        for _, micro_batch in zip(range(num_steps), taken, strict=False):
            batch = micro_batch.batch
            images = batch.images.to(tuning.device, memory_format=torch.channels_last)
            yield replace(micro_batch, batch=Batch(images, batch.labels.to(tuning.device)))

    losses: list[float] = []
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        train_epoch(state, moved(), lambda: losses.append(state.meters.means().loss), graphs)
    return losses, dict(state.network.state_dict()), graphs.failure if graphs else None


def trained(body: dict[str, Any], dataset: ImageDataset, device: str, **options: Any) -> tuple[Outcome, MemorySink]:
    """A whole run by the engine."""
    sink = MemorySink()
    with tempfile.TemporaryDirectory() as folder:
        spec, cache_dir = parse_spec(body), get_settings().cache_dir
        return train(spec, dataset, sink, Path(folder), device=device, cache_dir=cache_dir, **options), sink


def agrees_with_cpu(dataset: ImageDataset, device: str, size: float) -> Answer:
    """Losses on CPU and GPU agree over the first steps, in fp32."""
    steps = max(4, int(50 * size))
    spec = parse_spec({"model": WITHOUT_DROPOUT, "batch_size": 64, "precision": "fp32", "optimizer": EXACT})
    ours, _, _ = losses_on(spec, dataset, device, steps)
    theirs, _, _ = losses_on(spec, dataset, "cpu", steps)
    difference = max(abs(one - two) / two for one, two in zip(ours, theirs, strict=True))
    return Answer(f"{difference:.1e} at most over {len(ours)} steps", difference <= CPU_TOLERANCE)


def graphs_agree_with_eager(dataset: ImageDataset, device: str, size: float) -> Answer:
    """Losses and weights with CUDA graphs are those without, to the last bit."""
    steps = max(4, int(200 * size))
    answers = []
    for name, optimizer in (("SGD", EXACT), ("AdamW", {"name": "adamw", "lr": 2**-10})):
        spec = parse_spec({"model": "baseline", "batch_size": 16, "precision": "fp32", "optimizer": optimizer})
        plain, weights, _ = losses_on(spec, dataset, device, steps)
        recorded, recorded_weights, failure = losses_on(spec, dataset, device, steps, cuda_graphs=True)
        if failure:
            return Answer(f"{name}: recording failed: {failure}", False)
        same = plain == recorded and all(torch.equal(weights[key], recorded_weights[key]) for key in weights)
        difference = max(abs(one - two) for one, two in zip(plain, recorded, strict=True))
        answers.append((f"{name}: {'identical' if same else f'{difference:.1e} apart'}", same))
    figure = f"{', '.join(text for text, _ in answers)} over {steps} steps"
    return Answer(figure, all(same for _, same in answers) if device != "cpu" else None)


def graphs_are_faster(dataset: ImageDataset, device: str, size: float) -> Answer:
    """Images per second with CUDA graphs and without, for small steps that take longer to launch than to run."""
    body = {"model": "baseline", "batch_size": 16, "epochs": 3, "dataset": {"train_limit": int(20_000 * size) + 100}}
    speeds = [
        trained(body, dataset, device, cuda_graphs=cuda_graphs)[1].epochs[-1].images_per_second
        for cuda_graphs in (False, True)
    ]
    return Answer(f"{speeds[1]:,.0f} with, {speeds[0]:,.0f} without: {speeds[1] / speeds[0]:.2f} times", None)


def mixed_precision_trains(dataset: ImageDataset, device: str, size: float) -> Answer:
    """Validation losses after two epochs in bf16 and fp16 are near that in fp32."""
    body = {"preset": "fast_resnet", "epochs": 2, "dataset": {"train_limit": int(10_000 * size) + 300}}
    losses = {}
    for precision in ("fp32", "bf16", "fp16") if device != "cpu" else ("fp32", "bf16"):
        outcome, sink = trained({**body, "precision": precision}, dataset, device)
        losses[precision] = sink.epochs[-1].val_loss if outcome.status == "completed" else float("nan")
    near = all(abs(loss - losses["fp32"]) <= PRECISION_TOLERANCE * losses["fp32"] for loss in losses.values())
    return Answer(", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()), near)


def memory_is_given_back(dataset: ImageDataset, device: str, size: float) -> Answer:
    """A run leaves none of its tensors on the GPU."""
    if device == "cpu":
        return Answer("not counted on a CPU", None)
    body = {"preset": "fast_resnet", "epochs": 1, "dataset": {"train_limit": int(5_000 * size) + 300}}
    before = _allocated_mb()
    peak = trained(body, dataset, device)[1].epochs[-1].peak_memory_mb
    left = _allocated_mb() - before
    return Answer(f"{left:.1f} MB left of {peak:,.0f} MB", left <= MEMORY_TOLERANCE_MB)


def out_of_memory_is_told(dataset: ImageDataset, device: str, size: float) -> Answer:
    """A run that does not fit fails with an out-of-memory message, and the next one trains in the same process."""
    small = {"model": "baseline", "epochs": 1, "dataset": {"train_limit": 300}}
    large = {**small, "model": {"name": "squeezenet1_1", "input_size": 224}, "batch_size": 4096}
    large["dataset"] = {"train_limit": 8_192}
    try:
        with _short_memory(device):
            trained(large, dataset, device)
    except Exception as error:  # noqa: BLE001 (whatever it is, the check is what the worker makes of it)
        told = is_out_of_memory(error)
        figure = f"{type(error).__name__}, {'told as out of memory' if told else 'not told as out of memory'}"
    else:
        told, figure = False, "it fitted"
    after = trained(small, dataset, device)[0].status
    return Answer(f"{figure}; the next run {after}", told and after == "completed" if device != "cpu" else None)


def fast_resnet_seconds(dataset: ImageDataset, device: str, size: float) -> Answer:
    """Seconds and accuracy of the preset fast_resnet on all of CIFAR-10, from the spec to the verdict."""
    body: dict[str, Any] = {"preset": "fast_resnet"}
    if size < 1:
        body |= {"epochs": 1, "dataset": {"train_limit": int(40_000 * size) + 300}}
    began = time.perf_counter()
    outcome, sink = trained(body, dataset, device)
    seconds = time.perf_counter() - began
    best = max(metrics.val_accuracy for metrics in sink.epochs)
    training = sink.environments[-1]["seconds"]["training"]
    return Answer(f"{seconds:.1f} s, {training:.1f} s of it training; {best:.4f}", outcome.status == "completed")


def near_the_ceiling(dataset: ImageDataset, device: str, size: float) -> Answer:
    """Images per second of the engine in its last epoch, against bare steps in fp32 and against bare replays.

    Bare steps are forward, backward and torch's fused optimizer on one batch, launched one by one; bare replays are the
    recorded step alone, again and again on one batch.
    """
    if device == "cpu":
        return Answer("not measured on a CPU", None)
    answers = []
    for model, batch_size in (("baseline", 16), ("three_blocks_batch_norm", 128), ("squeezenet1_1", 32)):
        limit = int(400 * size) * batch_size
        body = {"model": model, "batch_size": batch_size, "epochs": 2, "dataset": {"train_limit": limit}}
        in_fp32 = {**body, "precision": "fp32"}
        eager, recorded = (
            trained(asked, dataset, device, cuda_graphs=cuda_graphs)[1].epochs[-1].images_per_second
            for asked, cuda_graphs in ((in_fp32, False), (body, True))
        )
        with choose_tuning(parse_spec(body), dataset, device).applied():
            steps = _steps_per_second(_bare_steps(parse_spec(in_fp32), dataset, device), limit // batch_size)
            replays = _steps_per_second(_bare_replays(parse_spec(body), dataset, device), 4 * limit // batch_size)
        shares = eager / batch_size / steps, recorded / batch_size / replays
        figures = f"{eager:,.0f} ({shares[0]:.2f}) and {recorded:,.0f} ({shares[1]:.2f})"
        answers.append(f"{model} at batch {batch_size}: {figures}")
    return Answer("; ".join(answers), None)


def _bare_steps(spec: ExperimentSpec, dataset: ImageDataset, device: str) -> Callable[[], object]:
    ceiling = Ceiling(spec, dataset, choose_tuning(spec, dataset, device))
    return lambda: ceiling.seconds_of(1)


def _bare_replays(spec: ExperimentSpec, dataset: ImageDataset, device: str) -> Callable[[], object]:
    tuning = choose_tuning(spec, dataset, device, cuda_graphs=True)
    data = build_data(spec, dataset, tuning)
    batches = build_batches(spec, data, tuning)
    state = build_state(spec, data, batches, tuning, get_settings().cache_dir)
    state.begin_training()
    batch = next(iter(batches.iterate(1, data.input_format.size)))
    graphs = build_graphs(spec, state, tuning)
    assert graphs is not None
    graphs.record(batch)
    (recording,) = graphs.recordings.values()
    return recording.run


def _steps_per_second(step: Callable[[], object], num_steps: int) -> float:
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(num_steps):
        step()
    torch.cuda.synchronize()
    return num_steps / (time.perf_counter() - began)


def runs_at_once(dataset: ImageDataset, device: str, size: float) -> Answer:
    """Images per second of 1 and 4 processes together that train `baseline` at batch 16 on one GPU."""
    if device == "cpu":
        return Answer("not measured on a CPU", None)
    body = {"model": "baseline", "batch_size": 16, "epochs": 3, "dataset": {"train_limit": int(20_000 * size) + 100}}
    context = multiprocessing.get_context("spawn")
    speeds = {}
    for processes in (1, 4):
        with context.Manager() as manager, ProcessPoolExecutor(processes, mp_context=context) as pool:
            barrier = manager.Barrier(processes)
            runs = [pool.submit(_speed_beside, barrier, body, device) for _ in range(processes)]
            speeds[processes] = sum(run.result() for run in runs)
    return Answer(", ".join(f"{number}: {speed:,.0f}" for number, speed in speeds.items()), None)


def _speed_beside(barrier: threading.Barrier, body: dict[str, Any], device: str) -> float:
    """Images per second of a run in its second epoch, that begins when all processes have reached the barrier."""
    dataset = load_dataset("cifar10", get_settings())
    torch.zeros(1, device=device)
    barrier.wait()
    return trained(body, dataset, device, cuda_graphs=True)[1].epochs[1].images_per_second


Check = Callable[[ImageDataset, str, float], Answer]
CHECKS: dict[str, Check] = {
    "losses on CPU and GPU agree": agrees_with_cpu,
    "CUDA graphs agree with eager steps": graphs_agree_with_eager,
    "images a second, baseline at batch 16, with CUDA graphs": graphs_are_faster,
    "images a second of the engine, eager and recorded (and of bare steps or replays)": near_the_ceiling,
    "images a second of several runs at once": runs_at_once,
    "validation loss in each precision": mixed_precision_trains,
    "memory is given back": memory_is_given_back,
    "a run out of memory fails cleanly": out_of_memory_is_told,
    "fast_resnet, three epochs": fast_resnet_seconds,
}


def _allocated_mb() -> float:
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated() / 2**20


@contextmanager
def _short_memory(device: str) -> Iterator[None]:
    """Within this block a GPU has little memory; a CPU raises what torch raises there, at the first step."""
    if device == "cpu":
        raise torch.OutOfMemoryError("CUDA out of memory. Raised in place of a GPU")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(OUT_OF_MEMORY_SHARE)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def table(answers: dict[str, Answer], device: str) -> str:
    """The answers as Markdown, with what they were measured on."""
    name = torch.cuda.get_device_name() if device != "cpu" else "the CPU, to test the checks"
    words = {True: "yes", False: "NO", None: ""}
    rows = [f"| {check} | {answer.figure} | {words[answer.ok]} |" for check, answer in answers.items()]
    heading = f"{name}, torch {torch.__version__}, {datetime.now(UTC):%d %B %Y}."
    return "\n".join([heading, "", "| check | result | as it should be |", "|---|---|---|", *rows])


def write(text: str, document: Path = DOCUMENT) -> None:
    """Put a table into the document, in the place of the last one."""
    put_between(document, BEGIN, END, text)


def main() -> int:
    """Do the checks and print the table. 1 if an answer is no."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu")
    parser.add_argument("--size", type=float, default=1.0, help="part of the images that are trained on")
    parser.add_argument("--write", action="store_true", help=f"write the table to {DOCUMENT.name}")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("There is no GPU on this machine that torch can use: nothing was checked.")
        return 0
    logging.disable(logging.INFO)
    dataset = load_dataset("cifar10", get_settings())
    answers = {}
    for name, check in CHECKS.items():
        began = time.perf_counter()
        answers[name] = check(dataset, options.device, options.size)
        taken = time.perf_counter() - began
        print(f"{name}: {answers[name].figure} ({taken:.0f} s)", file=sys.stderr, flush=True)
    text = table(answers, options.device)
    print(text)
    if options.write and options.device != "cpu":
        write(text)
    return 1 if any(answer.ok is False for answer in answers.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
