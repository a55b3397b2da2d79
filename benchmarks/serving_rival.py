"""What somebody would write instead: FastAPI, Pillow and torch, an eager forward pass a request.

`python -m benchmarks.serving_rival FILE` listens on a free port of loopback and writes its address into FILE.
"""

import io
import json
import socket
import sys
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torch import nn

from models.data.catalogue import get_dataset
from models.networks.build import build_network
from models.networks.inputs import preprocessing_for
from models.networks.preprocessing import Preprocessing
from models.spec.model import NetworkSpec
from models.spec.parse import parse_spec


def build(model: NetworkSpec, preprocessing: Preprocessing) -> nn.Module:
    """A network with random weights, ready to predict."""
    torch.manual_seed(0)
    network = build_network(model, num_classes=10, in_channels=preprocessing.channels, size=preprocessing.input_size)
    return network.eval()


app = FastAPI()
NETWORKS: list[tuple[nn.Module, Preprocessing]] = []


@app.post("/predict/{number}")
def predict(number: int, image: UploadFile) -> dict[str, float]:
    """Probabilities of the classes."""
    network, preprocessing = NETWORKS[number]
    opened = Image.open(io.BytesIO(image.file.read())).convert("RGB")
    pixels = np.asarray(opened.resize((preprocessing.input_size,) * 2), np.float32)
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    normalised = (pixels / 255 - mean) / std
    with torch.inference_mode():
        logits = network(torch.from_numpy(normalised.transpose(2, 0, 1)[None]))
        found = torch.softmax(logits, dim=1)[0].tolist()
    return dict(zip(preprocessing.class_names, found, strict=True))


def main() -> None:
    """Serve the networks of benchmarks.serving."""
    from benchmarks.serving import CASES

    for model, _ in CASES.values():
        spec = parse_spec({"model": model})
        preprocessing = preprocessing_for(spec, get_dataset("cifar10"))
        NETWORKS.append((build(spec.model, preprocessing), preprocessing))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        Path(sys.argv[1]).write_text(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}))
        config = uvicorn.Config(app, log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
