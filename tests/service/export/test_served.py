"""A network that was downloaded as the lab serves it predicts what the lab does, to the bit."""

import subprocess
import sys
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from models.data.decoding import decode_image, open_image
from models.errors import CorruptFile
from models.evaluation.judging import judge
from service.export.served import unpack
from service.predictions.session import compute_logits
from tests.service.explanations.planted import as_png
from tests.service.lab_of_one import Filled
from tests.service.predictions.test_calibration import about, keep_outputs
from tests.service.predictions.trained import Lab, random_images

API = "/api/v1/experiments"
FAMILIES = ["baseline", {"name": "three_blocks_batch_norm"}, {"name": "squeezenet1_1", "input_size": 64}]


@pytest.mark.parametrize("model", FAMILIES, ids=str)
def test_answers_are_those_of_a_request_to_the_bit(client: TestClient, filled: Filled, model: object) -> None:
    lab = Lab(filled.store, filled.settings)
    trained = lab.train(model, test_time_augmentation="mirror")
    keep_outputs(lab, trained, about(trained))
    seen, session = unpack(client.get(f"{API}/{trained.id}/export?format=served").content)
    files = [as_png(image) for image in random_images(3, trained.preprocessing)]
    parts = [("image", (f"{number}.png", file)) for number, file in enumerate(files)]
    served = client.post(f"{API}/{trained.id}/predictions?top_k=10", files=parts).json()["predictions"]
    images = [decode_image(open_image(file), seen.preprocessing) for file in files]
    for one, found in zip(served, judge(images, compute_logits(session, images), seen.calibration), strict=True):
        told = [(top["index"], top["probability"], top["calibrated_probability"]) for top in one["top"]]
        assert found.top(10) == told
        assert (found.energy, found.unknown_score, found.known) == (one["energy"], one["unknown_score"], one["known"])


def test_it_says_of_which_weights_it_is(client: TestClient, filled: Filled) -> None:
    trained = Lab(filled.store, filled.settings).train()
    filled.settle(trained.claim)
    client.put("/api/v1/models/cats", json={"experiment_id": trained.id})
    by_number = unpack(client.get(f"{API}/{trained.id}/export?format=served").content)[0]
    by_name = unpack(client.get("/api/v1/models/cats/export?format=served").content)[0]
    assert (by_number.model, by_number.version, by_number.epoch, by_number.weights) == (None, None, 3, "best")
    assert by_name == replace(by_number, model="cats", version=1)
    assert by_number.preprocessing == trained.preprocessing
    with pytest.raises(CorruptFile):
        unpack(client.get(f"{API}/{trained.id}/export?format=bundle").content)


def test_predicting_with_it_needs_neither_torch_nor_the_database_and_the_command_itself_no_arrays() -> None:
    code = (
        "import sys, service.cli.main, service.cli.predicting, service.cli.client, models.settings\n"
        "print({'numpy', 'onnxruntime', 'PIL'} & {*sys.modules})\n"
        "import service.cli.local_prediction\n"
        "print({'torch', 'sqlalchemy', 'onnx', 'anyio'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["set()", "set()"]
