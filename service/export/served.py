"""A network as the lab serves it, in one file: `epochal classify --csv` downloads it and predicts on its own machine.

The file is a zip of members that are not compressed: the graph and the weights as they are stored, and `about.json`.
"""

import io
import json
import zipfile
from dataclasses import asdict, dataclass

from onnxruntime import InferenceSession

from models.errors import CorruptFile
from models.evaluation.calibration import Calibration
from models.preprocessing import Preprocessing
from service.predictions.session import LOGITS, UNREADABLE, start_session

FORM = 1
"""Version of the file and of what is predicted with it. To be raised when an image's pixels, probabilities or score are
computed in another way than before: a command of another version then refuses the file."""
ABOUT, GRAPH, WEIGHTS = "about.json", "graph.onnx", "weights.safetensors"
LARGEST_SIDE = 4096
"""Of images, in a file from elsewhere."""


@dataclass(frozen=True, slots=True)
class About:
    """Which weights they are, and everything beside graph and weights that a prediction depends on."""

    experiment_id: int
    weights: str
    """best or last."""
    epoch: int | None
    model: str | None
    """The model's name in the request; None if an experiment was named."""
    version: int | None
    preprocessing: Preprocessing
    calibration: Calibration | None
    form: int = FORM

    def to_json(self) -> str:
        """As a JSON document."""
        return json.dumps({**asdict(self), "preprocessing": self.preprocessing.to_json()}, sort_keys=True)


def pack(about: About, graph: bytes, weights: bytes) -> bytes:
    """The file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((ABOUT, about.to_json().encode()), (GRAPH, graph), (WEIGHTS, weights)):
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def unpack(content: bytes) -> tuple[About, InferenceSession]:
    """The network of a file that `pack` made, ready to predict as the lab does. Raises CorruptFile for any other."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise ValueError("a member is compressed")
            about = _read_about(archive.read(ABOUT))
            session = start_session(archive.read(GRAPH), archive.read(WEIGHTS))
        num_logits = next(output.shape[-1] for output in session.get_outputs() if output.name == LOGITS)
        if num_logits != len(about.preprocessing.class_names):
            raise ValueError(f"{num_logits} logits are of {len(about.preprocessing.class_names)} classes")
    except (*UNREADABLE, OSError, NotImplementedError, StopIteration, zipfile.BadZipFile) as error:
        raise CorruptFile(f"it cannot be read as a network: {error}") from error
    return about, session


def _read_about(text: bytes) -> About:
    data = json.loads(text)
    if data["form"] != FORM:
        raise CorruptFile(f"its network has the form {data['form']!r:.20}, and this version of Epochal reads {FORM}")
    seen, calibration = Preprocessing.from_json(data["preprocessing"]), data["calibration"]
    sides = seen.source_size, seen.input_size
    if not (1 <= min(sides) <= max(sides) <= LARGEST_SIDE and seen.channels in (1, 3)):
        raise ValueError("no image has such a size")
    return About(
        experiment_id=int(data["experiment_id"]),
        weights=str(data["weights"]),
        epoch=None if data["epoch"] is None else int(data["epoch"]),
        model=None if data["model"] is None else str(data["model"]),
        version=None if data["version"] is None else int(data["version"]),
        preprocessing=seen,
        calibration=None if calibration is None else Calibration.from_json(calibration),
    )
