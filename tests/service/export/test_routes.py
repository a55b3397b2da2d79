"""Downloads: a file that onnxruntime alone gives the served answers with, and the stored weights."""

import io
import json
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.data.decoding import decode_image, open_image
from service.export import self_contained
from tests.service.explanations.planted import MODEL, as_png
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
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
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


def test_a_network_that_an_onnx_file_cannot_hold_says_which_formats_can(
    client: TestClient, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RegNet-y-128gf and ViT-H have 2.5 GB of weights: files that no program could read were sent."""
    monkeypatch.setattr(self_contained, "MOST_BYTES", self_contained.ROOM)
    for form in ("onnx", "bundle"):
        answer = client.get(f"{API}/{trained.id}/export?format={form}")
        assert answer.status_code == 409
        assert "an ONNX file with weights inside has at most 2 GiB" in answer.json()["detail"]
        assert "format=safetensors" in answer.json()["fix"]
    for form in ("safetensors", "served"):
        assert client.get(f"{API}/{trained.id}/export?format={form}").status_code == 200


# The bundle


@pytest.fixture
def small(filled: Filled) -> Trained:
    """A network of few weights."""
    return Lab(filled.store, filled.settings).train(MODEL, test_time_augmentation="mirror")


def bundle_of(client: TestClient, address: str) -> zipfile.ZipFile:
    answer = client.get(f"{address}?format=bundle")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(answer.content))


ALONE = """\
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'torch', 'torchvision', 'onnx', 'models', 'service', 'worker', 'safetensors'}:
            raise ImportError(f'{name} is not installed')
