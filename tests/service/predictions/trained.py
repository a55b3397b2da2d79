"""Putting weights into a store, by the same steps as the worker."""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from models.data.catalogue import get_dataset
from models.files import sha256_of
from models.networks.build import build_network
from models.networks.export import export_described
from models.networks.inputs import preprocessing_for
from models.preprocessing import Preprocessing
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Store, artifacts, experiments, runs
from models.store.runs import Claim
from models.store.states import ArtifactKind


def random_images(count: int, preprocessing: Preprocessing, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Uploads, already decoded."""
    shape = (count, preprocessing.channels, preprocessing.source_size, preprocessing.source_size)
    return list(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@dataclass
class Trained:
    """An experiment with weights, and the network that they were taken from."""

    claim: Claim
    network: nn.Module
    preprocessing: Preprocessing
    path: Path

    @property
    def id(self) -> int:
        """The experiment's number."""
        return self.claim.experiment_id


@dataclass
class Lab:
    """A store and the folder of its artifacts."""

    store: Store
    settings: Settings

    def add_experiment(self, model: Any = "baseline", dataset: str = "cifar10", **changes: Any) -> Claim:
        """An experiment that is being trained and has no weights yet."""
        spec = parse_spec({"model": model, "dataset": {"name": dataset}, **changes})
        with self.store.writing() as session:
            row = experiments.create(session, spec, layers=[], warnings=[])
            claim = runs.claim(session, row.id, "worker", 3)
        assert claim is not None
        return claim

    def train(
        self,
        model: Any = "baseline",
        *,
        dataset: str = "cifar10",
        seed: int = 0,
        which: str = "best",
        graph: bool = True,
        **changes: Any,
    ) -> Trained:
        """An experiment whose weights are random, but not a fresh network's: its norms have seen something."""
        claim = self.add_experiment(model, dataset, **changes)
        preprocessing = preprocessing_for(claim.spec, get_dataset(dataset))
        torch.manual_seed(seed)
        part = claim.spec.model
        if hasattr(part, "pretrained"):
            part = part.model_copy(update={"pretrained": False})  # nothing is fetched in a test
        network = build_network(
            part,
            num_classes=len(preprocessing.class_names),
            in_channels=preprocessing.channels,
            size=preprocessing.input_size,
        )
        with torch.no_grad():
            size = preprocessing.input_size
            network.train()(torch.randn(8, preprocessing.channels, size, size))
        trained = Trained(
            claim, network.eval(), preprocessing, self.settings.experiments_dir / f"{claim.experiment_id}"
        )
        self.save(trained, which=which, graph=graph)
        return trained

    def save(
        self, trained: Trained, *, which: str = "best", epoch: int = 3, record: bool = True, graph: bool = True
    ) -> None:
        """Write the graph, the weights and, unless told otherwise, their record."""
        trained.path.mkdir(parents=True, exist_ok=True)
        path = trained.path / f"weights-{which}.safetensors"
        about = {
            "model": trained.claim.spec.model.model_dump(mode="json"),
            "preprocessing": trained.preprocessing.to_json(),
            "test_time_augmentation": trained.claim.spec.test_time_augmentation,
            "epoch": epoch,
        }
        if graph:
            (trained.path / "graph.onnx").write_bytes(exported(json.dumps({**about, "epoch": 0})))
            self.record(trained, "graph.onnx", ArtifactKind.GRAPH)
        tensors = {name: tensor.contiguous() for name, tensor in trained.network.state_dict().items()}
        save_file(tensors, path, {"epochal": json.dumps(about)})
        if record:
            self.record(trained, path.name, ArtifactKind(f"weights-{which}"))

    def record(self, trained: Trained, name: str, kind: ArtifactKind) -> None:
        """Note the file that is there."""
        path = trained.path / name
        relative = path.relative_to(self.settings.experiments_dir).as_posix()
        with self.store.writing() as session:
            artifacts.record(session, trained.claim, kind, 0, relative, sha256_of(path), path.stat().st_size)


@cache
def exported(about: str) -> bytes:
    """The graph of a network."""
    return export_described(json.loads(about))


def plain_answer(trained: Trained, images: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """What a few lines of plain PyTorch say."""
    preprocessing = trained.preprocessing
    batch = torch.from_numpy(np.stack(images)).double() / 255
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std)
    )
    batch = ((batch - mean) / std).float()
    size = preprocessing.input_size
    if batch.shape[-1] != size:
        antialias = preprocessing.antialias and size < batch.shape[-1]
        batch = nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=antialias)
    with torch.no_grad():
        return torch.softmax(trained.network(batch).double(), dim=1).numpy()


def with_nan(trained: Trained) -> Trained:
    """The same with a weight that is not finite."""
    with torch.no_grad():
        next(iter(trained.network.parameters())).fill_(float("nan"))
    return replace(trained)
