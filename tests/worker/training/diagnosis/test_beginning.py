"""What a run began with: the order of its images, copies in both splits, and the network before its first step."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.verdict.beginning import Beginning
from tests.worker.training.tiny import NETWORK, images, spec
from worker.training.batches.loader import Split
from worker.training.build import Data, build_batches, build_data, build_fresh_network
from worker.training.diagnosis.beginning import classes_in_batches, count_shared, measure_beginning
from worker.training.tuning import choose_tuning

SPEC = spec(model=NETWORK)


def parts() -> tuple[nn.Module, Data]:
    data = build_data(SPEC, images(), choose_tuning(SPEC, images(), "cpu"))
    return build_fresh_network(SPEC, data, None), data


def measured(change: Callable[[nn.Module], None] = lambda network: None) -> Beginning:
    network, data = parts()
    with torch.no_grad():
        change(network)
    batches = build_batches(SPEC, data, choose_tuning(SPEC, images(), "cpu"))
    found = measure_beginning(network, data, batches, SPEC.batch_size)
    assert found is not None
    return found


def test_a_healthy_beginning() -> None:
    found = measured()
    assert (found.num_train_images, found.num_val_images, found.shared_images) == (160, 40, 0)
    assert found.num_outputs == 10
    assert found.loss == pytest.approx(2.303, abs=0.3)
    assert abs(found.input_mean) < 1
    assert 0.2 < found.input_std < 2
    assert found.output_spread > 0.001
    assert found.classes_per_batch == pytest.approx(found.classes_expected, rel=0.1)
    assert list(found.layers) == ["features.0", "features.5", "classifier.1", "classifier.4"]
    assert all(layer.gradient_norm > 0 and not layer.silent for layer in found.layers.values())


@pytest.mark.parametrize("layer", ["features.5", "classifier.1"])
def test_a_layer_of_relus_that_never_fire_is_silent_and_passes_no_gradient(layer: str) -> None:
    found = measured(lambda network: nn.init.constant_(network.get_submodule(layer).bias, -100.0))  # type: ignore[arg-type]
    assert [name for name, start in found.layers.items() if start.silent] == [layer]
    assert found.layers["features.0"].gradient_norm == 0
    assert found.output_spread == 0


def test_batch_normalisation_is_that_of_training_so_a_bias_before_it_kills_nothing() -> None:
    found = measured(lambda network: nn.init.constant_(network.get_submodule("features.0").bias, -100.0))  # type: ignore[arg-type]
    assert not any(start.silent for start in found.layers.values())


def test_frozen_layers_are_measured_and_stay_frozen() -> None:
    network, data = parts()
    network.get_submodule("features").requires_grad_(False)
    network.train()
    state = torch.get_rng_state()
    batches = build_batches(SPEC, data, choose_tuning(SPEC, images(), "cpu"))
    found = measure_beginning(network, data, batches, SPEC.batch_size)
    assert found is not None
    assert found.layers["features.0"].gradient_norm > 0
    assert not network.get_submodule("features.0").weight.requires_grad  # type: ignore[union-attr]
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(state, torch.get_rng_state()), "nothing is drawn"


def test_batches_in_the_order_of_classes_hold_few_of_them() -> None:
    labels = torch.arange(10).repeat_interleave(32)
    found, expected = classes_in_batches(labels, range(0, 321, 32))
    assert found == 1
    assert expected == pytest.approx(10 * (1 - 0.9**32))


def split(pixels: Tensor, indices: list[int]) -> Split:
    return Split(pixels, torch.zeros(len(pixels), dtype=torch.int64), torch.tensor(indices))


def test_copies_are_counted_by_every_pixel() -> None:
    pixels = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[5] = pixels[1]
    pixels[6] = pixels[2]
    pixels[6, 1, 3, 5] += 1
    assert count_shared(split(pixels, [0, 1, 2, 3]), split(pixels, [4, 5, 6, 7])) == 1
    assert count_shared(split(pixels, [0, 2, 3]), split(pixels, [4, 5, 6, 7])) == 0
    blank = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    blank[:3, 0, 0, 0] = torch.arange(3, dtype=torch.uint8)
    assert count_shared(split(blank, [1, 2]), split(blank, [0, 3, 4, 5])) == 0, "images that are alike in most pixels"
