"""Archives of small pictures, and importing them as a worker does."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.data.fetching import read_note
from models.data.importing.engine import import_archive
from models.data.importing.options import ImportOptions
from models.data.uploaded import version_folder
from models.errors import EpochalError
from models.store import datasets
from tests.service.lab_of_one import Filled

CLASSES = {"cat": 12, "dog": 8}
GRAY = {"one": 12, "two": 8, "three": 6}


def picture(seed: int, side: int = 12, mode: str = "RGB") -> bytes:
    """A PNG of noise."""
    generator = np.random.default_rng(seed)
    shape = (side, side) if mode == "L" else (side, side, 3)
    file = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8), mode).save(file, "PNG")
    return file.getvalue()


def photos(
    classes: Mapping[str, int] = CLASSES, *, first: int = 0, also: Mapping[str, bytes] = {}, **kind: Any
) -> bytes:
    """A zip of class folders; `also` are further files in it."""
    file = io.BytesIO()
    seed = first
    with zipfile.ZipFile(file, "w") as archive:
        for name, number in classes.items():
            for image in range(number):
                seed += 1
                archive.writestr(f"{name}/{image}.png", picture(seed, **kind))
        for path, content in also.items():
            archive.writestr(path, content)
    return file.getvalue()


def do_jobs(filled: Filled) -> int:
    """Import what waits, in this process; checks are left out. Returns how many versions were made or failed."""
    done = 0
    while True:
        with filled.store.writing() as session:
            claim = datasets.claim_next(session, "worker-1")
        if claim is None:
            return done
        if claim.kind == "health":
            with filled.store.writing() as session:
                datasets.end_check(session, claim)
            continue
        done += 1
        _do(filled, claim)


def _do(filled: Filled, claim: datasets.Claim) -> None:
    settings = filled.settings
    place: Path = version_folder(settings.datasets_dir, claim.dataset, claim.version)
    try:
        options = ImportOptions(name=claim.dataset, threads=1, **claim.options["import"])
        report = import_archive(
            settings.uploads_dir / claim.options["archive"], place, options, lambda *_: None
        ).model_dump(mode="json")
    except EpochalError as error:
        with filled.store.writing() as session:
            datasets.fail(session, claim, {"title": error.title, "detail": error.detail, **error.extra})
        return
    note = read_note(place)
    with filled.store.writing() as session:
        size = sum(path.stat().st_size for path in place.iterdir())
        datasets.finish(
            session, claim, fingerprint=note["fingerprint"], num_bytes=size, info=note["info"], report=report
        )
