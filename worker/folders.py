"""The folders that runs write to: experiments_dir/<experiment>/attempt-<n>, and what killed processes left in them."""

from contextlib import suppress
from pathlib import Path

from models.store.artifacts import ArtifactRecord
from models.store.files import remove_tree


def attempt_folder(experiments_dir: Path, experiment_id: int, attempt: int) -> Path:
    """Where one attempt writes."""
    return experiments_dir / str(experiment_id) / f"attempt-{attempt}"


def remove_files(experiments_dir: Path, records: list[ArtifactRecord]) -> None:
    """Remove files whose records are gone. One that cannot be removed is left for the experiment's deletion."""
    for record in records:
        with suppress(OSError):
            record.file(experiments_dir).unlink(missing_ok=True)


def numbered_folders(experiments_dir: Path) -> list[int]:
    """The experiments that have a folder."""
    try:
        return sorted(int(path.name) for path in experiments_dir.iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return []


def remove_folder(experiments_dir: Path, experiment_id: int) -> None:
    """Remove all files of an experiment."""
    remove_tree(experiments_dir / str(experiment_id))
