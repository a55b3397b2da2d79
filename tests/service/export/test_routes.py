"""Downloads: a file that onnxruntime alone gives the served answers with, and the stored weights."""

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.service.lab_of_one import Filled
from tests.service.predictions.trained import Lab, Trained, random_images

API = "/api/v1/experiments"


@pytest.fixture
def trained(filled: Filled) -> Trained:
    """An experiment with weights."""
    return Lab(filled.store, filled.settings).train("three_blocks_batch_norm", test_time_augmentation="mirror")


def test_the_onnx_file_needs_nothing_beside_it_and_gives_the_served_answers(
    client: TestClient, trained: Trained, tmp_path: Path
) -> None:
    answer = client.get(f"{API}/{trained.id}/export?format=onnx")
    assert answer.status_code == 200, answer.text
    assert f'filename="experiment-{trained.id}-best.onnx"' in answer.headers["content-disposition"]
    path = tmp_path / "network.onnx"
    path.write_bytes(answer.content)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    classes = session.get_modelmeta().custom_metadata_map["classes"].split("\n")
    images = random_images(4, trained.preprocessing)
    files = []
    for image in images:
        out = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(out, "PNG")
        files.append(("image", ("image.png", out.getvalue())))
    served = client.post(f"{API}/{trained.id}/predictions?top_k=10", files=files).json()["predictions"]
    logits = session.run(["logits"], {"images": np.stack(images)})[0].astype(float)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, one in zip(softmax, served, strict=True):
        assert classes[int(row.argmax())] == one["label"]
        assert max(abs(row[each["index"]] - each["probability"]) for each in one["top"]) < 1e-5


def test_the_weights_are_the_stored_file(client: TestClient, trained: Trained) -> None:
    answer = client.get(f"{API}/{trained.id}/export?format=safetensors")
    assert answer.content == (trained.path / "weights-best.safetensors").read_bytes()


def test_what_cannot_be_exported_says_why(client: TestClient, trained: Trained) -> None:
    assert client.get(f"{API}/999/export").status_code == 404
    assert client.get(f"{API}/{trained.id}/export?format=pickle").status_code == 422
    assert "has no last weights" in client.get(f"{API}/{trained.id}/export?weights=last").json()["detail"]
    (trained.path / "weights-best.safetensors").write_bytes(b"damaged")
    answer = client.get(f"{API}/{trained.id}/export")
    assert (answer.status_code, "do not match their digest" in answer.json()["detail"]) == (409, True)