sys.meta_path.insert(0, Nothing())
import runpy
program = sys.argv.pop(1)
sys.argv[0] = program
runpy.run_path(program, run_name='__main__')
"""


def test_the_bundles_program_alone_gives_the_served_labels_of_a_thousand_images(
    client: TestClient, small: Trained, tmp_path: Path
) -> None:
    bundle = bundle_of(client, f"{API}/{small.id}/export")
    bundle.extractall(tmp_path)
    folder = tmp_path / f"experiment-{small.id}-best"
    program = folder / "classify.py"
    assert len(program.read_text().splitlines()) <= 40
    images = random_images(990, small.preprocessing)
    files = {f"{number:03d}.png": as_png(image) for number, image in enumerate(images)}
    rng = np.random.default_rng(3)
    photo = Image.fromarray(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)).resize((400, 240))
    clear = photo.convert("RGBA")
    clear.putalpha(photo.convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, picture, options in (
        ("a.jpg", photo, {}),
        ("b.jpg", photo, {"exif": turned.tobytes()}),
        ("c.png", clear, {"exif": turned.tobytes()}),
        ("d.gif", photo, {}),
        ("e.png", photo.convert("I;16"), {}),
        ("f.webp", photo, {}),
        ("g.jpg", photo.convert("CMYK"), {}),
        ("h.bmp", photo.convert("L"), {}),
        ("i.jpg", photo, {"exif": b"Exif\0\0no TIFF header"}),
        ("j.jpg", photo, {"exif": turned.tobytes()[:16]}),
    ):
        out = io.BytesIO()
        picture.save(out, {"jpg": "JPEG"}.get(name[2:], name[2:].upper()), **options)
        files[name] = out.getvalue()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    strict = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning:__main__")  # not UTF-8 on every machine
    alone = [sys.executable, "-I", *strict, "-c", ALONE, str(program)]
    done = subprocess.run([*alone, *files], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts, served = [("image", item) for item in files.items()], []
    for start in range(0, len(parts), 250):
        answer = client.post(f"{API}/{small.id}/predictions?top_k=10", files=parts[start : start + 250])
        served += answer.json()["predictions"]
    assert len(served) == 1000
    for line, one in zip(done.stdout.splitlines(), served, strict=True):
        said = json.loads(line)
        assert (said["image"], said["label"]) == (one["image"], one["label"])
        assert all(abs(said["probabilities"][each["index"]] - each["probability"]) < 1e-5 for each in one["top"])


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_the_program_makes_squares_as_the_dataset_was_made(
    client: TestClient, small: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: str
) -> None:
    wanted = replace(small.preprocessing, fit=fit)
    bundle_of(client, f"{API}/{small.id}/export").extractall(tmp_path / "bundle")
    (folder,) = (tmp_path / "bundle").iterdir()
    (folder / "preprocessing.json").write_text(json.dumps(wanted.to_json()))
    wide = Image.fromarray(np.random.default_rng(3).integers(0, 256, (61, 100, 3), dtype=np.uint8))
    wide.save(tmp_path / "wide.png")
    monkeypatch.setattr(sys, "argv", ["classify.py"])
    with pytest.raises(SystemExit, match=r"classify\.py IMAGE\.\.\.: "):
        runpy.run_path(str(folder / "classify.py"))
    monkeypatch.setattr(sys, "argv", ["classify.py", str(tmp_path / "wide.png")])
    read = runpy.run_path(str(folder / "classify.py"))["read"]
    seen = decode_image(open_image((tmp_path / "wide.png").read_bytes()), wanted)
    assert np.array_equal(read(tmp_path / "wide.png"), seen)


def test_a_bundle_tells_what_is_known_of_the_network(client: TestClient, small: Trained) -> None:
    bundle = bundle_of(client, f"{API}/{small.id}/export")
    found = {name.partition("/")[2]: bundle.read(name) for name in bundle.namelist()}
    described = {line.split()[0] for line in found["README.txt"].decode().splitlines() if "  " in line.strip()}
    assert described == set(found) - {"README.txt"}
    assert found["weights.safetensors"] == (small.path / "weights-best.safetensors").read_bytes()
    assert json.loads(found["labels.json"]) == list(small.preprocessing.class_names)
    assert json.loads(found["spec.json"])["model"]["name"] == "cnn"
    assert json.loads(found["preprocessing.json"])["source_size"] == 32
    parity = json.loads(found["parity.json"])
    assert parity["images_compared"] >= 32
    assert parity["largest_difference_of_a_probability"] <= 1e-5
    assert parity["labels_that_differ"] == 0
    assert parity["versions"]["onnxruntime"] == onnxruntime.__version__
    card = found["MODEL_CARD.md"].decode()
    for heading in ("## Network", "## Data", "## Measured", "## Verdict", "## Limits", "## Parity"):
        assert heading in card
    assert "CIFAR-10" in card
    assert found["curves.png"].startswith(b"\x89PNG")


def test_names_of_classes_are_told_apart_whatever_is_in_them(
    client: TestClient, filled: Filled, small: Trained
) -> None:
    names = ["a,b", "new\nline", "`tick`", "*", "caf\u00e9", *small.preprocessing.class_names[5:]]
    seen = replace(small.preprocessing, class_names=tuple(names))
    Lab(filled.store, filled.settings).save(replace(small, preprocessing=seen))
    bundle = bundle_of(client, f"{API}/{small.id}/export")
    found = {name.partition("/")[2]: bundle.read(name) for name in bundle.namelist()}
    assert json.loads(found["labels.json"]) == names
    assert 'Classes: `"a,b"`, `"new\\nline"`, ``"`tick`"``, `"*"`, caf\u00e9, dog,' in found["MODEL_CARD.md"].decode()
    session = onnxruntime.InferenceSession(found["network.onnx"], providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == names


def test_a_models_version_is_exported_by_its_name(client: TestClient, filled: Filled, small: Trained) -> None:
    filled.settle(small.claim)
    assert client.put("/api/v1/models/cats", json={"experiment_id": small.id}).status_code == 201
    for form in ("onnx", "safetensors", "bundle"):
        by_name = client.get(f"/api/v1/models/cats/export?format={form}")
        assert by_name.status_code == 200
        assert "cats-1." in by_name.headers["content-disposition"]
        assert by_name.headers["etag"] == client.get(f"{API}/{small.id}/export?format={form}").headers["etag"]
    assert client.get("/api/v1/models/dogs/export").status_code == 404
    assert client.get("/api/v1/models/cats/export?version=2").status_code == 404
