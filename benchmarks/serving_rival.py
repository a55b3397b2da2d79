"""The endpoint that one would write without this lab: FastAPI, Pillow, and torch's eager forward for each request.

python -m benchmarks.serving_rival FILE        listens on a free port of loopback and writes its address into FILE
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

from benchmarks.serving_networks import CASES, build, preprocessing_of
from models.preprocessing import Preprocessing

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
    NETWORKS.extend((build(case), preprocessing_of(case)) for case in CASES)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        Path(sys.argv[1]).write_text(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}))
        config = uvicorn.Config(app, log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
