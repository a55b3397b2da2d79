"""Cases 26 to 34: invalid and hostile images, names, specs and files."""

import io
import json
import os
import pickle
import re
import socket
import threading
import time
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from sqlalchemy import update

from benchmarks.faults.bodies import BAD_JSON, BAD_YAML, DISGUISED, HOSTILE, MEMORY_BOMBS, PATHS
from benchmarks.faults.harness import API, Bench, case, endless, expect, short_spec
from benchmarks.faults.sending import (
    YAML,
    api_peak,
    get_raw,
    labels_of,
    post_spec,
    predict,
    rows_of,
    trained,
)
from models.files import sha256_of
from models.store import Status, artifacts
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from models.store.tables import Artifact
from service.http.body import MAX_BODY_BYTES
from tests.models.data.test_decoding import EXACT, FEW, bombs, huge
from tests.service.predictions.pictures import STORED, encode, exif, gradient

PICTURE = encode(Image.fromarray(gradient(48, 48)), "PNG")
MEGABYTES = 50


def refused_images(bench: Bench, images: dict[str, bytes]) -> list[str]:
    """Send each image after a good one; all must be refused by name and change nothing. Returns the messages."""
    experiment_id, before = trained(bench), rows_of(bench)
    said = []
    for name, data in images.items():
        response = predict(bench, experiment_id, [("good.png", PICTURE), (name, data)])
        problem = response.json()
        expect(response.status_code == 422, f"{name} was answered {response.status_code}: {response.text[:200]}")
        expect(problem["index"] == 1 and name in problem["detail"], f"{name}: {problem['detail']}")
        said.append(problem["detail"].partition("', ")[2])
    expect(rows_of(bench) == before, "rows were added")
    expect(predict(bench, experiment_id, [("good.png", PICTURE)]).status_code == 200, "a good image is refused now")
    return said


@case(
    26,
    "files that are no pictures",
    done="Empty, 1 byte, random bytes, HTML named .png, and all five formats cut off at a tenth, half and nine tenths.",
    promise="422 that names the image; nothing changes, and a good image is answered as before",
)
def no_pictures(bench: Bench) -> str:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = {name: encode(noise, name) for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}
    images = {
        "empty.png": b"",
        "byte.png": b"\x89",
        "random.png": np.random.default_rng(1).bytes(100_000),
        "page.png": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    }
    for name, data in whole.items():
        images |= {f"cut-{part}.{name}": data[: int(part * len(data))] for part in (0.1, 0.5, 0.9)}
    said = refused_images(bench, images)
    return f"all {len(images)} a 422 that names the second image ('{said[0]}', '{said[3]}'); no row added"


@case(
    27,
    "odd sizes",
    done="Pictures of 1x1, 1x10000, 10000x1 and 2x3; specs whose input_size is below the network's minimum.",
    promise="every picture is answered; the specs are 422 with the nearest size, which is then accepted",
)
def odd_sizes(bench: Bench) -> str:
    shapes = [(1, 1), (1, 10_000), (10_000, 1), (2, 3), (31, 33)]
    images = [
        (f"{h}x{w}.png", encode(Image.fromarray(np.full((h, w, 3), (250, 120, 3), np.uint8)), "PNG")) for h, w in shapes
    ]
    found = labels_of(predict(bench, trained(bench), images))
    expect(all(one == found[0] for one in found), "one flat colour, different answers for different shapes")
    expect(abs(sum(found[0].values()) - 1) < 1e-3, "the probabilities do not sum to 1")
    offered = {}
    for name in ("squeezenet1_1", "densenet121", "vgg11_bn"):
        body = short_spec(model={"name": name, "input_size": 8})
        response = post_spec(bench, body)
        expect(response.status_code == 422, f"{name} at 8 pixels: {response.status_code} {response.text[:200]}")
        entry = response.json()["errors"][0]
        expect(entry["field"] == "model.input_size", f"{name}: the field is {entry['field']}")
        body["model"]["input_size"] = offered[name] = entry["nearest"]
        accepted = post_spec(bench, body)
        expect(accepted.status_code == 202, f"{name} at {entry['nearest']} pixels: {accepted.status_code}")
        bench.cancel(accepted.json()["id"])
    text = ", ".join(f"{name} {size}" for name, size in offered.items())
    return f"all {len(shapes)} answered, and alike; sizes offered and accepted: {text}"


