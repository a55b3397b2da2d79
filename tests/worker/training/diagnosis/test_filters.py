"""Filter health on networks whose filters are made to be dead, alike, noise or saturated."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.verdict.settling import settling_epoch
from worker.training.diagnosis.activity import watch_activity
from worker.training.diagnosis.filters import filter_health, layer_movement, noise_like


def network(*, inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Conv2d(16, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace)
    )


def images(count: int = 64) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def gratings(count: int, channels: int, size: int) -> np.ndarray:
    """Filters that are stripes of random direction: as structured as kernels come."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    angle, phase = rng.uniform(0, np.pi, (2, count, channels, 1, 1))
    return np.asarray(np.sin(1.2 * (x * np.cos(angle) + y * np.sin(angle)) + phase))


def test_a_new_networks_filters_are_noise_and_neither_dead_nor_alike() -> None:
    found = filter_health(network(), images=images()).convolutions
    assert list(found) == ["0", "3"]
    assert found["0"].dead == []
    assert found["0"].duplicates == []
    assert len(found["0"].noise_like) >= 13


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("channels", [1, 3, 64])
def test_random_weights_are_noise_and_stripes_are_not(size: int, channels: int) -> None:
    random = np.random.default_rng(1).standard_normal((200, channels, size, size))
    assert np.mean(noise_like(random)) > 0.88
    if size * size * channels >= 25:
        assert np.mean(noise_like(gratings(200, channels, size))) < 0.1


def test_edges_in_any_colour_and_fine_stripes_are_structure() -> None:
    rng = np.random.default_rng(3)
    gray = np.repeat(rng.standard_normal((100, 1, 3, 3)), 3, axis=1) + 0.2 * rng.standard_normal((100, 3, 3, 3))
    assert np.mean(noise_like(gray)) < 0.05
    board = np.indices((5, 5)).sum(axis=0) % 2 * 2.0 - 1
    assert not noise_like(board + 0.3 * rng.standard_normal((20, 1, 5, 5))).any()


def test_heavy_tails_and_unequal_channels_do_not_look_like_structure() -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_t(3, (300, 16, 3, 3)) * rng.gamma(0.3, size=(300, 16, 1, 1))
    assert np.mean(noise_like(weights)) > 0.85


def test_a_filter_without_weight_is_dead() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight[3] *= 1e-4
    assert filter_health(net).convolutions["0"].dead == [3]


@pytest.mark.parametrize("inplace", [False, True])
def test_a_filter_that_never_fires_is_dead_also_behind_batch_normalisation(inplace: bool) -> None:
    net = network(inplace=inplace)
    with torch.no_grad():
        net[0].bias[5] = -1e3
        net[4].weight[2], net[4].bias[2] = 0.0, -1.0
    found = filter_health(net, images=images()).convolutions
    assert found["0"].dead == [5]
    assert 2 in found["3"].dead
    assert filter_health(net).convolutions["0"].dead == []  # its weights alone look well


def test_a_filter_that_always_fires_is_saturated_in_the_first_layer_only() -> None:
    net = network()
    with torch.no_grad():
        net[0].bias[1] = 1e3
        net[4].bias[0] = 1e3
    found = filter_health(net, images=images()).convolutions
    assert found["0"].saturated == [1]
    assert found["3"].saturated is None


def test_filters_that_point_the_same_way_are_duplicates_whatever_their_length() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight[7] = 3 * net[0].weight[2] + 0.001 * torch.randn(3, 5, 5)
        net[0].weight[9] = -net[0].weight[2]
    found = filter_health(net).convolutions["0"]
    assert [pair[:2] for pair in found.duplicates] == [(2, 7)]
    assert found.num_duplicates == 1


def test_kernels_of_one_pixel_have_no_shape_to_judge() -> None:
    net = nn.Sequential(nn.Conv2d(8, 4, 1))
    assert filter_health(net).convolutions["0"].noise_like is None


def test_movement_is_relative_to_the_start_and_leaves_a_new_head_out() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        net[0].weight *= 1.5
    start["2.weight"] = torch.zeros(1000, 16)
    assert layer_movement(net, start) == pytest.approx({"0": 0.5})
    assert layer_movement(net, None) is None


def test_a_shortcut_added_in_place_hides_the_convolution_from_judgement() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

        def forward(self, inputs: Tensor) -> Tensor:
            out = self.second(self.relu(self.first(inputs)))
            out += inputs
            return self.relu(out)

    assert set(watch_activity(Residual(), images())) == {"first"}


def test_the_network_is_left_as_it_was() -> None:
    net = network()
    net[4].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    filter_health(net, before, images=images())
    assert [module.training for module in net] == [True, True, True, True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def path(*places: float) -> dict[int, np.ndarray]:
    """Kernels by epoch that lie at these distances from their final self."""
    final = np.ones((2, 1, 3, 3))
    away = np.zeros_like(final)
    away[0, 0, 0, 0] = np.linalg.norm(final)
    return {epoch: final + place * away for epoch, place in enumerate(places, 1)}


def test_the_first_layer_has_settled_when_it_stays_near_its_end() -> None:
    assert settling_epoch(path(0.9, 0.5, 0.2, 0.05, 0.01, 0.02, 0.01, 0.0, 0.0, 0.0)) == 4
    assert settling_epoch(path(0.9, 0.05, 0.2, 0.05, 0.01, 0.02, 0.01, 0.0, 0.0, 0.0)) == 4
    assert settling_epoch(path(0.05, 0.02, 0.01, 0.0)) == 1


def test_a_thinned_history_settles_at_an_epoch_that_is_kept() -> None:
    whole = path(*[0.9] * 30, *[0.05] * 70)
    assert settling_epoch(whole) == 31
    assert settling_epoch({epoch: whole[epoch] for epoch in (1, 9, 17, 25, 33, 41, 100)}) == 33


def test_a_layer_that_moves_to_the_end_has_not_settled() -> None:
    assert settling_epoch(path(*np.linspace(0.9, 0, 10))) is None
    assert settling_epoch(path(0.5, 0.0)) is None
    assert settling_epoch(path(0.5, np.nan, 0.1, 0.0)) is None
