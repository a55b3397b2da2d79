"""The folders that runs write to, and the files in them that the database records.

    experiments_dir/<experiment>/attempt-<n>/
        weights-best.safetensors, checkpoint-....pt      the engine's own names, overwritten during training
        stored-weights-best-3f2a91c40d55.safetensors     recorded in the database: never changed, only replaced

A stored file is a second name (a hard link) of the engine's file. So a record's digest always fits its file, while
a newer file is being written as well as after a kill between the write and the record.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from models.errors import CorruptFile
from models.files import inside, link, remove_leftovers, remove_tree
from models.store.artifacts import ArtifactRecord

STORED = "stored-"


def attempt_folder(experiments_dir: Path, experiment_id: int, attempt: int) -> Path:
    """The folder that one attempt writes to. Raises CorruptFile if a link there leads out of the experiments folder."""
    return inside(experiments_dir, f"{int(experiment_id)}/attempt-{int(attempt)}")


def keep(path: Path, digest: str) -> Path:
    """Give a complete file a second, permanent name, which outlives the first one. Returns the second."""
    stored = path.with_name(f"{STORED}{path.stem}-{digest[:12]}{path.suffix}")
    with suppress(FileExistsError):
        link(path, stored)
    return stored


def remove_files(experiments_dir: Path, records: Iterable[ArtifactRecord]) -> None:
    """Remove files whose records are deleted. One that cannot be removed now is removed later by `sweep`."""
    for record in records:
        with suppress(OSError, CorruptFile):
            record.file(experiments_dir).unlink(missing_ok=True)


def sweep(experiments_dir: Path, experiment_id: int, records: Iterable[ArtifactRecord], attempt: int) -> None:
    """Remove what killed processes left of an experiment that no process writes to now.

    That is: half-written files, stored files without a record, and the folders of attempts other than `attempt` that
    no record points into. Raises CorruptFile if the experiment's folder is a link that leads elsewhere.
    """
    root = inside(experiments_dir, str(int(experiment_id)))
    recorded = set()
    for record in records:
        with suppress(CorruptFile):
            recorded.add(record.file(experiments_dir))
    remove_leftovers(root)
    for folder in [each for each in root.glob("attempt-*") if not each.is_symlink()]:
        for stored in folder.glob(f"{STORED}*"):
            if stored not in recorded:
                stored.unlink(missing_ok=True)
    needed = {path.parent for path in recorded} | {attempt_folder(experiments_dir, experiment_id, attempt)}
    for folder in root.glob("attempt-*"):
        if folder not in needed:
            remove_tree(folder)


def numbered_folders(experiments_dir: Path) -> list[int]:
    """The experiments that have a folder."""
    try:
        return sorted(int(path.name) for path in experiments_dir.iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return []


def remove_folder(experiments_dir: Path, experiment_id: int) -> None:
    """Remove all files of an experiment."""
    remove_tree(experiments_dir / str(experiment_id))
