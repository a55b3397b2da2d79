"""Exports a trained network: a self-contained ONNX file, the weights as they are stored, or a bundle."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from models.errors import Conflict, CorruptFile
from models.settings import Settings
from models.store import Store
from service.export.bundle import make_bundle
from service.export.self_contained import self_contained
from service.export.served import About, pack
from service.predictions.calibration import find_calibration
from service.predictions.graphs import Graphs
from service.predictions.weights import find_record, read_weights

BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Exported:
    """A file to download."""

    name: str
    tag: str
    """Changes when the content does."""
    media_type: str
    parts: Iterator[bytes]


class ExportFormat(StrEnum):
    """The form that a network is downloaded in."""

    ONNX = "onnx"
    """A self-contained ONNX file: uint8 images in, logits out."""
    SAFETENSORS = "safetensors"
    """The weights as stored."""
    BUNDLE = "bundle"
    """A zip of both with a model card and a program that classifies with it."""
    SERVED = "served"
    """All that a prediction depends on, as the lab has it: for `epochal classify --csv`."""


def export(
    store: Store,
    settings: Settings,
    graphs: Graphs,
    experiment_id: int,
    which: str,
    form: ExportFormat,
    model: str | None = None,
    version: int | None = None,
) -> Exported:
    """An experiment's best or last weights as a file, called for a model's version or for the experiment.

    Raises NotFound without such an experiment, Conflict where it has no weights or they are damaged.
    """
    record = find_record(store, experiment_id, which)
    try:
        weights, data = read_weights(record, which, settings.experiments_dir)
    except CorruptFile as error:
        raise Conflict(f"{error.detail}, so they are not exported", fix="resume or reproduce the experiment") from error
    name = f"experiment-{experiment_id}-{which}" if model is None else f"{model}-{version}"
    if form is ExportFormat.SAFETENSORS:
        return Exported(f"{name}.safetensors", weights.sha256, BINARY, iter([data]))
    if form is ExportFormat.ONNX:
        parts = self_contained(graphs.find(weights), weights, data)
        return Exported(f"{name}.onnx", f"onnx-{weights.sha256}", BINARY, parts)
    if form is ExportFormat.SERVED:
        calibration = find_calibration(store, experiment_id, weights.sha256, settings.experiments_dir)
        about = About(experiment_id, which, weights.epoch, model, version, weights.preprocessing, calibration)
        content = pack(about, graphs.find(weights), data)
    else:
        content = make_bundle(store, graphs, weights, data, settings.experiments_dir)
    return Exported(f"{name}.zip", hashlib.sha256(content).hexdigest(), "application/zip", iter([content]))
