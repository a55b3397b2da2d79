"""Commands `epochal backup` and `restore`: database and artifacts in one tar file, consistent while workers train.

A backup holds a snapshot of the database and, for every file the snapshot names, that very file by its digest. Training
continues meanwhile and replaces files; an outdated snapshot is taken again, and only changed files are read again.
"""

import os
import shutil
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import CorruptFile, StorageFull
from models.private import close_to_others, private
from service.cli import options
from service.cli.output import Mode, errors, print_json, say, shown
from service.cli.unpacking import DATABASE, EXPERIMENTS, BackupFailed, unpack

if TYPE_CHECKING:
    from models.settings import Settings
    from models.store.artifacts import ArtifactRecord

SNAPSHOTS = 20
"""A snapshot is overtaken when an epoch ends while files are copied, which takes milliseconds a file."""
File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup, a .tar file.")]


def backup(file: File, data_dir: options.DataDir = None, as_json: options.AsJson = False) -> None:
    """Back up database and artifacts to a .tar file; the lab may be running."""
    settings = options.settings_for(data_dir)
    if not settings.database_url and not (settings.data_dir / DATABASE).exists():
        raise BackupFailed(f"{settings.data_dir} holds no lab", fix="Name its folder: --data-dir or EPOCHAL_DATA_DIR.")
    if os.path.lexists(file) and not file.is_file():  # a folder, or a device, which a rename would replace
        name = file / "epochal.tar" if file.is_dir() else "epochal.tar"
        raise BackupFailed(f"{file} is not a file", fix=f"Name one, such as {name}.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.parent) as staging, private():
            records = _stage(settings, Path(staging))
            _pack(Path(staging), file)
        num_bytes = file.stat().st_size
    except OSError as error:
        raise BackupFailed(f"{file} cannot be written: {error.strerror}", fix="Choose another place.") from error
    names, left_out = _datasets_left_out(settings)
    if Mode.json:
        found = {"file": str(file), "artifacts": len(records), "bytes": num_bytes}
        print_json({**found, "datasets_left_out": names, "datasets_bytes": left_out})
    say(f"backed up to {file}: the database and {len(records)} artifacts, {num_bytes:,} bytes")
    if names:
        say(
            f"not in it: the images of {', '.join(names[:10])}{' ...' if len(names) > 10 else ''} "
            f"({left_out / 1e6:,.1f} MB); copy {settings.datasets_dir} to the restored data directory to train on them",
            style="yellow",
        )


def restore(file: File, data_dir: options.DataDir = None, as_json: options.AsJson = False) -> None:
    """Restore a backup into an empty data directory; interrupted runs are continued."""
    settings = options.settings_for(data_dir)
    target = settings.data_dir
    if not file.is_file():
        raise BackupFailed(f"there is no file {file}")
    if settings.database_url:
        raise BackupFailed(
            "a backup holds an SQLite database, and EPOCHAL_DATABASE_URL names another one",
            fix="Unset it, or restore that database by its own means.",
        )
    try:
        if opened := close_to_others(target):
            errors.print(shown(opened), style="yellow")
    except OSError as error:
        raise BackupFailed(
            f"{target} cannot be used as the data directory: {error.strerror}",
            fix="Choose a folder that you can write to: --data-dir or EPOCHAL_DATA_DIR.",
        ) from error
    with private():
        count, keys = _restore(file, target)
    if Mode.json:
        print_json({"data_dir": str(target), "artifacts": count, "keys": keys})
    say(f"restored {count} artifacts and the database to {target}; start it with `epochal up --data-dir {target}`")
    if keys:
        say(f"the restored API keys are valid: {', '.join(keys)}; `epochal keys revoke` revokes one")


def _datasets_left_out(settings: "Settings") -> tuple[list[str], int]:
    """The uploaded datasets, whose images are not part of a backup, and the bytes that they take."""
    from models.data.uploaded import list_names, list_versions

    names = list_names(settings.datasets_dir)
    folders = [folder for name in names for folder in list_versions(settings.datasets_dir, name)]
    return names, sum(path.stat().st_size for folder in folders for path in folder.iterdir())


def _restore(file: Path, target: Path) -> tuple[int, list[str]]:
    """Unpack, check and move into place. Returns the number of artifacts and the names of the keys in use."""
    from models.store.inspection import keys_in_use
    from service.lab.lab import lock_data_dir

    lock = lock_data_dir(target)
    try:
        if any(target.glob(f"{DATABASE}*")) or os.path.lexists(target / EXPERIMENTS):
            raise BackupFailed(f"{target} holds a lab already", fix="Restore into another folder: --data-dir.")
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=target) as unpacked:
            count = unpack(file, Path(unpacked))
            keys = keys_in_use(Path(unpacked) / DATABASE)
            _disable_webhooks(Path(unpacked) / DATABASE)
            for name in (EXPERIMENTS, DATABASE):  # the database last: without it the folder holds no lab
                if (Path(unpacked) / name).exists():
                    (Path(unpacked) / name).rename(target / name)
        return count, keys
    finally:
        lock.close()


