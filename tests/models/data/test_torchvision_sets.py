"""Datasets by torchvision's downloads, from a host on loopback whose archives are laid out as the published ones.

The addresses and digests are torchvision's, which this machine need not reach: a test takes the class and gives it
files of a few images.
"""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.data import catalogue, cifar100, emnist, flowers102, gtsrb, mnist, pets, stl10, svhn
from models.data.contents import pixel_statistics
from models.data.dataset import ImageDataset, load_dataset
from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Source
from models.data.torchvision_sets import dataset_class
from models.errors import DataUnavailable
from models.networks.inputs import preprocessing_for
from models.settings import Settings
from models.spec.parse import parse_spec

Pixels = npt.NDArray[np.uint8]
rng = np.random.default_rng(0)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tar_of(entries: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def zip_of(entries: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return archive.getvalue()


def idx(values: Pixels) -> bytes:
    return gzip.compress(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def picture(color: tuple[int, int, int], size: tuple[int, int], form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, form)
    return file.getvalue()


def fetched(
    cache: Path,
    info: DatasetInfo,
    fetch: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    num_train: int,
    num_test: int,
    classes: int,
) -> ImageDataset:
    """The dataset of so few images, through the catalogue, the fetch, the checks and the memory map."""
    few = replace(
        info,
        num_train=num_train,
        num_test=num_test,
        num_classes=classes,
        class_names=info.class_names[:classes],
        class_counts=None,
        num_validation=None if info.num_validation is None else num_train // 2,
    )
    recipe = Recipe(few, (Source("loopback", fetch),), measured=True)
    monkeypatch.setitem(catalogue.DATASETS, info.name, recipe)
    dataset = load_dataset(info.name, Settings(cache_dir=cache))
    assert isinstance(dataset.train_images, np.memmap)
    assert sum(dataset.info.class_counts or ()) == num_train
    return dataset


def test_cifar100(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = server
    images = rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    entries = {
        "train": pickle.dumps({"data": images[:6].reshape(6, -1), "fine_labels": [2, 0, 1, 1, 0, 2]}),
        "test": pickle.dumps({"data": images[6:].reshape(2, -1), "fine_labels": [0, 1]}),
        "meta": pickle.dumps({"fine_label_names": ["a", "b", "c"]}),
    }
    archive = tar_of({f"cifar-100-python/{name}": content for name, content in entries.items()})
    (folder / "small.tar.gz").write_bytes(archive)

    class Small(dataset_class("CIFAR100")):  # type: ignore[misc]
        url, filename, tgz_md5 = f"{address}/small.tar.gz", "small.tar.gz", md5(archive)
        train_list = [["train", md5(entries["train"])]]
        test_list = [["test", md5(entries["test"])]]
        meta = {"filename": "meta", "key": "fine_label_names", "md5": md5(entries["meta"])}

    with pytest.raises(DataUnavailable, match="the test labels are not the numbers from 0 to 2"):
        fetched(
            tmp_path, cifar100.CIFAR100, partial(cifar100.fetch, cls=Small), monkeypatch,
            num_train=6, num_test=2, classes=3,
        )  # fmt: skip
    dataset = fetched(
        tmp_path, replace(cifar100.CIFAR100, name="two"), partial(both_classes, Small), monkeypatch,
        num_train=6, num_test=2, classes=2,
    )  # fmt: skip
    assert np.array_equal(dataset.train_images, images[:6])
    assert np.array_equal(dataset.test_images, images[6:])


def both_classes(cls: Any, work: Path, arrays: Any, progress: Any) -> None:
    cifar100.fetch(work, arrays, progress, cls)
    arrays.train_labels[:] %= 2


def test_mean_and_deviation_are_those_of_the_images_that_were_fetched(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    images = rng.integers(0, 120, (14, 28, 28), dtype=np.uint8)
    contents = [
        idx(images[:10]),
        idx(np.arange(10, dtype=np.uint8)),
        idx(images[4:]),
        idx(np.arange(10, dtype=np.uint8)),
    ]
    names = [name for name, _ in dataset_class("KMNIST").resources]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)

    class Small(dataset_class("KMNIST")):  # type: ignore[misc]
        mirrors = [f"{address}/gone/", f"{address}/"]  # the next mirror is asked
        resources = [(name, md5(content)) for name, content in zip(names, contents, strict=True)]

    dataset = fetched(
        tmp_path, mnist.KMNIST, partial(mnist.fetch, "KMNIST", cls=Small), monkeypatch,
        num_train=10, num_test=10, classes=10,
    )  # fmt: skip
    assert np.array_equal(dataset.train_images[:, 0], images[:10])
    assert np.array_equal(dataset.test_images[:, 0], images[4:])
    mean, std = pixel_statistics(dataset.train_images)
    assert dataset.info.mean == pytest.approx(mean.tolist(), abs=1e-12)
    assert dataset.info.mean != mnist.KMNIST.mean
    assert dataset.info.class_counts == (1,) * 10
    seen = preprocessing_for(parse_spec({"model": "resnet18", "dataset": "kmnist"}), dataset.info)
    assert seen.mean == dataset.info.mean
    assert seen.std == pytest.approx(std.tolist())


def test_emnist_letters_stand_upright_and_are_counted_from_0(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    images = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    labels = np.array([1, 2, 2], dtype=np.uint8)
    files = {"train-images-idx3": images[:3], "train-labels-idx1": labels, "test-images-idx3": images[3:]}
    entries = {f"gzip/emnist-letters-{name}-ubyte.gz": idx(values) for name, values in files.items()}
    entries["gzip/emnist-letters-test-labels-idx1-ubyte.gz"] = idx(labels)
    archive = zip_of({**entries, "gzip/emnist-digits-train-images-idx3-ubyte.gz": b"never read"})
    (folder / "gzip.zip").write_bytes(archive)

    class Small(dataset_class("EMNIST")):  # type: ignore[misc]
        url, md5 = f"{address}/gzip.zip", hashlib.md5(archive).hexdigest()

    info = catalogue.get_dataset("emnist-letters")
    fetch = partial(emnist.fetch, "letters", cls=Small)
    dataset = fetched(tmp_path, info, fetch, monkeypatch, num_train=3, num_test=3, classes=2)
    assert np.array_equal(dataset.train_images[:, 0], images[:3].swapaxes(1, 2))
    assert dataset.train_labels.tolist() == dataset.test_labels.tolist() == [0, 1, 1]
    without = Recipe(replace(info, name="without"), (Source("x", partial(emnist.fetch, "balanced", cls=Small)),))
    monkeypatch.setitem(catalogue.DATASETS, "without", without)
    with pytest.raises(DataUnavailable, match="emnist-balanced-train-images"):
        load_dataset("without", Settings(cache_dir=tmp_path))


def test_every_form_of_emnist_has_the_classes_that_torchvision_names() -> None:
    for form, names in dataset_class("EMNIST").classes_split_dict.items():
        ours = list(catalogue.get_dataset(f"emnist-{form}").class_names)
        assert ours == [name for name in names if name != "N/A"]


def test_svhn(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    address, folder = server
    images = rng.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    files = {}
    for split, part in (("train", images), ("test", images[..., ::-1])):
        content = io.BytesIO()
        scipy_io.savemat(content, {"X": part, "y": np.array([[1], [10], [1], [10]], dtype=np.uint8)})
        files[split] = content.getvalue()
        (folder / f"{split}.mat").write_bytes(content.getvalue())

    class Small(dataset_class("SVHN")):  # type: ignore[misc]
        split_list = {split: [f"{address}/{split}.mat", f"{split}.mat", md5(files[split])] for split in files}

    dataset = fetched(
        tmp_path, svhn.SVHN, partial(svhn.fetch, cls=Small), monkeypatch, num_train=4, num_test=4, classes=2
    )
    assert np.array_equal(dataset.train_images, images.transpose(3, 2, 0, 1))
    assert dataset.train_labels.tolist() == [1, 0, 1, 0]  # their 10 is a 0


def test_without_scipy_what_needs_it_says_so(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    (folder / "x.mat").write_bytes(b"x")

    class Small(dataset_class("SVHN")):  # type: ignore[misc]
        split_list = {split: [f"{address}/x.mat", "x.mat", md5(b"x")] for split in ("train", "test")}

    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)
    with pytest.raises(DataUnavailable, match="pip install scipy"):
        fetched(tmp_path, svhn.SVHN, partial(svhn.fetch, cls=Small), monkeypatch, num_train=4, num_test=4, classes=2)


def test_stl10_has_96_pixels_and_leaves_the_unlabelled_images_alone(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    images = rng.integers(0, 256, (4, 3, 96, 96), dtype=np.uint8)
    columns = images.swapaxes(2, 3).tobytes()
    labels = bytes([2, 1, 2, 1])
    entries = {"test_X.bin": columns, "test_y.bin": labels, "train_X.bin": columns, "train_y.bin": labels}
    archive = tar_of({f"stl10_binary/{name}": entry for name, entry in {**entries, "unlabeled_X.bin": b""}.items()})
    (folder / "stl.tar.gz").write_bytes(archive)

    class Small(dataset_class("STL10")):  # type: ignore[misc]
        url, filename, tgz_md5 = f"{address}/stl.tar.gz", "stl.tar.gz", md5(archive)

    dataset = fetched(
        tmp_path, stl10.STL10, partial(stl10.fetch, cls=Small), monkeypatch, num_train=4, num_test=4, classes=2
    )
    assert np.array_equal(dataset.train_images, images)
    assert dataset.test_labels.tolist() == [1, 0, 1, 0]


def test_traffic_signs_of_every_size_become_squares_of_48_pixels(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    signs = {
        "GTSRB/Training/00000/00000_00000.ppm": picture((200, 0, 10), (30, 60), "PPM"),
        "GTSRB/Training/00001/00000_00000.ppm": picture((0, 200, 0), (100, 50), "PPM"),
    }
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    truth = f"{header}\n00000.ppm;50;50;0;0;9;9;1\n00001.ppm;9;9;0;0;9;9;0\n"
    tests = {
        "GTSRB/Final_Test/Images/00000.ppm": picture((0, 200, 0), (50, 50), "PPM"),
        "GTSRB/Final_Test/Images/00001.ppm": picture((200, 0, 10), (9, 9), "PPM"),
    }
    archives = [zip_of(signs), zip_of(tests), zip_of({"GT-final_test.csv": truth.encode()})]
    names = [name for name, _ in gtsrb.FILES]
    for name, archive in zip(names, archives, strict=True):
        (folder / name).write_bytes(archive)
    monkeypatch.setattr(gtsrb, "HOST", f"{address}/")
    monkeypatch.setattr(gtsrb, "FILES", [(name, md5(archive)) for name, archive in zip(names, archives, strict=True)])
    dataset = fetched(tmp_path, gtsrb.GTSRB, gtsrb.fetch, monkeypatch, num_train=2, num_test=2, classes=2)
    assert dataset.train_images.shape == (2, 3, 48, 48)
    assert dataset.train_images[:, :, 24, 24].tolist() == [[200, 0, 10], [0, 200, 0]]
    assert dataset.test_labels.tolist() == [1, 0]
    assert dataset.test_images[:, :, 0, 0].tolist() == [[0, 200, 0], [200, 0, 10]]


def pets_class(address: str, folder: Path) -> Any:
    """torchvision's class for an archive of three pictures, one of them not square."""
    listed = "Abyssinian_1 1 1 1\namerican_bulldog_2 2 2 1\n"
    photo = Image.new("RGB", (90, 60), (0, 0, 255))
    photo.paste((250, 250, 250), (15, 0, 75, 60))
    wide = io.BytesIO()
    photo.save(wide, "JPEG", quality=95)
    photos = {
        "images/Abyssinian_1.jpg": wide.getvalue(),
        "images/american_bulldog_2.jpg": picture((10, 20, 30), (40, 40), "JPEG"),
    }
    notes = {"annotations/trainval.txt": listed.encode(), "annotations/test.txt": listed.encode()}
    archives = {"images.tar.gz": tar_of(photos), "annotations.tar.gz": tar_of({**notes, "annotations/trimaps/x": b""})}
    for name, archive in archives.items():
        (folder / name).write_bytes(archive)

    class Small(dataset_class("OxfordIIITPet")):  # type: ignore[misc]
        _RESOURCES = tuple((f"{address}/{name}", md5(archive)) for name, archive in archives.items())

    return Small


def test_pets_are_cut_to_the_middle_at_224_pixels(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = partial(pets.fetch, cls=pets_class(*server))
    dataset = fetched(tmp_path, pets.PETS, fetch, monkeypatch, num_train=2, num_test=2, classes=2)
    assert dataset.train_images.shape == (2, 3, 224, 224)
    assert dataset.train_images[0].min() > 120  # the blue at both sides is cut off
    assert dataset.train_labels.tolist() == [0, 1]


def test_a_damaged_picture_names_itself_and_nothing_is_kept(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    cls = pets_class(address, folder)
    broken = tar_of({"images/Abyssinian_1.jpg": b"\xff\xd8 nothing", "images/american_bulldog_2.jpg": b""})
    (folder / "images.tar.gz").write_bytes(broken)
    cls._RESOURCES = ((cls._RESOURCES[0][0], md5(broken)), cls._RESOURCES[1])
    with pytest.raises(DataUnavailable, match=r"could not be decoded.*Abyssinian_1\.jpg"):
        fetched(tmp_path, pets.PETS, partial(pets.fetch, cls=cls), monkeypatch, num_train=2, num_test=2, classes=2)
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["oxford-pets.lock"]


def test_flowers_are_trained_on_with_their_published_validation_images(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    address, folder = server

    def mat(**values: Any) -> bytes:
        content = io.BytesIO()
        scipy_io.savemat(content, values)
        return content.getvalue()

    colors = [(20 * n, 10 * n, 255 - 10 * n) for n in range(6)]
    photos = {f"jpg/image_{n:05d}.jpg": picture(color, (50, 40), "JPEG") for n, color in enumerate(colors, start=1)}
    files = {
        "102flowers.tgz": tar_of(photos),
        "imagelabels.mat": mat(labels=np.array([1, 2, 1, 2, 1, 2])),
        "setid.mat": mat(trnid=np.array([1, 2]), valid=np.array([3, 4]), tstid=np.array([5, 6])),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)

    class Small(dataset_class("Flowers102")):  # type: ignore[misc]
        _download_url_prefix = f"{address}/"
        _file_dict = {
            key: (name, md5(content))
            for key, (name, content) in zip(("image", "label", "setid"), files.items(), strict=True)
        }

    fetch = partial(flowers102.fetch, cls=Small)
    dataset = fetched(tmp_path, flowers102.FLOWERS102, fetch, monkeypatch, num_train=4, num_test=2, classes=2)
    assert dataset.train_labels.tolist() == [0, 1, 0, 1]
    assert dataset.validation is not None
    assert dataset.validation.tolist() == [False, False, True, True]
    assert [round(int(red) / 20) for red in dataset.train_images[:, 0, 112, 112]] == [0, 1, 2, 3]
    assert [round(int(red) / 20) for red in dataset.test_images[:, 0, 112, 112]] == [4, 5]


def test_every_dataset_says_what_it_holds_in_figures_that_fit_each_other() -> None:
    for info in catalogue.list_datasets():
        assert len(info.class_names) == len(set(info.class_names)) == info.num_classes, info.name
        assert len(info.mean) == len(info.std) == info.channels, info.name
        assert info.class_counts is None or sum(info.class_counts) == info.num_train, info.name
        assert info.class_counts is None or len(info.class_counts) == info.num_classes, info.name
