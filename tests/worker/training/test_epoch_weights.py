"""Weights of epochs that are kept for timelines."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.networks import epoch_budget
from models.networks.epoch_budget import kept_epochs
from tests.worker.training.tiny import images, run, spec
from worker.training.engine import train
from worker.training.sink import MemorySink


def kept(sink: MemorySink) -> dict[int, Path]:
    return {epoch: path for kind, epoch, path in sink.saved if kind == "weights-epoch"}


def test_every_epochs_weights_are_kept_in_16_bits(tmp_path: Path) -> None:
    _, sink = run(tmp_path)
    files = kept(sink)
    assert list(files) == [1, 2, 3]
    last, exact = load_file(files[3]), load_file(tmp_path / "weights-last.safetensors")
    assert last.keys() == exact.keys()
    for name, tensor in exact.items():
        assert last[name].dtype == (np.float16 if tensor.ndim > 1 else tensor.dtype)
        assert np.allclose(last[name], tensor, rtol=1e-3, atol=1e-6)


def test_thinned_epochs_are_gone_from_the_disk_and_a_resumed_run_keeps_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_budget, "MOST_KEPT", 4)
    orders = iter([None] * 33)
    sink = MemorySink()
    asked = spec(epochs=8)
    stopped = train(asked, images(), sink, tmp_path / "1", device="cpu", should_stop=lambda: next(orders, "shutdown"))
    assert stopped.status == "handed_back"
    train(asked, images(), sink, tmp_path / "2", device="cpu", checkpoints=sink.checkpoints())
    assert tuple(sorted(kept(sink))) == kept_epochs(8, 4)
    on_disk = {path.name for path in (tmp_path / "2").glob("weights-epoch-*")}
    assert on_disk <= {f"weights-epoch-{epoch:05d}.safetensors" for epoch in kept_epochs(8, 4)}


def test_a_network_too_large_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_budget, "EPOCHS_BYTES", 1000)
    _, sink = run(tmp_path, epochs=1)
    assert not kept(sink)
