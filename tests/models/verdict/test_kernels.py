"""What the filters' health becomes in words."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from models.findings import Finding
from models.verdict.filters import ConvolutionHealth, FilterHealth
from models.verdict.kernels import report_kernels
from tests.models.verdict.histories import make_history, verdict_on
from worker.training.diagnosis.filters import filter_health


def report(*layers: dict[str, Any], movement: dict[str, float] | None = None, **more: Any) -> dict[str, Finding]:
    healthy = ConvolutionHealth(num_filters=32, noise_like=[])
    convolutions = {f"features.{i}": replace(healthy, **layer) for i, layer in enumerate(layers)}
    filters = FilterHealth(convolutions, movement, num_images=200)
    return {finding.code: finding for finding in report_kernels(None, filters, **more)}


def test_healthy_filters_are_passed_over() -> None:
    assert report({"saturated": []}, {}) == {}


def test_dead_filters_weigh_by_their_share_and_a_dead_layer_is_a_problem() -> None:
    assert report({}, {"dead": [1]})["dead-kernels"].severity == "info"
    assert report({}, {"dead": list(range(10))})["dead-kernels"].severity == "warning"
    found = report({}, {"dead": list(range(32))})["dead-kernels"]
    assert found.severity == "problem"
    assert found.sentence.startswith("Every filter of features.1 is dead, so it passes nothing on.")
    assert "never fire on any of the images shown" in found.sentence


def test_saturated_kernels_of_a_fixed_first_layer_are_its_nature() -> None:
    assert "saturated-kernels" in report({"saturated": [0, 1]})
    assert "saturated-kernels" not in report({"saturated": [0, 1], "fixed": True})


def test_duplicates_are_said_in_the_first_layer_always_and_elsewhere_when_many() -> None:
    few = {"num_duplicates": 1, "duplicates": [[0, 1, 0.99]]}
    assert "duplicate-kernels" in report(few)
    assert "duplicate-kernels" not in report({}, few)
    assert "duplicate-kernels" in report({}, {**few, "num_duplicates": 8})


def test_noise_is_said_of_layers_most_of_whose_filters_look_like_it() -> None:
    assert "noise-kernels" in report({"noise_like": list(range(20))})
    assert "noise-kernels" not in report({}, {"noise_like": list(range(20))})
    assert "noise-kernels" in report({}, {"noise_like": list(range(30))})
    one = report({"noise_like": list(range(20))}, {"noise_like": []})["noise-kernels"]
    assert one.sentence.startswith("Most filters of features.0 look like noise")
    both = report({"noise_like": list(range(20))}, {"noise_like": list(range(30))})["noise-kernels"]
    assert both.sentence.startswith("In both layers (features.0 and features.1) most filters look like noise")


def test_movement_names_the_extremes_and_warns_when_pretraining_was_overwritten() -> None:
    movement = {"features.0": 0.02, "features.1": 0.9}
    assert report({}, {}, movement=movement)["layer-movement"].severity == "info"
    found = report({}, {}, movement=movement, pretrained=True)["layer-movement"]
    assert found.severity == "warning"
    assert "changed by 2.0% (features.0) to 90.0% (features.1) of their norm" in found.sentence


def by_epoch(kernels: np.ndarray) -> dict[int, np.ndarray]:
    return dict(enumerate(kernels, 1))


def test_the_first_layer_settles_or_moves_on() -> None:
    still = by_epoch(np.ones((10, 4, 3, 3, 3)))
    moving = by_epoch(np.linspace(1, 3, 10)[:, None, None, None, None] * np.ones((10, 4, 3, 3, 3)))
    assert report_kernels(still, None)[0].code == "first-layer-settled"
    assert report_kernels(moving, None)[0].code == "first-layer-moving"
    assert report_kernels({epoch: still[epoch] for epoch in (1, 2)}, None) == []
    assert report_kernels(by_epoch(np.full((10, 4, 3, 3, 3), np.nan)), None) == []


def test_a_real_networks_filters_are_judged_with_its_history() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU())
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        network[0].bias[:8] = -100.0
    filters = filter_health(network, start, images=torch.randn(16, 3, 12, 12))
    history = make_history([1.0, 0.9, 0.8, 0.75], [0.5, 0.6, 0.65, 0.66], [1.0, 0.9, 0.8, 0.7])
    kernels = by_epoch(np.stack([network[0].weight.detach().numpy()] * 4))
    verdict = verdict_on(history, kernels=kernels, filters=filters)
    codes = {finding.code for finding in verdict.findings}
    assert codes >= {"dead-kernels", "noise-kernels", "layer-movement", "first-layer-settled"}
    json.dumps(verdict.as_json(), allow_nan=False)
