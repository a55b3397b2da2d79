"""Checkpoints of earlier versions are read into the present layout."""

import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import CorruptFile
from tests.worker.training.tiny import figures, images, run, spec
from worker.training.checkpoints import VERSION, load_checkpoint
from worker.training.engine import train
from worker.training.sink import MemorySink

OLD_LAB = Path(__file__).parents[2] / "system" / "data" / "lab-0.1.0.tar.gz"


def layout(data: Any) -> Any:
    """The keys of nested dictionaries, those of the optimizer's and the network's own aside."""
    own = ("network", "optimizer", "kernels", "history", "random")
    return {key: key in own or layout(value) for key, value in data.items()} if isinstance(data, dict) else None


def test_a_checkpoint_of_release_0_1_0_has_the_present_layout(tmp_path: Path) -> None:
    with tarfile.open(OLD_LAB) as tar:
        tar.extractall(tmp_path, filter="data")
    old = tmp_path / "lab/experiments/2/attempt-1/checkpoint-00003-0000001.pt"
    content = torch.load(old, weights_only=True)
    assert content["version"] == 1
    _, sink = run(tmp_path / "new", epochs=1)
    present = torch.load(sink.checkpoints()[0], weights_only=True)["state"]
    found = load_checkpoint(old, content["run"])
    assert layout(found) == layout(present)
    assert (found["epoch"], found["step"], found["meters"]["steps"]) == (3, 1, 1)
    assert list(found["kernels"]["kernels"]) == [1, 2]
    assert [metrics["epoch"] for metrics in found["history"]["epochs"]] == [1, 2]


def to_version_1(path: Path) -> None:
    """Write a checkpoint as the last version before 2 did."""
    content = torch.load(path, weights_only=True)
    new = content["state"]
    meters, stopping = new["meters"], new["early_stopping"]
    old = {name: new[name] for name in ("epoch", "step", "seconds", "network", "optimizer", "averaged", "random")}
    old |= {"kernels": new["kernels"], "thread_changes": new["thread_changes"], "arithmetic": new["mixed_precision"]}
    old["times_lowered"] = new["schedule"]["times_lowered"]
    old["schedule"] = {**new["schedule"], "scale": 0.1 ** new["schedule"]["times_lowered"]}
    del old["schedule"]["times_lowered"]
    watching = {"best": stopping["best"], "waited": stopping["waited"]}
    old["judgement"] = {"best": new["best"], "stopping": watching, "stop": stopping["should_stop"]}
    old["tally"] = {
        **{name: meters[name] for name in ("loss", "correct", "images", "steps")},
        "norm": meters["grad_norm"],
        "_outputs": meters["logits"],
        "_labels": meters["labels"],
        "_shares": meters["mixed"],
        "_norms": meters["grad_norms"],
    }
    old["report"] = {"history": new["history"]["epochs"], "divergences": new["history"]["divergences"]}
    torch.save({**content, "version": 1, "state": old}, path)


def test_a_run_goes_on_the_same_from_a_checkpoint_of_version_1(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "augmentation": {"mixup_alpha": 0.4},
        "lr_scheduler": {"name": "plateau", "patience": 0},
        "early_stopping": {"monitor": "val_loss", "patience": 9},
        "ema_decay": 0.9,
    }
    _, whole = run(tmp_path / "whole", **changes)
    first, second, steps = MemorySink(), MemorySink(), iter(range(100))
    train(
        spec(**changes),
        images(),
        first,
        tmp_path / "first",
        device="cpu",
        should_stop=lambda: "shutdown" if next(steps) == 8 else None,
    )
    newest = first.checkpoints()[0]
    to_version_1(newest)
    train(spec(**changes), images(), second, tmp_path / "second", device="cpu", checkpoints=[newest])
    assert [code for code, _, _ in second.notices if code != "lr-reduced"] == ["resumed"]
    assert figures(first.epochs + second.epochs) == figures(whole.epochs)


def test_one_factor_and_one_number_of_threads_become_one_for_each_group_and_step(tmp_path: Path) -> None:
    _, sink = run(tmp_path, epochs=1, fine_tuning={"backbone_lr_factor": 0.5})
    path = sink.checkpoints()[0]
    to_version_1(path)
    content = torch.load(path, weights_only=True)
    del content["state"]["schedule"]["plateau_factors"], content["state"]["thread_changes"]
    content["state"]["schedule"]["plateau_factor"] = 0.5
    content["state"]["threads"] = 2
    torch.save(content, path)
    found = load_checkpoint(path, content["run"])
    assert found["schedule"]["plateau_factors"] == [0.5, 0.5]
    assert found["thread_changes"] == [{"times_lowered": 0, "epoch": 1, "step": 0, "threads": 2}]


def test_a_checkpoint_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "later.pt"
    torch.save({"version": VERSION + 1, "run": {}, "state": {}}, path)
    with pytest.raises(CorruptFile, match="not a checkpoint of this version"):
        load_checkpoint(path, {})
