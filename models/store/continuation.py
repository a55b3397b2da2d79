"""Creates experiments that continue another one: they start with copies of its epochs and files."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sqlalchemy.orm import Session

from models import files
from models.errors import Conflict
from models.store import artifacts, history
from models.store.artifacts import ArtifactRecord
from models.store.rows import load
from models.store.states import ArtifactKind, Status
from models.store.tables import Artifact, Experiment

FOLDER = "attempt-0"
"""Folder of the files that a continuation took over. Its own attempts count from 1."""
NAMES = {
    ArtifactKind.WEIGHTS_BEST: "weights-best.safetensors",
    ArtifactKind.WEIGHTS_LAST: "weights-last.safetensors",
    ArtifactKind.WEIGHTS_INITIAL: "weights-initial.safetensors",
    ArtifactKind.KERNELS: "kernels.safetensors",
    ArtifactKind.GRAPH: "graph.onnx",
}
"""Files that a continuation takes over beside the checkpoint, as training names them."""


def last_checkpoint(session: Session, experiment_id: int) -> ArtifactRecord:
    """The checkpoint from which a completed experiment can be continued.

    Raises NotFound, and Conflict for an experiment that has not completed or has no checkpoint.
    """
    experiment = load(session, experiment_id)
    if experiment.status is not Status.COMPLETED:
        can_resume = experiment.status in (Status.FAILED, Status.CANCELLED, Status.DIVERGED)
        raise Conflict(
            f"experiment {experiment_id} is {experiment.status}; only a completed one is continued",
            fix=f"POST /api/v1/experiments/{experiment_id}/resume" if can_resume else "wait until it has ended",
        )
    record = artifacts.newest(session, experiment_id, ArtifactKind.CHECKPOINT)
    if record is None or record.epoch == 0:
        raise Conflict(
            f"experiment {experiment_id} has no checkpoint of a whole epoch",
            fix="POST its spec with more epochs to train it from the start",
        )
    return record


def copy_epochs_and_files(
    session: Session, experiment: Experiment, checkpoint: ArtifactRecord, experiments_dir: Path
) -> None:
    """Copy the epochs and files of the experiment with this checkpoint to a new one.

    Files are hard links, since files of experiments are never changed, only replaced: either experiment can be deleted.
    Raises Conflict if the checkpoint's file is gone.
    """
    experiment.continues = checkpoint.experiment_id
    history.copy(session, checkpoint.experiment_id, experiment.id, checkpoint.epoch)
    _make_empty_folder(experiment, experiments_dir)
    try:
        _take(session, experiment, checkpoint, f"checkpoint-{checkpoint.epoch:05d}.pt", experiments_dir)
    except FileNotFoundError as error:
        raise Conflict(
            f"the checkpoint of experiment {checkpoint.experiment_id} is missing on the disk",
            fix="POST its spec with more epochs to train it from the start",
        ) from error
    for kind, name in NAMES.items():
        if (record := artifacts.newest(session, checkpoint.experiment_id, kind)) is not None:
            with suppress(FileNotFoundError):  # training writes it again; best weights that are lost are not the best
                _take(session, experiment, record, name, experiments_dir)


def link_initial_weights(
    session: Session, experiment: Experiment, weights: ArtifactRecord, experiments_dir: Path
) -> None:
    """Link another experiment's weights file into a new experiment that starts from them.

    Raises Conflict if that file is gone.
    """
    _make_empty_folder(experiment, experiments_dir)
    initial = replace(weights, kind=ArtifactKind.WEIGHTS_INITIAL, epoch=0)
    try:
        _take(session, experiment, initial, NAMES[ArtifactKind.WEIGHTS_INITIAL], experiments_dir)
    except FileNotFoundError as error:
        raise Conflict(
            f"the weights of experiment {weights.experiment_id} are missing on the disk",
            fix="leave model.init_from out, or start from another experiment",
        ) from error


def _make_empty_folder(experiment: Experiment, experiments_dir: Path) -> None:
    """Make the folder of the copied files. Files that an earlier, failed creation left there are removed."""
    folder = experiments_dir / str(experiment.id) / FOLDER
    files.remove_tree(folder.parent)
    files.make_folder(folder)


def _take(session: Session, experiment: Experiment, record: ArtifactRecord, name: str, experiments_dir: Path) -> None:
    path = f"{experiment.id}/{FOLDER}/{name}"
    files.link(record.file(experiments_dir), experiments_dir / path)
    session.add(
        Artifact(
            experiment_id=experiment.id,
            kind=record.kind,
            epoch=record.epoch,
            attempt=0,
            path=path,
            sha256=record.sha256,
            num_bytes=record.num_bytes,
        )
    )
