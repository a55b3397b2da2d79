"""Builds a bundle: a zip with a trained network in every form, a model card, and a program that classifies with it."""

import io
import json
import platform
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy.orm import Session

from models.data.catalogue import get_dataset
from models.data.decoding import decode_image, open_image
from models.errors import Conflict, SpecError
from models.evaluation.calibration import Calibration
from models.evaluation.probabilities import softmax
from models.plain import JsonObject
from models.spec.parse import load_spec
from models.store import Store, experiments, history
from models.text import percent
from service.curves.draw import render_curves
from service.curves.read import read_curves
from service.export.self_contained import self_contained
from service.predictions.calibration import find_calibration
from service.predictions.graphs import Graphs
from service.predictions.session import compute_logits, start_session
from service.predictions.weights import Weights

PROGRAM = Path(__file__).with_name("classify.py")
NUM_COMPARED = 32
TOLERANCE = 1e-5
EPOCH_DATE = (2000, 1, 1, 0, 0, 0)
"""The date of every member, so that the same network gives the same bytes."""
READ_ME = """\
{name}: a trained image classifier, exported from Epochal {version}.

    pip install onnxruntime pillow
    python classify.py cat.png dog.jpg

classify.py           reads what Pillow reads: not HEIC; convert such photos to JPEG
network.onnx          the network with its weights: uint8 images (n, {channels}, {side}, {side}) in, logits out
weights.safetensors   the weights alone, as Epochal stores them
spec.json             what was trained: POST it to a lab to train it again
labels.json           the classes, in the order of the logits
preprocessing.json    what an image is before the network gets it; network.onnx does the rest itself
calibration.json      the temperature that logits are divided by for calibrated probabilities, and the scores of unknown
                      images; null with fewer than 100 validation images and for weights that are not the best
MODEL_CARD.md         data, curves, verdict, limits
curves.png            loss and accuracy by epoch
parity.json           how far network.onnx is from what the lab serves
"""


class Parity(TypedDict):
    """parity.json: the difference between the exported network and the served one, and how it was measured."""

    images_compared: int
    images: str
    largest_difference_of_a_probability: float
    allowed: float
    labels_that_differ: int
    weights_sha256: str
    versions: dict[str, str]
    machine: str


@dataclass(frozen=True, slots=True)
class Known:
    """An experiment's data for the model card."""

    name: str
    spec: JsonObject
    status: str
    summary: str
    findings: list[str]
    epochs: int
    val_accuracy: float | None
    test_accuracy: float | None
    curves: bytes
    fingerprint: str | None


