"""onnxruntime sessions: a network's graph with its weights, ready to predict.

Images are run one at a time, in one thread each: a result cannot depend on other images, and threads do not wait for
each other (a session may run in several threads, and releases Python's global interpreter lock).
"""

import json
from collections.abc import Sequence
from math import prod

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as states

from models.errors import CorruptFile

IMAGES, LOGITS, BATCH = "images", "logits", "batch"
"""Names in the graph: see models.networks.export."""
FLOATS = {"F32": "<f4", "F16": "<f2"}
ERRORS_ONLY = 3
EXTERNAL_FILES, NOWHERE = "session.model_external_initializers_file_folder_path", "/dev/null"
"""The folder of external weights: none. Otherwise a graph from a restored backup could refer to files below the working
directory, and predictions would disclose their content."""
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading raises for a file that this lab did not write: it may come from a restored backup."""
MISFITS = (states.Fail, states.InvalidArgument, states.InvalidGraph, states.InvalidProtobuf, states.RuntimeException)
"""What onnxruntime raises for weights that do not fit the graph, and for an invalid graph."""


def start_session(graph: bytes, weights: bytes) -> InferenceSession:
    """A session for single images, of a graph without weights and the content of a weights file (safetensors).

    Raises CorruptFile if they are not of one network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.add_free_dimension_override_by_name(BATCH, 1)
    options.add_session_config_entry(EXTERNAL_FILES, NOWHERE)
    try:
        tensors = read_tensors(weights)
        values = [OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
        options.add_external_initializers(list(tensors), values)
        return InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except (*MISFITS, *UNREADABLE) as error:
        raise CorruptFile("weights do not fit their network") from error


def compute_logits(session: InferenceSession, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """Logits of the classes for each image (channels, source_size, source_size)."""
    return [session.run([LOGITS], {IMAGES: image[None]})[0][0] for image in images]


def read_tensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors of a safetensors file by name: 32-bit ones as views of its bytes, 16-bit ones as 32-bit copies.

    Integer tensors (counters of batch normalisation) are skipped. The format:
    https://huggingface.co/docs/safetensors/index#format
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and (kind := FLOATS.get(entry["dtype"])) is not None:
            offset, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
            values = np.frombuffer(data, kind, count=prod(shape), offset=offset).reshape(shape)
            tensors[name] = values.astype("<f4", copy=False)
    return tensors
