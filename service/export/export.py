"""A trained network as files that others use: a self-contained ONNX file, or the weights as they are stored."""

from collections.abc import Iterator
from dataclasses import dataclass

from models.errors import Conflict, CorruptFile
from models.settings import Settings
from models.store import Store
from service.predictions.graphs import Graphs
from service.predictions.session import read_tensors
from service.predictions.weights import Weights, find_record, read_weights


@dataclass(frozen=True, slots=True)
class Exported:
    """A file to download."""

    name: str
    tag: str
    """Changes when the content does."""
    parts: Iterator[bytes]


def export(
    store: Store, settings: Settings, graphs: Graphs, experiment_id: int, which: str, file_format: str
) -> Exported:
    """An experiment's best or last weights as `onnx` or `safetensors`.

    Raises NotFound without such an experiment, Conflict where it has no weights or they are damaged.
    """
    record = find_record(store, experiment_id, which)
    try:
        weights, data = read_weights(record, which, settings.experiments_dir)
    except CorruptFile as error:
        raise Conflict(f"{error.detail}, so they are not exported", fix="resume or reproduce the experiment") from error
    name = f"experiment-{experiment_id}-{which}.{file_format}"
    if file_format == "safetensors":
        return Exported(name, weights.sha256, iter([data]))
    parts = self_contained(graphs.find(weights), weights, data)
    return Exported(name, f"onnx-{weights.sha256}", parts)


def self_contained(graph: bytes, weights: Weights, data: bytes) -> Iterator[bytes]:
    """The graph with its weights inside, piece by piece: an ONNX file that needs nothing beside it.

    Protocol Buffers merges messages that follow each other, so each tensor is a message of its own behind the graph's,
    and no more than one of them is held twice. https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    import onnx  # not at the top: the API needs it for nothing else

    model = onnx.load_model_from_string(graph)
    del model.graph.initializer[:]
    about = {
        "classes": "\n".join(weights.preprocessing.class_names),
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