def make_bundle(store: Store, graphs: Graphs, weights: Weights, data: bytes, experiments_dir: Path) -> bytes:
    """Build the zip. Raises Conflict where the network cannot be exported."""
    onnx = b"".join(self_contained(graphs.find(weights), weights, data))
    known = read_known(store, weights)
    calibration = find_calibration(store, weights.experiment_id, weights.sha256, experiments_dir)
    parity = compare(onnx, graphs.find(weights), weights, data)
    seen = weights.preprocessing
    words = {"name": known.name, "version": metadata.version("epochal")}
    members: dict[str, bytes] = {
        "README.txt": READ_ME.format(**words, channels=seen.channels, side=seen.source_size).encode(),
        "MODEL_CARD.md": write_card(known, weights, parity, calibration).encode(),
        "classify.py": PROGRAM.read_bytes(),
        "network.onnx": onnx,
        "weights.safetensors": data,
        "spec.json": _json(known.spec),
        "labels.json": _json(list(seen.class_names)),
        "preprocessing.json": _json(seen.to_json()),
        "calibration.json": _json(asdict(calibration) if calibration else None),
        "curves.png": known.curves,
        "parity.json": _json(parity),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(f"experiment-{weights.experiment_id}-{weights.which}/{name}", EPOCH_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return out.getvalue()


def read_known(store: Store, weights: Weights) -> Known:
    """Read an experiment's data for the model card."""
    with store.reading() as session:
        row = experiments.get(session, weights.experiment_id)
        epochs = history.read(session, row.id)
        own = next((one.val_accuracy for one in epochs if one.epoch == weights.epoch), None)
        verdict = row.verdict
        return Known(
            name=row.name or f"experiment {row.id}",
            spec=dict(row.spec),
            status=row.status.value,
            summary="There is no verdict." if verdict is None else verdict["summary"],
            findings=[] if verdict is None else [one["sentence"] for one in verdict["findings"]],
            epochs=len(epochs),
            val_accuracy=own,
            test_accuracy=row.test["accuracy"] if row.test else None,
            curves=_draw_curves(session, row.id),
            fingerprint=row.dataset_fingerprint,
        )


def _draw_curves(session: Session, experiment_id: int) -> bytes:
    return render_curves(read_curves(session, experiment_id, None).runs, format="png")


def compare(onnx: bytes, graph: bytes, weights: Weights, data: bytes) -> Parity:
    """Run the exported file and what the lab serves on the same images: the parity certificate.

    Raises Conflict if a probability differs by more than 1e-5.
    """
    images = sample_images(weights)
    decoded = [decode_image(open_image(image), weights.preprocessing) for image in images]
    served = softmax(np.stack(compute_logits(start_session(graph, data), decoded)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same sums each time
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    exported = softmax(session.run(["logits"], {"images": np.stack(decoded)})[0])
    largest = float(np.abs(served - exported).max())
    if not largest <= TOLERANCE:
        raise Conflict(
            f"the exported network differs from the served one by {largest:.2g} of a probability", fix="report it"
        )
    return {
        "images_compared": len(images),
        "images": "noise of several grains, encoded as PNG; seed 0",
        "largest_difference_of_a_probability": largest,
        "allowed": TOLERANCE,
        "labels_that_differ": int((served.argmax(axis=1) != exported.argmax(axis=1)).sum()),
        "weights_sha256": weights.sha256,
        "versions": {
            "epochal": metadata.version("epochal"),
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "pillow": metadata.version("pillow"),
            "python": platform.python_version(),
        },
        "machine": platform.machine(),
    }


def sample_images(weights: Weights) -> list[bytes]:
    """Test images: noise with grains from one pixel to a quarter of the image."""
    rng, side = np.random.default_rng(0), weights.preprocessing.source_size
    return [_noise(rng, side, max(1, side >> (2 + number % 4))) for number in range(NUM_COMPARED)]


def _noise(rng: np.random.Generator, side: int, cells: int) -> bytes:
    coarse: NDArray[np.uint8] = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR).save(out, "PNG")
    return out.getvalue()


def write_card(known: Known, weights: Weights, parity: Parity, calibration: Calibration | None) -> str:
    """The model card, in the order of Mitchell et al. 2019 (arXiv 1810.03993)."""
    return "\n".join([*_about(known, weights), *_measured(known, weights, calibration), *_limits(known, parity), ""])


def _about(known: Known, weights: Weights) -> Iterator[str]:
    spec, seen = load_spec(known.spec), weights.preprocessing
    yield f"# {known.name}\n"
    yield f"The weights of the {weights.which} epoch ({weights.epoch}) of experiment {weights.experiment_id}, which is"
    yield f"{known.status}; SHA-256 {weights.sha256}.\n"
    yield "## Network\n"
    yield f"`{weights.model.name}`. Images of {seen.source_size} x {seen.source_size} pixels, {seen.channels} channels,"
    yield f"resized to {seen.input_size}. Classes: {', '.join(map(_quoted, seen.class_names))}.\n"
    yield "## Data\n"
    try:
        info = get_dataset(spec.dataset.name)
    except SpecError:
        yield f"Trained on {spec.dataset.name}."
    else:
        yield f"Trained on {info.title}: {info.num_train:,} training and {info.num_test:,} test images."
        yield f"Source: {info.source}. Licence: {info.licence}."
    yield f"Of the training images {percent(spec.dataset.val_fraction)} are held out for validation."
    if known.fingerprint:
        yield f"Fingerprint: {known.fingerprint}."


def _quoted(name: str) -> str:
    """A class's name as it stands in a list: in quotes if it has a comma, marks of Markdown, or line breaks."""
    if re.fullmatch(r"[^\W_][\w .'()/-]*", name):
        return name
    fence = "``" if "`" in name else "`"
    return f"{fence}{json.dumps(name, ensure_ascii=False)}{fence}"


def _measured(known: Known, weights: Weights, calibration: Calibration | None) -> Iterator[str]:
    yield "\n## Measured\n"
    yield "![Loss and accuracy by epoch](curves.png)\n"
    if known.val_accuracy is not None:
        yield f"- Validation accuracy of these weights: {known.val_accuracy:.4f}. It chose the best epoch."
    if known.test_accuracy is not None:
        yield f"- Test accuracy of the best weights: {known.test_accuracy:.4f}."
    if calibration:
        yield f"- Expected calibration error on the validation split: {calibration.error:.4f}, and"
        yield f"  {calibration.calibrated_error:.4f} with logits divided by {calibration.temperature:.4f}."
    yield "\n## Verdict\n"
    yield known.summary
    yield from (f"- {sentence}" for sentence in known.findings)


def _limits(known: Known, parity: Parity) -> Sequence[str]:
    return [
        "\n## Limits\n",
        "- Every image gets one of the classes above, whatever it shows; a high probability proves nothing.",
        "- Accuracy holds for images like those of the dataset: their size, framing, cameras and share of classes.",
        "- Nobody has looked for differences between groups of people or places. Do not decide about people by it.",
        f"- {known.epochs} epochs were trained once; another seed gives other mistakes.",
        "\n## Parity\n",
        f"`network.onnx` and the lab were asked about {parity['images_compared']} images: the largest difference of a",
        f"probability is {parity['largest_difference_of_a_probability']:.2g} (parity.json has the versions).",
    ]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
