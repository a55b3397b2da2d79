"""Uploaded datasets in a backup: datasets/NAME/VERSION/FILE, of the versions that its database says are ready."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from service.cli.backup_database import reading

DATASETS = "datasets"
FILES = (
    *("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy", "validation.npy", "groups.npy"),
    *("dataset.json", "files.jsonl", "health.json"),
)
FOLDER = re.compile(rf"{DATASETS}(/[A-Za-z][A-Za-z0-9._-]{{0,63}}(/[0-9]{{1,4}})?)?")
FILE = re.compile(rf"{FOLDER.pattern}/(?:{'|'.join(map(re.escape, FILES))})")


class Version(NamedTuple):
    """A version of a dataset as a database has it."""

    name: str
    version: int
    fingerprint: str

    @property
    def folder(self) -> str:
        """Its folder in a backup and in a data directory."""
        return f"{DATASETS}/{self.name}/{self.version}"


def list_versions(folder: Path) -> list[Version]:
    """The versions that are ready by the database in a folder."""
    from models.store import datasets

    with reading(folder) as session:
        return [Version(*found) for found in datasets.list_ready(session)]


def list_files(data_dir: Path, versions: list[Version]) -> Iterator[tuple[str, Path]]:
    """The files of versions: their names in a backup, and where they are. A version's files never change."""
    for version in versions:
        if not FOLDER.fullmatch(version.folder):
            continue  # a database that was changed by something other than a lab
        folder = data_dir / version.folder
        yield from ((f"{version.folder}/{name}", folder / name) for name in FILES if (folder / name).is_file())


def check_restored(folder: Path, versions: Mapping[str, Version]) -> None:
    """Check unpacked versions, by their folders, against their database: fingerprints are taken anew of every byte.

    Raises CorruptFile for one that is not what it says.
    """
    from models.data.contents import fingerprint, version_fingerprint
    from models.data.dataset import load_folder
    from models.errors import CorruptFile, DataUnavailable

    for path, version in versions.items():
        try:
            dataset = load_folder(folder / path)
            info = dataset.info
            content = fingerprint(dataset)
            named = version_fingerprint(content, info.class_names, info.fit, dataset.validation, dataset.groups)
            whole = (
                # of the arrays alone until it became that of all there is
                version.fingerprint in (content, named)
                and dataset.fingerprint == version.fingerprint
                and dataset.train_images.shape == (info.num_train, info.channels, info.size, info.size)
                and dataset.test_images.shape == (info.num_test, info.channels, info.size, info.size)
                and len(info.class_names) == info.num_classes
                and all(
                    len(labels) == count and (not count or 0 <= labels.min() <= labels.max() < info.num_classes)
                    for labels, count in (
                        (dataset.train_labels, info.num_train), (dataset.test_labels, info.num_test)
                    )
                )
            )  # fmt: skip
        except (DataUnavailable, OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:
            raise CorruptFile(f"{path} is not a complete dataset: {type(error).__name__}") from error
        if not whole:
            raise CorruptFile(f"{path} does not have the images that its database says, by their fingerprint")
