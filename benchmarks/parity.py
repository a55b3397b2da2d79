"""What is served against plain PyTorch and against the exported file, for every family of networks, from outside.

    epochal up &
    python -m benchmarks.parity --url http://127.0.0.1:8000          1,000 test images of CIFAR-10, some minutes
    python -m benchmarks.parity --url ... --images 100 --networks baseline fast_resnet --json

Each network is trained for one epoch on 600 images by the lab, a slow one on fewer (SLOW). Its answers over HTTP (PNG
files in zips) are compared with those of a network that is built here from the downloaded weights and evaluated by
PyTorch in 32-bit arithmetic, and with onnxruntime running the downloaded ONNX file on the same pixels.
"""

import argparse
import io
import json
import sys
import time
import zipfile
from typing import Any

import httpx
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load

from models.data.dataset import load_dataset
from models.networks.build import build_network
from models.preprocessing import Preprocessing
from models.settings import get_settings
from models.spec.parse import load_model

NETWORKS: dict[str, Any] = {
    "baseline": "baseline",
    "narrow": "narrow",
    "wide": "wide",
    "three_blocks": "three_blocks",
    "three_blocks_batch_norm": "three_blocks_batch_norm",
    "fast_resnet": "fast_resnet",
    **{
        f"{name} at {size}": {"name": name, "input_size": size}
        for name, size in (
            ("squeezenet1_1", 64),
            ("resnet18", 32),
            ("resnext50_32x4d", 32),
            ("wide_resnet50_2", 32),
            ("mobilenet_v2", 32),
            ("mobilenet_v3_small", 32),
            ("mnasnet0_5", 32),
            ("shufflenet_v2_x1_0", 64),
            ("efficientnet_b0", 32),
            ("efficientnet_v2_s", 32),
            ("regnet_y_400mf", 32),
            ("densenet121", 32),
            ("googlenet", 32),
            ("inception_v3", 75),
            ("alexnet", 64),
            ("vgg11_bn", 32),
            ("convnext_tiny", 32),
            ("swin_t", 32),
            ("swin_v2_t", 64),
            ("vit_b_16", 32),
            ("vit_b_16", 224),
            ("maxvit_t", 224),
            ("timm/resnet10t", 32),
        )
    },
}
"""One of each kind that torchvision has."""
SLOW = {
    **dict.fromkeys(("wide_resnet50_2 at 32", "inception_v3 at 75", "swin_v2_t at 64", "vgg11_bn at 32"), 200),
    **dict.fromkeys(("vit_b_16 at 32", "vit_b_16 at 224", "maxvit_t at 224"), 32),
}
"""The most images that are asked about, and trained on."""
TRAINED = 600
PER_REQUEST = 250
Rows = NDArray[np.float64]


def measure(lab: httpx.Client, model: Any, images: NDArray[np.uint8], most: int = TRAINED) -> dict[str, Any]:
    """Train, ask in three ways about at most so many images, compare."""
    images = images[:most] if most < TRAINED else images
    number = train(lab, model, most)
    served = ask(lab, number, images)
    weights = lab.get(f"/experiments/{number}/export", params={"format": "safetensors"}).raise_for_status().content
    plain = softmax(evaluate(weights, images))
    onnx = lab.get(f"/experiments/{number}/export", params={"format": "onnx"}).raise_for_status().content
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    alone = softmax(np.concatenate([session.run(["logits"], {"images": one[None]})[0] for one in images]))
    return {
        "images": len(images),
        "mean_confidence": float(served.max(1).mean()),
        "labels_unlike_pytorch": int((served.argmax(1) != plain.argmax(1)).sum()),
        "largest_difference_from_pytorch": float(np.abs(served - plain).max()),
        "labels_unlike_the_file": int((served.argmax(1) != alone.argmax(1)).sum()),
        "largest_difference_from_the_file": float(np.abs(served - alone).max()),
    }


def train(lab: httpx.Client, model: Any, num_images: int) -> int:
    """One short run; its number."""
    part = {"train_limit": num_images, "val_limit": min(200, num_images)}
    batch_size = 64 if num_images > 100 else 8
    body = {"model": model, "epochs": 1, "dataset": part, "batch_size": batch_size, "tags": ["parity"]}
    made = lab.post("/experiments", json=body).raise_for_status().json()
    while True:
        found = lab.get(f"/experiments/{made['id']}").raise_for_status().json()
        if found["status"] == "completed":
            return int(made["id"])
        if found["status"] not in ("queued", "running"):
            raise SystemExit(f"experiment {made['id']} is {found['status']}: {found['reason']}")
        time.sleep(0.5)


def ask(lab: httpx.Client, number: int, images: NDArray[np.uint8]) -> Rows:
    """Probabilities (N, classes) over HTTP."""
    rows = []
    for start in range(0, len(images), PER_REQUEST):
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            for place, image in enumerate(images[start : start + PER_REQUEST]):
                file = io.BytesIO()
                Image.fromarray(image.transpose(1, 2, 0)).save(file, "PNG")
                archive.writestr(f"{place:04d}.png", file.getvalue())
        answer = lab.post(
            f"/experiments/{number}/predictions",
            params={"top_k": 1000},
            content=body.getvalue(),
            headers={"Content-Type": "application/zip"},
        )
        for prediction in answer.raise_for_status().json()["predictions"]:
            rows.append([one["probability"] for one in sorted(prediction["top"], key=lambda one: one["index"])])
    return np.array(rows)


def evaluate(weights: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of a network built from the file, on images normalised and resized in a few lines of PyTorch."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    about = json.loads(header["__metadata__"]["epochal"])
    seen = Preprocessing.from_json(about["preprocessing"])
    size = seen.input_size
    network = build_network(
        load_model(about["model"]), num_classes=len(seen.class_names), in_channels=seen.channels, size=size
    )
    network.load_state_dict(load(weights))
    network.eval()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (seen.mean, seen.std))
    parts = []
    with torch.inference_mode():
        for batch in torch.split(torch.from_numpy(images.copy()), 100):
            normal = (batch / 255 - mean) / std
            if size != seen.source_size:
                smaller = seen.antialias and size < seen.source_size
                normal = torch.nn.functional.interpolate(normal, (size, size), mode="bilinear", antialias=smaller)
            parts.append(network(normal))
    return torch.cat(parts).numpy()


def softmax(logits: NDArray[np.float32]) -> Rows:
    """In 64 bits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    rows: Rows = powers / powers.sum(axis=1, keepdims=True)
    return rows


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    images = load_dataset("cifar10", get_settings()).test_images[: options.images]
    torch.set_num_threads(1)
    found = {}
    with httpx.Client(base_url=f"{options.url}/api/v1", timeout=600) as lab:
        for name in options.networks:
            one = found[name] = measure(lab, NETWORKS[name], images, SLOW.get(name, TRAINED))
            print(
                f"{name}, {one['images']} images, mean confidence {one['mean_confidence']:.2f}: "
                f"{one['labels_unlike_pytorch']} labels and {one['largest_difference_from_pytorch']:.1e} of a "
                f"probability from PyTorch, {one['labels_unlike_the_file']} and "
                f"{one['largest_difference_from_the_file']:.1e} from the exported file",
                file=sys.stderr,
                flush=True,
            )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
