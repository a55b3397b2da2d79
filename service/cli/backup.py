"""Commands `epochal backup` and `restore`: database and artifacts in one tar file, consistent while workers train.

A backup holds a snapshot of the database and, for every file the snapshot names, that very file by its digest; with
--with-datasets the images of uploaded datasets too. Training continues meanwhile and replaces files; an outdated
snapshot is taken again, and only changed files are read again.
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
from models.text import plural
from service.cli import backup_datasets, options
from service.cli.backup_database import list_records
from service.cli.backup_datasets import DATASETS
from service.cli.output import Mode, errors, print_json, say, shown
from service.cli.unpacking import DATABASE, EXPERIMENTS, BackupFailed, Unpacked, unpack

if TYPE_CHECKING:
    from models.settings import Settings
    from models.store.artifacts import ArtifactRecord

SNAPSHOTS = 20
"""A snapshot is overtaken when an epoch ends while files are copied, which takes milliseconds a file."""
File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup, a .tar file.")]


def backup(
    file: File,
    with_datasets: Annotated[
        bool, typer.Option("--with-datasets", help="Include the images of uploaded datasets, as large as they are.")
    ] = False,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
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
            versions = backup_datasets.list_versions(Path(staging))
            images = list(backup_datasets.list_files(settings.data_dir, versions))
            _pack(Path(staging), images if with_datasets else [], file)
        num_bytes = file.stat().st_size
        images_bytes = sum(path.stat().st_size for _, path in images if path.exists())
    except OSError as error:
        raise BackupFailed(f"{file} cannot be written: {error.strerror}", fix="Choose another place.") from error
    names = sorted({version.name for version in versions})
    if Mode.json:
        found = {"file": str(file), "artifacts": len(records), "bytes": num_bytes}
        inside, left_out = (names, []) if with_datasets else ([], names)
        said = {"datasets": inside, "datasets_left_out": left_out, "datasets_bytes": images_bytes}
        print_json({**found, **said})
    some = f"{', '.join(names[:10])}{' ...' if len(names) > 10 else ''} ({images_bytes / 1e6:,.1f} MB)"
    images_of = f" and the images of {some}" if names and with_datasets else ""
    say(f"backed up to {file}: the database, {len(records)} artifacts{images_of}, {num_bytes:,} bytes")
    if names and not with_datasets:
        say(
            f"not included: the images of {some}, which a restored lab needs to train on them; --with-datasets "
            f"includes them, or copy {settings.datasets_dir} to the restored data directory",
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
        held, keys = _restore(file, target)
    if Mode.json:
        print_json({"data_dir": str(target), "artifacts": held.artifacts, "datasets": held.datasets, "keys": keys})
    images = f", {plural(held.datasets, 'version')} of uploaded datasets" if held.datasets else ""
    say(
        f"restored {held.artifacts} artifacts{images} and the database to {target}; start it with "
        f"`epochal up --data-dir {target}`"
    )
    if keys:
        say(f"the restored API keys are valid: {', '.join(keys)}; `epochal keys revoke` revokes one")


def _restore(file: Path, target: Path) -> tuple[Unpacked, list[str]]:
    """Unpack, check and move into place. Returns what was restored and the names of the keys in use."""
    from models.store.inspection import keys_in_use
    from service.lab.lab import lock_data_dir

    lock = lock_data_dir(target)
    try:
        if any(target.glob(f"{DATABASE}*")) or os.path.lexists(target / EXPERIMENTS):
            raise BackupFailed(f"{target} already holds a lab", fix="Restore into another folder: --data-dir.")
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=target) as unpacked:
            held = unpack(file, Path(unpacked))
            keys = keys_in_use(Path(unpacked) / DATABASE)
            _disable_webhooks(Path(unpacked) / DATABASE)
            if held.datasets and os.path.lexists(target / DATASETS):
                raise BackupFailed(
                    f"{target / DATASETS} exists already, and the backup holds uploaded datasets",
                    fix="Restore into another folder: --data-dir.",
                )
            for name in (EXPERIMENTS, DATASETS, DATABASE):  # the database last: without it the folder holds no lab
                if (Path(unpacked) / name).exists():
                    (Path(unpacked) / name).rename(target / name)
        return held, keys
    finally:
        lock.close()


def _disable_webhooks(database: Path) -> None:
    """Disable the webhooks of a restored database, since a copy of a lab must not send messages for it."""
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
        raise BackupFailed(f"{error.detail}; the database was changed by something other than a lab") from error
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


def _drop_unnamed(folder: Path, named: set[str]) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in named:
            path.unlink()


def _pack(staging: Path, images: list[tuple[str, Path]], file: Path) -> None:
    from models.files import placing

    with placing(file) as temporary, tarfile.open(temporary, "w") as archive:
        archive.add(staging / DATABASE, DATABASE)
        if (staging / EXPERIMENTS).exists():
            archive.add(staging / EXPERIMENTS, EXPERIMENTS)
        for name, path in images:
            try:
                archive.add(path, name)
            except FileNotFoundError as error:
                raise BackupFailed(
                    f"{name.rpartition('/')[0]} was deleted while it was copied", fix="Try again."
                ) from error