def _disable_webhooks(database: Path) -> None:
    """A copy of a lab sends nothing to whom the lab tells of its experiments, nor one from elsewhere to anybody."""
    from models.store.sqlite import dbapi

    with closing(dbapi.connect(str(database))) as connection, connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'webhooks'").fetchone():
            connection.execute("UPDATE webhooks SET enabled = 0, reason = 'restored from a backup' WHERE enabled")
            connection.execute(
                "UPDATE webhook_deliveries SET status = 'failed', next_at = NULL WHERE status IN ('pending', 'sending')"
            )


def _stage(settings: "Settings", staging: Path) -> list["ArtifactRecord"]:
    """Copy the database and its artifacts into `staging`, each artifact as the copied database describes it."""
    from models.store import Store

    store = Store(settings)
    try:
        for _ in range(SNAPSHOTS):
            store.backup(staging / DATABASE)
            records = list_records(staging)
            if all(_have(record, settings, staging) for record in records):
                _drop_unnamed(staging / EXPERIMENTS, {record.path for record in records})
                return records
    finally:
        store.dispose()
    raise BackupFailed(
        f"files changed faster than they could be copied, {SNAPSHOTS} times",
        fix="Try again when less is training, or see whether a stored file is damaged: the API's log names it.",
    )


def _have(record: "ArtifactRecord", settings: "Settings", staging: Path) -> bool:
    """Copy an artifact if it is not staged yet; whether the staged file matches its record."""
    from models.files import verify

    try:
        original = record.file(settings.experiments_dir)
        staged = record.file(staging / EXPERIMENTS)
    except CorruptFile as error:
        raise BackupFailed(f"{error.detail}; the database was changed by something else than a lab") from error
    try:
        if staged.exists():
            verify(staged, record.sha256)
            return True
    except CorruptFile:
        pass
    try:
        staged.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, staged)
        verify(staged, record.sha256)
    except (CorruptFile, FileNotFoundError):
        return False
    except OSError as error:
        raise StorageFull(f"{staged.name} cannot be copied: {error.strerror}", fix="Choose another place.") from error
    return True


def list_records(folder: Path) -> list["ArtifactRecord"]:
    """List the artifacts recorded in the database of a folder."""
    from sqlalchemy import select

    from models.settings import Settings
    from models.store import Store, artifacts
    from models.store.tables import Experiment

    store = Store(Settings(data_dir=folder).model_copy(update={"database_url": None}))
    try:
        with store.reading() as session:
            numbers = session.scalars(select(Experiment.id)).all()
            return [record for number in numbers for record in artifacts.list_for(session, number)]
    finally:
        store.dispose()


def _drop_unnamed(folder: Path, named: set[str]) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in named:
            path.unlink()


def _pack(staging: Path, file: Path) -> None:
    from models.files import placing

    with placing(file) as temporary, tarfile.open(temporary, "w") as archive:
        archive.add(staging / DATABASE, DATABASE)
        if (staging / EXPERIMENTS).exists():
            archive.add(staging / EXPERIMENTS, EXPERIMENTS)
