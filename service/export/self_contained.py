"""Builds one ONNX file that contains a network's weights."""

import json
from collections.abc import Iterator

from models.errors import Conflict
from service.predictions.session import read_tensors
from service.predictions.weights import Weights

MOST_BYTES = 2**31 - 1
"""Of a message of Protocol Buffers, which an ONNX file is: no program reads a larger one.
https://protobuf.dev/programming-guides/proto-limits/"""
ROOM = 10_000_000
"""More bytes than are added to graph and weights: names and sizes of tensors, classes."""


def self_contained(graph: bytes, weights: Weights, data: bytes) -> Iterator[bytes]:
    """An ONNX file of a graph with its weights inside, piece by piece. Raises Conflict where it would be too large."""
    if len(graph) + len(data) + ROOM > MOST_BYTES:
        raise Conflict(
            f"the weights have {len(data) / 1e9:.1f} GB, and an ONNX file with weights inside has at most 2 GiB",
            fix="download format=safetensors or format=served, or classify with `epochal classify --csv`",
        )
    return _parts(graph, weights, data)


def _parts(graph: bytes, weights: Weights, data: bytes) -> Iterator[bytes]:
    """Yield the file's pieces.

    Protocol Buffers merges messages that follow each other, so each tensor is a message of its own behind the graph's,
    and no more than one of them is held twice. https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    import onnx  # not at the top: the API needs it for nothing else

    model = onnx.load_model_from_string(graph)
    constants = [one for one in model.graph.initializer if one.data_location != onnx.TensorProto.EXTERNAL]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)  # such as the indices of Swin's windows, which are no weights
    about = {
        "classes": json.dumps(weights.preprocessing.class_names, ensure_ascii=False),
        "experiment": str(weights.experiment_id),
        "weights": f"{weights.which}, epoch {weights.epoch}, sha256 {weights.sha256}",
    }
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    yield model.SerializeToString()
    for name, tensor in read_tensors(data).items():
        part = onnx.ModelProto()
        part.graph.initializer.add(
            name=name, data_type=onnx.TensorProto.FLOAT, dims=tensor.shape, raw_data=tensor.tobytes()
        )
        yield part.SerializeToString()
