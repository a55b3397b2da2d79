"""The API reads no file outside the data directory, whatever path a record has; it answers 409."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image
from sqlalchemy import update
from starlette.testclient import TestClient

from models.files import sha256_of
from models.store.states import ArtifactKind
from models.store.tables import Artifact
from tests.service.lab_of_one import Filled, epoch

API = "/api/v1/experiments"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "PNG")
    return buffer.getvalue()


def answers(client: TestClient, experiment_id: int) -> list[int]:
    """Statuses of everything that reads an experiment's files."""
    responses = [
        client.post(f"{API}/{experiment_id}/predictions", files={"image": ("a.png", png(), "image/png")}),
        client.post(f"{API}/{experiment_id}/predictions?weights=last", files={"image": ("a.png", png(), "image/png")}),
        *(client.get(f"{API}/{experiment_id}/{what}") for what in ("kernels.png", "kernels.json", "kernels.svg")),
        *(client.get(f"{API}/{experiment_id}/kernels.png?epoch={which}") for which in ("last", "best", "1")),
        client.get(f"{API}/{experiment_id}/reproduction"),
    ]
    return [response.status_code for response in responses]


def test_a_record_that_leads_out_is_not_read(client: TestClient, filled: Filled, tmp_path: Path) -> None:
    first = filled.start(filled.add())
    filled.append(first, [epoch(1)])
    secret = filled.keep(first, ArtifactKind.WEIGHTS_LAST, {"w": np.ones(3, np.float32)}, {"of": "the first"})
    filled.settle(first)
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    tensors = {"features.0.weight": np.ones((4, 3, 5, 5), np.float32), "kernels": np.ones((1, 4, 3, 5, 5), np.float32)}
    for kind in (ArtifactKind.WEIGHTS_BEST, ArtifactKind.WEIGHTS_LAST, ArtifactKind.KERNELS):
        filled.keep(claim, kind, tensors, {"epochal": "{}"})
    filled.settle(claim)
    number = claim.experiment_id
    client.post(f"{API}/{number}/reproduce")
    assert answers(client, number)[2:] == [200] * 7

    outside, folder = tmp_path / "outside", filled.settings.experiments_dir
    outside.mkdir()
    (outside / "w").write_bytes(secret.read_bytes())
    (folder / str(number) / "link").symlink_to(outside)
    leading_out = {
        "absolute": str(outside / "w"),
        "dots": f"{number}/{os.path.relpath(outside / 'w', folder / str(number))}",
        "link": f"{number}/link/w",
        "another experiment's": secret.relative_to(folder).as_posix(),
        "the folder itself": "",
    }
    for how, path in leading_out.items():
        with filled.store.writing() as session:
            session.execute(
                update(Artifact)
                .where(Artifact.experiment_id == number)
                .values(path=path, sha256=sha256_of(outside / "w"))
            )
        *statuses, compared = answers(client, number)
        assert statuses == [409] * len(statuses), how
        assert compared == 200  # of the curves; there are no weights to compare
