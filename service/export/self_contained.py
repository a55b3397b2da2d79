"""Builds one ONNX file that contains a network's weights."""

import json
from collections.abc import Iterator

from service.predictions.session import read_tensors
from service.predictions.weights import Weights


def self_contained(graph: bytes, weights: Weights, data: bytes) -> Iterator[bytes]:
    """Yield an ONNX file of the graph with its weights inside, piece by piece.

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
