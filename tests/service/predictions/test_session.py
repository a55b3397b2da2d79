"""What is served is what was measured: the graph sees the pixels that validation saw."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from safetensors.numpy import save

from models.data.dataset import ImageDataset
from models.data.decoding import to_channels
from models.errors import CorruptFile
from models.evaluation.probabilities import softmax
from models.networks.export import IMAGES, LOGITS, WEIGHTS_FILE, export_graph
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


SMALL: list[dict[str, Any]] = [
    {"name": "fast_resnet", "widths": [8, 8, 8], "input_size": 9},
    {"name": "fast_resnet", "widths": [8, 8, 8]},
    {"name": "fast_resnet", "widths": [8, 8, 8], "input_size": 24},
    {"name": "cnn", "blocks": [{"convs": [{"channels": 4}]}], "input_size": 12},
]
LARGE: dict[str, Any] = {"name": "squeezenet1_1", "pretrained": True, "input_size": 33}


@pytest.mark.parametrize(
    ("model", "version", "dataset"),
    [*itertools.product(SMALL, [1, 2], [images, gray]), (LARGE, 1, gray), (LARGE, 2, images)],
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


def graph_with_file(location: str) -> bytes:
    """A graph that answers with 8 bytes of a file beside its one weight."""
    file = TensorProto(name="file", data_type=TensorProto.UINT8, dims=[8], data_location=TensorProto.EXTERNAL)
    file.external_data.add(key="location", value=location)
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[8], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=WEIGHTS_FILE)
    nodes = [
        helper.make_node("Cast", ["file"], ["bytes"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["bytes", "weight"], [LOGITS]),
    ]
    graph = helper.make_graph(
        nodes,
        "reads",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [8])],
        [file, weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("location", ["secret", "folder/../secret", "../secret", "{folder}/secret", "/etc/passwd"])
def test_a_graph_that_names_a_file_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """As a hostile backup may hold: the file's bytes would be the logits."""
    here = tmp_path / "folder"
    here.mkdir()
    for place in (tmp_path, here):
        (place / "secret").write_bytes(b"password")
    (here / "folder").mkdir()
    monkeypatch.chdir(here)
    graph = graph_with_file(location.format(folder=here))
    with pytest.raises(CorruptFile):
        start_session(graph, save({"weight": np.zeros(8, np.float32)}))