@case(
    28,
    "every way to store a pixel",
    done=f"{len(EXACT)} lossless forms (16-bit, palette with alpha, L, LA, RGBA, 1-bit ...), and JPEG in RGB, L, CMYK.",
    promise="the right RGB: predictions equal to the last bit to those of the golden pixels as plain PNG",
)
def pixel_forms(bench: Bench) -> str:
    pairs = {
        name: (data, encode(Image.fromarray(pixels.astype(np.uint8)), "PNG")) for name, (data, pixels) in EXACT.items()
    }
    smooth = Image.fromarray(np.stack([np.linspace(30, 200, 32)[None].repeat(32, 0)] * 3, axis=2).astype(np.uint8))
    for mode in ("RGB", "L", "CMYK"):
        data = encode(smooth.convert(mode), "JPEG", quality=95)
        pairs[f"jpeg-{mode}"] = (data, encode(Image.open(io.BytesIO(data)).convert("RGB"), "PNG"))
    found = labels_of(predict(bench, trained(bench), [(name, form) for name, (form, _) in pairs.items()]))
    golden = labels_of(predict(bench, trained(bench), [(name, plain) for name, (_, plain) in pairs.items()]))
    wrong = [name for name, one, other in zip(pairs, found, golden, strict=True) if one != other]
    expect(not wrong, f"other pixels than the golden ones: {', '.join(wrong)}")
    distinct = len({tuple(one.items()) for one in golden})
    return f"{len(pairs)} forms of {distinct} different pictures, every prediction equal to its golden one"


@case(
    29,
    "animations and orientations",
    done="GIF, WebP and PNG of two frames beside their first frame; EXIF orientations 1-8 in PNG, WebP and JPEG.",
    promise="the first frame's prediction; the same prediction for all eight orientations",
)
def frames_and_orientations(bench: Bench) -> str:
    first, second = Image.fromarray(FEW), Image.fromarray(255 - FEW)
    moving, still = [], []
    for name in ("GIF", "WEBP", "PNG"):
        options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {}
        moving.append((name, encode(first, name, save_all=True, append_images=[second], duration=50, **options)))
        still.append((name, encode(first, name, **options)))
    experiment_id = trained(bench)
    expect(
        labels_of(predict(bench, experiment_id, moving)) == labels_of(predict(bench, experiment_id, still)),
        "an animation is not its first frame",
    )
    upright = np.kron(gradient(4, 4), np.ones((16, 16, 1))).astype(np.uint8)  # flat squares, which JPEG keeps
    spread = {}
    formats: dict[str, dict[str, Any]] = {
        "PNG": {},
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    for name, options in formats.items():
        images = [
            (str(number), encode(turned(upright, number), name, exif=exif(number), **options)) for number in STORED
        ]
        found = labels_of(predict(bench, experiment_id, images))
        spread[name] = max(abs(one[label] - found[0][label]) for one in found for label in one)
        expect(spread[name] <= (0.02 if name == "JPEG" else 0), f"{name}: orientations differ by {spread[name]:g}")
    plain = [(str(number), encode(turned(upright, number), "PNG")) for number in STORED]
    told_apart = len({tuple(one.items()) for one in labels_of(predict(bench, experiment_id, plain))})
    expect(told_apart == len(STORED), f"the network tells only {told_apart} orientations apart: this shows nothing")
    return (
        f"first frames; PNG and WebP equal to the bit in all 8, JPEG within {spread['JPEG']:.1g}; the same pixels "
        "without the tag give 8 different answers"
    )


def turned(pixels: np.ndarray, orientation: int) -> Image.Image:
    """An upright picture as a camera stores it that notes this orientation."""
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](pixels)))


@case(
    30,
    "bombs and disguises",
    done="Headers of 100,000 x 100,000 pixels in 5 formats; PNG bombs (text, profile, pixels); EXIF that claims "
    "gigabytes; EPS, FITS, JPEG 2000, SVG and ZIP named .png.",
    promise=f"refused from the header, whatever can be; the API grows by less than {MEGABYTES} MB",
)
def picture_bombs(bench: Bench) -> str:
    experiment_id = trained(bench)
    headers = {f"huge.{name}": huge(name) for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}
    predict(bench, experiment_id, [("good.png", PICTURE)])
    with api_peak(bench) as peak:
        refused_images(bench, headers | DISGUISED)
        codes = {name: predict(bench, experiment_id, [(name, data)]).status_code for name, data in bombs().items()}
    expect(set(codes.values()) <= {200, 422}, f"bombs were answered {codes}")
    expect(peak.growth_mb < MEGABYTES, f"the API grew by {peak.growth_mb:.0f} MB")
    read = sum(code == 200 for code in codes.values())
    return (
        f"{len(headers)} headers and {len(DISGUISED)} disguises refused; of {len(codes)} bombs {read} read as the "
        f"1x1 picture they are, without their extras; the API grew by {peak.growth_mb:.1f} MB at most"
    )


