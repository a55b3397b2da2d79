"""Finds the dataset that a spec names: a built-in one, or a version of one uploaded to this lab.

    data_dir/datasets/NAME/VERSION/      a version of an uploaded dataset; made elsewhere and renamed when it is whole
        train_images.npy ... dataset.json
    data_dir/datasets/.built-in/NAME/    what a check of a built-in dataset found

A version is named by its fingerprint: a spec that names one means the same images for as long as they are kept. Without
one a spec means the newest version. All is read from the files, so that a worker needs no database for it.
"""

import json
import re
import secrets
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from models.data.catalogue import DATASETS, get_dataset
from models.data.dataset import ImageDataset, is_fetched, load_dataset, load_folder
from models.data.description import DatasetNote
from models.data.fetching import is_whole
from models.data.info import DatasetInfo
from models.data.sources import ReportBytes
from models.errors import DataUnavailable, FieldError, InvalidRequest, SpecError
from models.files import remove_tree
from models.model_names import NAME
from models.spec.data import DatasetSpec
from models.spec.experiment import ExperimentSpec
from models.spec.explain import nearest_word

NOTE = "dataset.json"
JOBS = ".jobs"
"""Folder in which workers make versions."""
DELETED = ".deleted-"
"""Prefix of the folder of a deleted version until its files are removed."""
BUILT_IN = ".built-in"
"""Folder of what is known of built-in datasets, whose images are in the cache."""
RULE = "a dataset's name has 1 to 64 letters (A to Z), digits, dots, dashes and underscores, and begins with a letter"
MAX_NAMED = 50
"""The most names that an error lists."""


class HasFolders(Protocol):
    """The settings that finding a dataset needs."""

    @property
    def cache_dir(self) -> Path:
        """The folder that built-in datasets are kept in."""

    @property
    def datasets_dir(self) -> Path:
        """The folder that uploaded datasets are kept in."""


@dataclass(frozen=True)
class FoundDataset:
    """A dataset that a spec names."""

    info: DatasetInfo
    fingerprint: str | None
    """Of an uploaded version; None for a built-in dataset, whose content never changes."""
    folder: Path | None
    """Of an uploaded version."""


def nearest_name(text: str) -> str:
    """A valid name like a folder's or a file's: `my photos` as `my-photos`, `Köln` as `Koln`; empty without one."""
    ascii_alone = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_alone).lstrip("0123456789.-_")[:64].rstrip("-._")


def check_dataset_name(name: str) -> None:
    """Raise InvalidRequest, with the nearest valid name, unless an uploaded dataset may be called that."""
    if not NAME.fullmatch(name):
        nearest = nearest_name(name)
        entry = {"field": "name", "message": RULE, "value": name[:100], **({"nearest": nearest} if nearest else {})}
        fix = f"call it {nearest}" if nearest else "call it photos, for instance"
        raise InvalidRequest(f"{RULE}; {name[:100]!r} is not of that form", fix=fix, errors=[entry])
    if name.lower() in DATASETS:
        message = f"{name} is the name of a built-in dataset"
        nearest = f"my-{name.lower()}"[:64]
        entry = {"field": "name", "message": message, "value": name, "nearest": nearest}
        raise InvalidRequest(message, fix=f"call it {nearest}", errors=[entry])


def version_folder(datasets_dir: Path, name: str, version: int) -> Path:
    """The folder of a version, which may not exist yet."""
    return datasets_dir / name / str(int(version))


def health_folder(datasets_dir: Path, name: str, version: int) -> Path:
    """The folder of the result of a check (models.data.health.stored); a built-in dataset has no versions."""
    return datasets_dir / BUILT_IN / name if name in DATASETS else version_folder(datasets_dir, name, version)


