"""Records of experiments' files: path and digest. Writing files is in models/files.py."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from models import files
from models.errors import CorruptFile
from models.store.rows import Lease, fenced, touch
from models.store.states import ArtifactKind
from models.store.tables import Artifact, Experiment

PLACE = re.compile(r"([0-9]{1,19})(/[A-Za-z0-9][A-Za-z0-9._-]{0,254}){1,2}")
"""The pattern of a recorded path: the experiment's folder, the attempt's folder, a file."""

EACH = Artifact.__table__.c
OF_SEVERAL = select(
    EACH.experiment_id, EACH.kind, EACH.epoch, EACH.attempt, EACH.path, EACH.sha256, EACH.num_bytes
).where(EACH.experiment_id.in_(bindparam("ids", expanding=True)), EACH.kind == bindparam("kind"), EACH.epoch == 0)


@dataclass(frozen=True)
class ArtifactRecord:
    """One stored file."""

    experiment_id: int
    kind: ArtifactKind
    epoch: int
    """The number of epochs done when it was written; 0 for files that do not belong to an epoch."""
    attempt: int
    path: str
    """Relative to the experiments folder."""
    sha256: str
    num_bytes: int

    def file(self, experiments_dir: Path) -> Path:
        """Return the file's path. Raises CorruptFile for a record that points outside its own experiment's folder.

        Records may come from an untrusted backup, so all reading and removing code calls this.
        """
        place = PLACE.fullmatch(self.path)
        if place is None or place[1] != str(self.experiment_id):
            raise CorruptFile(f"the path {self.path[:80]!r} leads out of the folder of experiment {self.experiment_id}")
        return files.inside(experiments_dir, self.path)


def record(
    session: Session, lease: Lease, kind: ArtifactKind, epoch: int, path: str, sha256: str, num_bytes: int
) -> ArtifactRecord | None:
    """Record a complete file. Returns the record it replaces, whose file can be removed."""
    place = PLACE.fullmatch(path)
    if place is None or place[1] != str(lease.experiment_id):
        raise ValueError(f"{path} leads out of the folder of experiment {lease.experiment_id}")
    kind = ArtifactKind(kind)
    touch(fenced(session, lease))
    row = session.get(Artifact, (lease.experiment_id, kind, epoch), populate_existing=True)
    before = None if row is None else _record(row)
    if row is None:
        row = Artifact(experiment_id=lease.experiment_id, kind=kind, epoch=epoch)
        session.add(row)
    row.attempt, row.path, row.sha256, row.num_bytes = lease.attempt, path, sha256, num_bytes
    return before if before is not None and before.path != path else None


def find(session: Session, experiment_id: int, kind: ArtifactKind) -> ArtifactRecord | None:
    """The record of a file that does not belong to an epoch."""
    row = session.get(Artifact, (experiment_id, ArtifactKind(kind), 0), populate_existing=True)
    return None if row is None else _record(row)


def find_many(session: Session, ids: Sequence[int], kind: ArtifactKind) -> dict[int, ArtifactRecord]:
    """The records of the files of a kind that belong to no epoch, of several experiments, by one query."""
    found = session.execute(OF_SEVERAL, {"ids": ids, "kind": ArtifactKind(kind)})
    return {row.experiment_id: ArtifactRecord(**row._mapping) for row in found}


def newest(session: Session, experiment_id: int, kind: ArtifactKind) -> ArtifactRecord | None:
    """The record of this kind with the highest epoch."""
    found = _list(session, experiment_id, ArtifactKind(kind))
    return found[0] if found else None


def checkpoints(session: Session, experiment_id: int) -> list[ArtifactRecord]:
    """An experiment's checkpoints, the newest first."""
    return _list(session, experiment_id, ArtifactKind.CHECKPOINT)


def list_kind(session: Session, experiment_id: int, kind: ArtifactKind) -> list[ArtifactRecord]:
    """An experiment's files of a kind, those of the latest epoch first."""
    return _list(session, experiment_id, ArtifactKind(kind))


def list_for(session: Session, experiment_id: int) -> list[ArtifactRecord]:
    """Every file of an experiment."""
    return _list(session, experiment_id, None)


def bytes_of_owner(session: Session, owner: str) -> dict[int, int]:
    """Return the bytes of files per experiment of an owner."""
    query = (
        select(Artifact.experiment_id, func.sum(Artifact.num_bytes))
        .join(Experiment, Experiment.id == Artifact.experiment_id)
        .where(Experiment.owner == owner)
        .group_by(Artifact.experiment_id)
    )
    return {experiment_id: int(total) for experiment_id, total in session.execute(query)}


def forget(session: Session, lease: Lease, kind: ArtifactKind, *, keep: int) -> list[ArtifactRecord]:
    """Delete all but the newest `keep` records of a kind. Returns them; their files are removed after the commit."""
    touch(fenced(session, lease))
    return _drop(session, _list(session, lease.experiment_id, ArtifactKind(kind))[keep:])


def retain(session: Session, lease: Lease, kind: ArtifactKind, epochs: Collection[int]) -> list[ArtifactRecord]:
    """Delete the records of a kind that are of other epochs. Returns them; their files are removed after the commit."""
    touch(fenced(session, lease))
    return _drop(session, [one for one in list_kind(session, lease.experiment_id, kind) if one.epoch not in epochs])


def _drop(session: Session, dropped: list[ArtifactRecord]) -> list[ArtifactRecord]:
    for old in dropped:
        session.delete(session.get_one(Artifact, (old.experiment_id, old.kind, old.epoch)))
    return dropped


def remove_folder(experiments_dir: Path, experiment_id: int) -> None:
    """Remove an experiment's folder, after the commit that deleted it."""
    files.remove_tree(experiments_dir / str(int(experiment_id)))


def _list(session: Session, experiment_id: int, kind: ArtifactKind | None) -> list[ArtifactRecord]:
    query = select(Artifact).where(Artifact.experiment_id == experiment_id)
    if kind is not None:
        query = query.where(Artifact.kind == kind)
    ordered = query.order_by(Artifact.kind, Artifact.epoch.desc()).execution_options(populate_existing=True)
    return [_record(row) for row in session.scalars(ordered)]


def _record(row: Artifact) -> ArtifactRecord:
    return ArtifactRecord(row.experiment_id, row.kind, row.epoch, row.attempt, row.path, row.sha256, row.num_bytes)
