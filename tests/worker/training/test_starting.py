"""Training from another experiment's weights, with layers frozen by pattern and classes shown equally often."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.data.dataset import ImageDataset
from models.errors import SpecError
from models.networks.starting import read_header, read_weights, start_from
from tests.worker.training.tiny import NETWORK, figures, images, run, same_tensors, spec
from worker.training.build import build_batches, build_data, build_fresh_network, build_state
from worker.training.engine import train
from worker.training.sink import MemorySink
from worker.training.tuning import choose_tuning

STARTED = {"model": {**NETWORK, "init_from": {"experiment": 1}}}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best weights of a run."""
    folder = tmp_path_factory.mktemp("source")
    run(folder, epochs=1)
    return folder / "weights-best.safetensors"


def fresh(dataset: ImageDataset, initial: Path | None, **changes: Any) -> dict[str, torch.Tensor]:
    wanted = spec(**{**STARTED, **changes})
    data = build_data(wanted, dataset, choose_tuning(wanted, dataset, "cpu"), initial)
    return dict(build_fresh_network(wanted, data, None).state_dict())


def renamed(dataset: ImageDataset) -> ImageDataset:
    names = tuple(f"other {name}" for name in dataset.info.class_names)
    return replace(dataset, info=replace(dataset.info, class_names=names))


def test_a_run_starts_with_the_weights_and_the_head_too_where_the_classes_are_the_same(source: Path) -> None:
    assert same_tensors(fresh(images(), source), load_file(source))
    assert read_header(source).class_names == images().info.class_names
    assert "init_from" not in read_header(source).model


def test_other_classes_get_a_new_head(source: Path) -> None:
    started, before = fresh(renamed(images()), source), load_file(source)
    unlike = {name for name in before if not torch.equal(started[name], before[name])}
    assert unlike == {"classifier.4.weight", "classifier.4.bias"}
    plain = fresh(images(), None)
    assert all(torch.equal(started[name], plain[name]) for name in unlike)


def test_weights_that_do_not_fit_name_the_layer(source: Path) -> None:
    other = {"name": "cnn", "blocks": [{"convs": [{"channels": 5, "padding": 1}]}]}
    network = build_fresh_network(
        spec(model=other), build_data(spec(model=other), images(), choose_tuning(spec(), images(), "cpu")), None
    )
    with pytest.raises(SpecError) as caught:
        start_from(network, read_weights(source), images().info.class_names)
    assert "features.0.weight" in caught.value.errors[0]["message"]


EVERYTHING = {
    **STARTED,
    "fine_tuning": {"freeze": ["features.0", "features.1"]},
    "sampler": "balanced",
    "batch_size": 16,
    "augmentation": {"hflip": 0.5},
}


class Interruption:
    """Asks to shut down after so many looks."""

    def __init__(self, after: int) -> None:
        self._looks: Iterator[int] = iter(range(1, after + 1))
        self._after = after

    def __call__(self) -> Any:
        return "shutdown" if next(self._looks, 0) == self._after else None


def test_a_resumed_run_is_identical_to_the_bit(source: Path, tmp_path: Path) -> None:
    whole, parts = MemorySink(), MemorySink()
    train(spec(**EVERYTHING), images(), whole, tmp_path / "whole", device="cpu", initial=source)
    for looks in (5, 9, 10_000):
        outcome = train(
            spec(**EVERYTHING),
            images(),
            parts,
            tmp_path / "parts",
            device="cpu",
            checkpoints=parts.checkpoints(),
            should_stop=Interruption(looks),
            initial=source,
        )
    assert outcome.status == "completed"
    assert figures(parts.epochs) == figures(whole.epochs)
    files = [load_file(tmp_path / folder / "weights-last.safetensors") for folder in ("whole", "parts")]
    assert same_tensors(*files)
    before = load_file(source)
    frozen = [name for name in before if name.startswith(("features.0.", "features.1."))]
    assert len(frozen) == 7  # running statistics among them
    assert all(torch.equal(before[name], files[0][name]) for name in frozen)
    assert not torch.equal(before["classifier.4.weight"], files[0]["classifier.4.weight"])


def test_what_is_frozen_is_no_optimizers_and_gets_no_gradient(source: Path) -> None:
    wanted = spec(**EVERYTHING)
    tuning = choose_tuning(wanted, images(), "cpu")
    data = build_data(wanted, images(), tuning, source)
    state = build_state(wanted, data, build_batches(wanted, data, tuning), tuning, None)
    held = {id(parameter) for name, parameter in state.network.named_parameters() if name.startswith("features.0.")}
    updated = {id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]}
    assert not held & updated
    state.freezing.set_training_mode(1)
    assert not state.network.get_submodule("features.1").training
    assert state.network.get_submodule("classifier").training


def test_a_balanced_epoch_shows_every_class_equally_often() -> None:
    wanted = spec(sampler="balanced")
    tuning = choose_tuning(wanted, images(), "cpu")
    batches = build_batches(wanted, build_data(wanted, images(), tuning), tuning)
    counts = torch.bincount(batches.labels(1))
    assert counts.sum() == len(batches.split)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(batches.order(2), batches.order(2))
    assert not torch.equal(batches.order(1), batches.order(2))