@case(
    31,
    "names that want to be paths",
    done=f"{len(HOSTILE)} hostile texts as name, tag, file name, layer, filter and Idempotency-Key; 300 characters; "
    f"{len(PATHS)} addresses with ../, NUL, %252e, backslashes.",
    promise="stored and given back as data, never a path; the addresses are 4xx",
)
def hostile_names(bench: Bench) -> str:
    experiment_id = trained(bench)
    before = set(bench.folder.rglob("*"))
    for what, text in HOSTILE.items():
        body = short_spec(name=text, tags=[text[:64]], epochs=1)
        key = {"Idempotency-Key": quote(text)[:200]}
        response = bench.client.post(f"{API}/experiments", json=body, headers=key)
        expect(response.status_code in (202, 422), f"{what}: {response.status_code} {response.text[:200]}")
        if response.status_code == 202:
            again = bench.client.get(response.json()["links"]["self"])
            expect(again.json()["name"] == text, f"{what} came back as {again.json()['name']!r}")
            page = bench.client.get(f"/experiments/{again.json()['id']}", headers={"Accept": "text/html"})
            expect("<script>alert" not in page.text and "Set-Cookie" not in str(page.headers), f"{what} got loose")
            bench.cancel(again.json()["id"])
        listed = bench.client.get(f"{API}/experiments", params={"tag": text[:64]})
        expect(listed.status_code in (200, 422), f"{what} as a filter: {listed.status_code}")
        layer = bench.client.get(f"{API}/experiments/{experiment_id}/kernels.png", params={"layer": text})
        expect(400 <= layer.status_code < 500, f"{what} as a layer: {layer.status_code}")
        sent = predict(bench, experiment_id, [(text, PICTURE)])
        expect(sent.status_code in (200, 400), f"{what} as a file name: {sent.status_code} {sent.text[:200]}")
    expect(post_spec(bench, short_spec(name="n" * 300)).status_code == 422, "a name of 300 characters was taken")
    found = {path: get_raw(bench, path).status for path in PATHS}
    expect(all(400 <= status < 500 for status in found.values()), f"{found}")
    made = set(bench.folder.rglob("*")) - before
    odd = [path.name for path in made if not re.fullmatch(r"[\w.-]+", path.name, re.ASCII)]
    expect(not odd and not list(Path("/tmp").glob("epochal-was-here*")), f"files were made: {odd}")
    counts = {status: list(found.values()).count(status) for status in sorted(set(found.values()))}
    return f"every text came back as it was sent, none became a file; addresses: {counts}"


@case(
    32,
    "specs that are memory bombs",
    done=f"{', '.join(MEMORY_BOMBS)}: submitted, as a dry run, and as a learning-rate test.",
    promise="422 that names the field, by an estimate and before anything is allocated",
)
def memory_bombs(bench: Bench) -> str:
    trained(bench)  # what describes networks is loaded by now
    before = rows_of(bench)
    slowest, said = 0.0, ""
    with api_peak(bench) as peak:
        for what, body in MEMORY_BOMBS.items():
            for path in ("experiments", "experiments?dry_run=true", "learning-rate-tests"):
                began = time.monotonic()
                response = bench.client.post(f"{API}/{path}", json=body)
                slowest = max(slowest, time.monotonic() - began)
                expect(response.status_code == 422, f"{what}, {path}: {response.status_code} {response.text[:200]}")
                said = response.json()["detail"]
    expect(rows_of(bench) == before, "rows were added")
    expect(peak.growth_mb < MEGABYTES, f"the API grew by {peak.growth_mb:.0f} MB")
    return (
        f"all {3 * len(MEMORY_BOMBS)} a 422 in {slowest:.2f} s at most, the API grew by {peak.growth_mb:.0f} MB; "
        f"the last one: '{said[:160]}'"
    )


@case(
    33,
    "specs that are no specs",
    done=f"{len(BAD_JSON)} bodies of JSON (NaN, Infinity, 1e309, negative, true for 1, deep, huge, repeated and "
    f"unknown keys) and {len(BAD_YAML)} of YAML (aliases, tags, python objects, several documents).",
    promise="422 each, 413 for what is above a megabyte; nothing is stored, nothing is executed",
)
def no_specs(bench: Bench) -> str:
    before = rows_of(bench)
    for data in BAD_JSON:
        response = post_spec(bench, data)
        too_large = len(data) > MAX_BODY_BYTES
        expect(
            response.status_code == (413 if too_large else 422), f"{data[:60]!r} was answered {response.status_code}"
        )
        expect(too_large or response.json()["errors"][0]["field"], f"{data[:60]!r}: no field is named")
    for data in BAD_YAML:
        response = bench.client.post(f"{API}/experiments", content=data, headers=YAML)
        expect(response.status_code == 422, f"{data[:60]!r} was answered {response.status_code}")
    expect(rows_of(bench) == before, "rows were added")
    expect(not Path("/tmp/epochal-was-here").exists(), "code in a spec was run")
    return f"all {len(BAD_JSON) + len(BAD_YAML)} a 422 that says where, or a 413; no row added"


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def swap(bench: Bench, record: ArtifactRecord, content: bytes) -> None:
    """Put other bytes in a stored file's place, and make its record fit them."""
    path = record.file(bench.settings.experiments_dir)
    path.unlink()  # the engine's own name of the file keeps its content
    path.write_bytes(content)
    where = Artifact.experiment_id == record.experiment_id, Artifact.kind == record.kind, Artifact.epoch == record.epoch
    with bench.store.writing() as session:
        session.execute(update(Artifact).where(*where).values(sha256=sha256_of(path), num_bytes=len(content)))


