"""The kernels that a run keeps of its epochs: all of them while they are few, then an even choice within a budget."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from models.networks import kernel_budget
from models.networks.kernel_budget import EXACT_BYTES, KERNELS_BYTES, capacity, history_bytes
from tests.worker.training.tiny import PLAIN, images, run, spec
from worker.training.engine import train
from worker.training.kernels import KernelHistory
from worker.training.sink import MemorySink


def weight(epoch: int, numel: int = 12) -> Tensor:
    return torch.full((1, 1, 1, numel), float(epoch))


def kept_bytes(history: KernelHistory) -> int:
    return sum(kernels.nbytes for kernels in history.by_epoch().values())


def test_small_kernels_are_kept_of_every_epoch_to_the_bit() -> None:
    history = KernelHistory()
    for epoch in range(1, 301):
        history.add(epoch, weight(epoch) / 3, is_best=epoch % 7 == 0)
    found = history.by_epoch()
    assert list(found) == list(range(1, 301))
    assert torch.equal(torch.from_numpy(found[8]), weight(8) / 3)


@settings(deadline=None, max_examples=60)
@given(epochs=st.integers(1, 400), room=st.integers(2, 20), best=st.integers(1, 400), interrupted=st.integers(1, 400))
def test_the_first_the_best_and_the_last_are_kept_and_the_rest_evenly(
    epochs: int, room: int, best: int, interrupted: int
) -> None:
    history = KernelHistory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_budget, "KERNELS_BYTES", room * 48)
        for epoch in range(1, epochs + 1):
            history.add(epoch, weight(epoch), is_best=epoch in (1, best))
            if epoch == interrupted:  # a resumed run keeps the same
                saved, history = history.state_dict(), KernelHistory()
                history.load_state_dict(saved)
            assert len(history.kernels) <= room
    kept = list(history.by_epoch())
    assert kept == sorted(kept)
    assert kept[0] == 1
    assert kept[-1] == epochs
    if room > 2:
        assert (best if best <= epochs else 1) in kept
    even = set(range(1, epochs + 1, history.stride))
    assert even <= set(kept) <= even | {1, best, epochs}
    assert len(kept) >= min(epochs, room) / 2
    assert all(float(kernels.flat[0]) == epoch for epoch, kernels in history.by_epoch().items())


@pytest.mark.parametrize("shape", [(1024, 3, 31, 31), (4096, 1, 31, 31), (64, 3, 7, 7), (512, 3, 11, 11)])
def test_whatever_a_layer_weighs_its_history_stays_within_the_budget(shape: tuple[int, ...]) -> None:
    history, network = KernelHistory(), torch.randn(shape)
    for epoch in range(1, 13):
        history.add(epoch, network, is_best=epoch == 3)
    exact = network.numel() * 4
    assert kept_bytes(history) == history_bytes(exact, 12) <= KERNELS_BYTES
    assert capacity(exact) >= 2


def test_large_kernels_are_kept_as_half_precision_without_infinities() -> None:
    large = torch.tensor([1e30, -1e30, 1.0] + [0.0] * EXACT_BYTES).reshape(1, 1, 1, -1)
    history = KernelHistory()
    history.add(1, large, is_best=True)
    kept = torch.from_numpy(history.by_epoch()[1])
    assert kept.dtype == torch.float16
    assert kept[0, 0, 0, :3].tolist() == [65504.0, -65504.0, 1.0]


def test_a_run_writes_which_epochs_its_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer of PLAIN has 108 weights; five epochs' fit here."""
    monkeypatch.setattr(kernel_budget, "KERNELS_BYTES", 5 * 108 * 4)
    run(tmp_path, model=PLAIN, epochs=12)
    content = load_file(tmp_path / "kernels.safetensors")
    epochs = content["epochs"].tolist()
    assert len(epochs) == len(content["kernels"]) <= 5
    assert epochs[0] == 1
    assert epochs[-1] == 12
    last = load_file(tmp_path / "weights-last.safetensors")["features.0.weight"]
    assert torch.equal(content["kernels"][-1], last)


def test_an_interrupted_run_keeps_the_kernels_of_the_same_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_budget, "KERNELS_BYTES", 4 * 108 * 4)
    changes = {"model": PLAIN, "epochs": 9, "batch_size": 64}
    run(tmp_path / "whole", **changes)
    first = MemorySink()
    train(
        spec(**changes),
        images(),
        first,
        tmp_path / "first",
        device="cpu",
        should_stop=lambda: "shutdown" if len(first.epochs) == 5 else None,
    )
    train(spec(**changes), images(), MemorySink(), tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    whole, again = (load_file(tmp_path / name / "kernels.safetensors") for name in ("whole", "second"))
    assert whole["epochs"].tolist() == again["epochs"].tolist()
    assert torch.equal(whole["kernels"], again["kernels"])
