"""The same networks behind LitServe, with batching: what benchmarks.serving compares the lab with.

    python -m benchmarks.serving_litserve FILE        listens on a free port of loopback; its address goes into FILE

As LitServe's documentation sets up an image classifier: images are decoded and predicted in batches by a process of
their own for each network. benchmarks.serving installs it into a folder of its own; the lab does not depend on it.
"""

import io
import json
import socket
import sys
from pathlib import Path

import litserve
import numpy as np
import torch
from PIL import Image

from benchmarks.serving_networks import CASES, build, preprocessing_of

BATCH_SIZE, BATCH_SECONDS = 16, 0.005


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """One network."""

    def __init__(self, case: str, number: int) -> None:
        super().__init__(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_SECONDS, api_path=f"/predict/{number}")
        self.case = case

    def setup(self, device: str) -> None:
        """Build the network."""
        self.wanted = preprocessing_of(self.case)
        self.network = build(self.case)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe takes a type for a query parameter
        """From the form's file to a normalised image."""
        opened = Image.open(io.BytesIO(request["image"].file.read())).convert("RGB")
        pixels = np.asarray(opened.resize((self.wanted.input_size,) * 2), np.float32)
        normalised = (pixels / 255 - np.array(self.wanted.mean, np.float32)) / np.array(self.wanted.std, np.float32)
        return torch.from_numpy(normalised.transpose(2, 0, 1))

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Stack images."""
        return torch.stack(list(inputs))

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities of a batch."""
        with torch.inference_mode():
            return torch.softmax(self.network(images), dim=1)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """Rows of a batch."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, float]:
        """Probabilities by class."""
        return dict(zip(self.wanted.class_names, output.tolist(), strict=True))


def main() -> None:
    """Serve the networks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = litserve.LitServer(
        [Classifier(case, number) for number, case in enumerate(CASES)], accelerator="cpu", workers_per_device=1
    )
    Path(sys.argv[1]).write_text(json.dumps({"url": f"http://127.0.0.1:{port}"}))
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
