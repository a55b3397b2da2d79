"""A run that is continued with more epochs is the run that had them from the start, to the bit."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from models.errors import CorruptFile
from tests.worker.training.tiny import figures, images, run, same_tensors, spec
from worker.training.checkpoints import load_checkpoint
from worker.training.engine import train
from worker.training.sink import MemorySink

CHANGES: list[dict[str, Any]] = [
    {},
    {"lr_scheduler": {"name": "exponential", "gamma": 0.5}, "ema_decay": 0.9, "augmentation": {"hflip": 0.5}},
    {"lr_scheduler": {"name": "plateau", "patience": 0}, "optimizer": {"name": "adamw", "lr": 0.01}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=["constant", "exponential", "plateau"])
def test_two_epochs_and_two_more_are_four(tmp_path: Path, changes: dict[str, Any]) -> None:
    _, whole = run(tmp_path / "whole", epochs=4, **changes)
    _, first = run(tmp_path / "first", epochs=2, **changes)
    second = MemorySink()
    train(
        spec(epochs=4, **changes),
        images(),
        second,
        tmp_path / "second",
        device="cpu",
        checkpoints=first.checkpoints(),
    )
    assert figures(first.epochs + second.epochs) == figures(whole.epochs)
    weights = [load_file(tmp_path / name / "weights-last.safetensors") for name in ("second", "whole")]
    assert same_tensors(*weights)


def test_early_stopping_waits_anew(tmp_path: Path) -> None:
    stopping = {"monitor": "val_loss", "patience": 1, "min_delta": 100}
    _, first = run(tmp_path / "first", epochs=3, early_stopping=stopping)
    assert len(first.epochs) == 2
    second = MemorySink()
    longer = spec(epochs=5, early_stopping=stopping)
    train(longer, images(), second, tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    assert [metrics.epoch for metrics in second.epochs] == [3]


def test_only_the_number_of_epochs_may_differ(tmp_path: Path) -> None:
    _, sink = run(tmp_path, epochs=1)
    path = sink.checkpoints()[0]
    dataset = images().fingerprint

    def identity(**changes: Any) -> dict[str, str]:
        its_spec = spec(**changes)
        return {"spec": its_spec.digest(), "course": its_spec.course_digest(), "dataset": dataset}

    assert load_checkpoint(path, identity(epochs=1))["epoch"] == load_checkpoint(path, identity(epochs=9))["epoch"] == 2
    with pytest.raises(CorruptFile, match="another run: spec differ"):
        load_checkpoint(path, identity(epochs=9, seed=1))
    with pytest.raises(CorruptFile, match="another run: dataset differ"):
        load_checkpoint(path, {**identity(epochs=1), "dataset": "other"})
