"""What is served is what was measured: the graph sees the pixels that validation saw."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from models.data.dataset import ImageDataset
from models.data.decoding import to_channels
from models.evaluation.probabilities import softmax
from models.networks.export import export_graph
from models.spec.parse import parse_spec
from service.predictions.session import compute_logits, start_session
from tests.worker.training.tiny import images
from worker.training.batches.loader import plain_batches
from worker.training.build import build_data, build_fresh_network
from worker.training.tuning import choose_tuning


def gray() -> ImageDataset:
    """The tiny images in one channel."""
    whole = images()
    info = replace(whole.info, channels=1, mean=(0.4,), std=(0.25,))
    return replace(whole, info=info, train_images=whole.train_images[:, :1], test_images=whole.test_images[:, :1])


@pytest.mark.parametrize("dataset", [images, gray])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "model",
    [
        {"name": "fast_resnet", "widths": [8, 8, 8], "input_size": 9},
        {"name": "fast_resnet", "widths": [8, 8, 8]},
        {"name": "fast_resnet", "widths": [8, 8, 8], "input_size": 24},
        {"name": "cnn", "blocks": [{"convs": [{"channels": 4}]}], "input_size": 12},
        {"name": "squeezenet1_1", "pretrained": True, "input_size": 33},
    ],
)
def test_a_served_answer_is_what_validation_gives(model: dict[str, Any], version: int, dataset: Any) -> None:
    spec = parse_spec({"model": model, "spec_version": version, "dataset": {"val_limit": 8}})
    data = build_data(spec, dataset(), choose_tuning(spec, dataset(), "cpu"))
    validation = next(plain_batches(data.validation, data.input_format, 8)).images

    from_scratch = spec.model_copy(update={"model": spec.model.model_copy(update={"pretrained": False})})
    network = build_fresh_network(from_scratch, data, None).to(memory_format=torch.contiguous_format).eval()
    with torch.inference_mode():
        expected = torch.softmax(network(validation).double(), dim=1).numpy()

    graph = export_graph(spec.model, data.preprocessing, "none")
    session = start_session(graph, safetensors.torch.save(network.state_dict()))
    squares = [np.moveaxis(image, 0, -1).squeeze() for image in dataset().train_images[data.validation.indices]]
    channels = data.preprocessing.channels
    served = softmax(np.stack(compute_logits(session, [to_channels(square, channels) for square in squares])))
    assert len(served) == len(validation)
    assert np.abs(served - expected).max() < 1e-6