def find_dataset(dataset: DatasetSpec, settings: HasFolders) -> FoundDataset:
    """The dataset that a spec's `dataset` part names. Raises SpecError, with a name that is alike, if there is none."""
    if dataset.name in DATASETS:
        if dataset.fingerprint is not None:
            message = f"names a version of an uploaded dataset, and {dataset.name} is built in; leave it out"
            raise SpecError([{"field": "dataset.fingerprint", "message": message}])
        return FoundDataset(get_dataset(dataset.name), None, None)
    versions = list_versions(settings.datasets_dir, dataset.name)
    if not versions:
        raise _unknown_name(dataset.name, settings)
    notes = [(folder, read_version(folder)) for folder in versions]
    # fingerprints were of the arrays alone ("content") until labels' names and splits became part of them
    for key in ("fingerprint", "content"):
        for folder, note in notes:
            if dataset.fingerprint is None or str(note.get(key, "")).startswith(dataset.fingerprint):
                return FoundDataset(_info_of(note), str(note["fingerprint"]), folder)
    newest = str(notes[0][1]["fingerprint"])
    message = f"there is no version {dataset.fingerprint} of the dataset {dataset.name} (any more)"
    error: FieldError = {
        "field": "dataset.fingerprint",
        "message": message,
        "value": dataset.fingerprint,
        "nearest": newest,
    }
    raise SpecError(
        [error], fix=f"GET /api/v1/datasets/{dataset.name} lists its versions; left out, the newest is taken"
    )


def pinned(spec: ExperimentSpec, found: FoundDataset) -> ExperimentSpec:
    """The spec with the version of its uploaded dataset named by fingerprint; unchanged for a built-in one."""
    if found.fingerprint is None or spec.dataset.fingerprint == found.fingerprint:
        return spec
    return spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"fingerprint": found.fingerprint})})


def open_dataset(dataset: DatasetSpec, settings: HasFolders, progress: ReportBytes | None = None) -> ImageDataset:
    """Map the dataset that a spec names into memory; a built-in one is fetched first if this cache does not have it.

    Raises SpecError as `find_dataset` does, DataUnavailable when no source delivers, StorageFull when the disk is full.
    """
    found = find_dataset(dataset, settings)
    return load_dataset(dataset.name, settings, progress) if found.folder is None else load_folder(found.folder)


def open_local(dataset: DatasetSpec, settings: HasFolders) -> ImageDataset:
    """As `open_dataset`, without downloading. Raises DataUnavailable if the dataset is not on this machine."""
    found = find_dataset(dataset, settings)
    if found.folder is None and not is_fetched(found.info, settings.cache_dir):
        name = found.info.name
        raise DataUnavailable(
            f"{found.info.title} has not been fetched yet",
            fix=f"epochal data fetch {name}, or train on it once",
        )
    return open_dataset(dataset, settings)


def remove_version(datasets_dir: Path, name: str, version: int) -> None:
    """Remove a version's files, after the commit that deleted it. A worker later removes what remains."""
    gone = datasets_dir / f"{DELETED}{secrets.token_hex(8)}"
    with suppress(OSError):
        version_folder(datasets_dir, name, version).rename(gone)
        remove_tree(gone)
    with suppress(OSError):
        (datasets_dir / name).rmdir()  # if it was the last version


def list_versions(datasets_dir: Path, name: str) -> list[Path]:
    """The folders of a name's complete versions, the newest first; empty for an invalid name."""
    if not NAME.fullmatch(name):
        return []
    try:
        numbered = [path for path in (datasets_dir / name).iterdir() if path.name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder for folder in sorted(numbered, key=lambda path: -int(path.name)) if is_whole(folder)]


def list_names(datasets_dir: Path) -> list[str]:
    """The names that have a complete version."""
    try:
        names = sorted(path.name for path in datasets_dir.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if list_versions(datasets_dir, name)]


def read_version(folder: Path) -> DatasetNote:
    """The description of a version, kept in memory until its file changes."""
    path = folder / NOTE
    return _read_note(path, path.stat().st_mtime_ns)


def _info_of(note: DatasetNote) -> DatasetInfo:
    """A version's description, with the training images of each class, which warnings use."""
    info = DatasetInfo.from_json(note["info"])
    counted = note.get("report", {}).get("classes", [])
    if info.class_counts is not None or len(counted) != info.num_classes:
        return info
    return replace(info, class_counts=tuple(one["train"] + one["validation"] for one in counted))


@lru_cache(maxsize=256)
def _read_note(path: Path, _: int) -> DatasetNote:
    note: DatasetNote = json.loads(path.read_text(encoding="utf-8"))
    return note


def _unknown_name(name: str, settings: HasFolders) -> SpecError:
    known = [*DATASETS, *list_names(settings.datasets_dir)]
    nearest = nearest_word(name, known)
    error: FieldError = {
        "field": "dataset.name",
        "message": f"there is no dataset {name[:100]!r}",
        "value": name[:100],
        "choices": known[:MAX_NAMED],
    }
    if nearest is not None:
        error["nearest"] = nearest
    return SpecError([error], fix="GET /api/v1/datasets lists what can be named")