@case(
    34,
    "pickles and addresses",
    done="Weights, graph and a checkpoint exchanged for pickles that run code, their digests made to fit; pickles as "
    "uploads; addresses of a listening server in every text field.",
    promise="tensors only: nothing is unpickled, and nothing is fetched",
)
def pickles_and_addresses(bench: Bench) -> str:
    release = tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2])
    expect(release >= (2, 10), f"torch {version('torch')} has a torch.load that can be tricked")
    marker = bench.folder / "was-here"
    traps = {"plain.png": pickle.dumps(Trap(marker)), "zipped.png": _torch_saved(Trap(marker))}
    refused_images(bench, traps)
    number = bench.submit(**endless())
    bench.wait_for_epoch(number, 3)
    bench.cancel(number)
    bench.wait_for(number, Status.CANCELLED)
    with bench.store.reading() as session:
        records = artifacts.list_for(session, number)
    kinds = {str(record.kind): record for record in records if record.kind is not ArtifactKind.CHECKPOINT}
    graph = kinds.pop(str(ArtifactKind.GRAPH))
    for record in kinds.values():
        with safe_open(record.file(bench.settings.experiments_dir), framework="numpy") as file:
            expect(list(file.keys()), f"{record.kind} is empty")
    for record in (kinds[str(ArtifactKind.WEIGHTS_BEST)], graph):
        kept = record.file(bench.settings.experiments_dir).read_bytes()
        swap(bench, record, traps["zipped.png"])
        answered = predict(bench, number, [("good.png", PICTURE)])
        said = f"a pickle as {record.kind} was answered {answered.status_code}: {answered.text[:200]}"
        expect(answered.status_code == 409, said)
        swap(bench, record, kept)
    newest = max((one for one in records if one.kind is ArtifactKind.CHECKPOINT), key=lambda record: record.epoch)
    swap(bench, newest, traps["zipped.png"])
    done = len(bench.history(number))
    expect(bench.client.post(f"{API}/experiments/{number}/resume").status_code == 202, "it cannot be resumed")
    bench.wait_for_epoch(number, done + 1)
    bench.cancel(number)
    bench.wait_for(number, Status.CANCELLED)
    expect(not marker.exists(), "a pickle was run")
    told = [code for code in bench.notices(number) if "checkpoint" in code]
    expect(told, f"nobody was told of the checkpoint; notices: {bench.notices(number)}")
    connections = _addresses(bench)
    expect(connections == 0, f"{connections} connections came to an address that was sent")
    passed_over = f"the resume passed over the checkpoint ('{told[0]}')"
    return f"409 for weights and graph; {passed_over}; no code run, no connection made"


def _torch_saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _addresses(bench: Bench) -> int:
    """Put the address of a server wherever text is taken; how often it was called."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        calls: list[object] = []

        def listen() -> None:
            with suppress(OSError):
                while True:
                    connection, peer = server.accept()
                    connection.close()
                    calls.append(peer)

        threading.Thread(target=listen, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        bodies = [
            {"model": url}, {"preset": url}, {"model": {"name": url}}, {"model": "baseline", "dataset": {"name": url}},
            {"model": {"name": "squeezenet1_1", "pretrained": url}}, {"model": {"$ref": url}}, {"$schema": url},
        ]  # fmt: skip
        for body in bodies:
            expect(post_spec(bench, body).status_code == 422, f"{json.dumps(body)} was taken")
        bench.wait_for(bench.submit(name=url, tags=[url[:64]], epochs=1), Status.COMPLETED)
        drawing = f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{url}'/></svg>".encode()
        entity = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "{url}">]><svg>&b;</svg>'.encode()
        refused_images(bench, {"drawing.svg": drawing, "entity.svg": entity})
        field = bench.client.post(f"{API}/experiments/{trained(bench)}/predictions", files={"image": (None, url)})
        expect(field.status_code == 422, f"an address as an image was answered {field.status_code}")
        return len(calls)
