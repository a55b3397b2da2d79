"""Ensembles, averages of weights and robustness of a study: asked for, waited for, read, drawn and reported."""

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.measurements import CombinedResult, RobustnessResult
from models.store import measurements
from models.store.states import ArtifactKind, MeasurementKind, MeasurementStatus
from models.store.tables import Measurement
from tests.service.lab_of_one import Filled
from tests.service.studies.test_routes import WIDTHS, advance, post, train
from worker.combining import combine_runs

CURVES = {"gaussian_noise": 0.3, "gaussian_blur": 0.4, "brightness": 0.45, "jpeg_compression": 0.35}


def waiting(filled: Filled) -> list[Measurement]:
    with filled.store.reading() as session:
        rows = session.query(Measurement).filter(Measurement.status == MeasurementStatus.QUEUED)
        return list(rows.order_by(Measurement.id))


def measure(filled: Filled) -> list[Measurement]:
    """What workers do, but that weights are not really averaged or scored: those have no networks here."""
    made = waiting(filled)
    for one in made:
        result: CombinedResult | RobustnessResult
        if one.kind is MeasurementKind.ROBUSTNESS:
            accuracy = {name: [value - 0.02 * strength for strength in range(5)] for name, value in CURVES.items()}
            result = {"num_images": 100, "clean": 0.5, "accuracy": accuracy, "parameters": {}, "parameters_of": "X-C"}
        elif one.options["combine"] == "ensemble":
            result = combine_runs(one.spec, one.options, filled.settings)  # type: ignore[arg-type]
        else:
            bits = base64.b64encode(np.packbits(np.arange(100) < 10).tobytes()).decode()
            result = {"accuracy": 0.1, "num_images": 100, "right": bits, "batch_norm_images": 200}
        with filled.store.writing() as session:
            measurements.finish(session, one.id, result)
    return made


def read(client: TestClient, study: dict[str, Any]) -> dict[str, Any]:
    return dict(client.get(f"/api/v1/studies/{study['id']}").json())


def begun(client: TestClient, filled: Filled, body: Any, rights: tuple[int, ...]) -> dict[str, Any]:
    """A study whose runs have ended."""
    study = post(client, body)
    numbers = [number for row in study["rows"] for number in row["experiment_ids"]]
    for number, right in zip(numbers, rights, strict=True):
        train(filled, number, right=right)
    advance(filled, study["id"])
    return study


def combined(document: dict[str, Any]) -> dict[str, Any]:
    return {row["key"]: row for row in document["rows"] if row["kind"] != "trained"}


def test_seeds_and_the_best_runs_of_rows_are_rows_of_their_own_once_all_have_ended(
    client: TestClient, filled: Filled
) -> None:
    body = {**WIDTHS, "seeds": 2, "combine": ["ensemble", "weights"]}
    study = begun(client, filled, body, (50, 52, 30, 33, 88, 90))
    assert combined(study) == {}
    document = read(client, study)
    assert document["status"] == "running"
    keys = ["ensemble:base", "ensemble:narrow", "ensemble:wide", "ensemble:"]
    assert list(combined(document)) == [*keys, "weights:base", "weights:narrow", "weights:wide"]
    assert {combined(document)[key]["status"] for key in keys} == {"waiting"}
    weights = combined(document)["weights:wide"]  # whose runs have kept none here
    assert weights["status"] == "unavailable"
    assert weights["reason"].startswith("it takes two runs, and there is none; left out, since their weights")
    assert len(measure(filled)) == 4
    advance(filled, study["id"])
    document = read(client, study)
    assert document["status"] == "completed"
    wide = combined(document)["ensemble:wide"]
    assert wide["title"] == "Ensemble of the 2 runs of More channels"
    assert (wide["status"], wide["seeds"], wide["epochs"], wide["spec"]) == ("completed", [0, 1], None, None)
    assert wide["experiment_ids"] == document["rows"][2]["experiment_ids"]
    assert wide["val_accuracy"]["mean"] == pytest.approx(0.89)  # they disagree evenly on two images
    assert wide["difference"]["baseline"] == "wide"
    assert wide["difference"]["method"] == "McNemar"
    assert wide["difference"]["is_noise"]
    everything = combined(document)["ensemble:"]
    assert everything["experiment_ids"] == [row["experiment_ids"][1] for row in document["rows"][:3]]
    assert "reaches 52.0%, worse than the best of its runs alone (experiment 6" in everything["difference"]["sentence"]


def test_weights_that_are_there_are_averaged_and_scored_on_corrupted_images(client: TestClient, filled: Filled) -> None:
    body = {**WIDTHS, "variants": WIDTHS["variants"][:1], "seeds": 2, "combine": ["weights", "last_epochs"]}
    study = post(client, {**body, "robustness": True})
    root = f"/api/v1/studies/{study['id']}"
    assert client.get(f"{root}/robustness.png").status_code == 200
    for row in study["rows"]:
        for number in row["experiment_ids"]:
            train(filled, number)
            if row["key"] == "base":
                keep_weights(filled, number)
    advance(filled, study["id"])
    assert [len(one.options.get("files", [])) for one in measure(filled)] == [2, 3, 0]
    advance(filled, study["id"])
    document = read(client, study)
    assert document["status"] == "completed"
    base = combined(document)["weights:base"]
    assert base["difference"]["points"] == pytest.approx(-40)
    assert "started from different weights" in base["difference"]["sentence"]
    last = combined(document)["last_epochs:base"]
    assert last["title"] == "Average of the weights of epochs 4, 5, 6 of the base spec"
    assert "the best epoch alone" in last["difference"]["sentence"]
    check_robustness(client, document)


def check_robustness(client: TestClient, document: dict[str, Any]) -> None:
    base, narrow = document["robustness"]
    alone = client.get(f"/api/v1/experiments/{base['experiment_id']}/robustness")
    assert alone.json() == base
    other = client.get(f"/api/v1/experiments/{document['rows'][1]['experiment_ids'][0]}/robustness")
    assert (other.status_code, '"robustness": true' in other.json()["fix"]) == (404, True)
    assert client.get("/api/v1/experiments/999/robustness").status_code == 404
    assert (base["row"], base["clean"], base["num_images"]) == ("base", 0.5, 100)
    assert base["accuracy"]["gaussian_noise"] == pytest.approx([0.3, 0.28, 0.26, 0.24, 0.22])
    assert base["mean"] == pytest.approx(0.335)
    assert base["experiment_id"] in document["rows"][0]["experiment_ids"]
    assert (base["status"], narrow["status"]) == ("completed", "unavailable")
    assert "are not stored" in narrow["reason"]
    root = document["links"]["self"]
    assert client.get(f"{root}/robustness.svg").headers["content-type"] == "image/svg+xml"
    report = client.get(f"{root}/report.md").text
    assert "## Robustness" in report
    assert "X-C (Hendrycks and Dietterich 2019)" in report
    assert "## Runs combined" in report
    page = client.get(f"/studies/{document['id']}", headers={"Accept": "text/html"}).text
    assert "robustness.svg" in page


def keep_weights(filled: Filled, number: int) -> None:
    """Records of the files that a worker would have left."""
    from models.store.tables import Artifact

    with filled.store.writing() as session:
        kinds = [(ArtifactKind.WEIGHTS_BEST, 0)] + [(ArtifactKind.WEIGHTS_EPOCH, epoch) for epoch in range(1, 7)]
        for kind, epoch in kinds:
            path = f"{number}/attempt-1/{kind}-{epoch}.safetensors"
            session.add(
                Artifact(
                    experiment_id=number, kind=kind, epoch=epoch, attempt=1, path=path, sha256="0" * 64, num_bytes=1
                )
            )


def test_a_row_with_a_single_run_and_rows_on_other_images_are_not_combined(client: TestClient, filled: Filled) -> None:
    other = {"key": "other", "overrides": {"dataset": {"train_limit": 200, "val_limit": 100, "split_seed": 1}}}
    body = {**WIDTHS, "variants": [*WIDTHS["variants"], other], "combine": ["ensemble"]}
    study = begun(client, filled, body, (50, 30, 90, 60))
    measure(filled)
    advance(filled, study["id"])
    document = read(client, study)
    rows = combined(document)
    assert list(rows) == ["ensemble:"]
    assert len(rows["ensemble:"]["experiment_ids"]) == 3
    left_out = document["rows"][3]["experiment_ids"][0]
    assert rows["ensemble:"]["reason"] == f"left out, since validated on other images: experiment {left_out}"
    assert rows["ensemble:"]["status"] == "completed"


def test_what_fails_says_why_and_is_measured_again_when_the_study_goes_on(client: TestClient, filled: Filled) -> None:
    study = begun(client, filled, {**WIDTHS, "combine": ["ensemble"]}, (50, 30, 90))
    (one,) = waiting(filled)
    with filled.store.writing() as session:
        measurements.fail(session, one.id, "a file is damaged")
    advance(filled, study["id"])
    document = read(client, study)
    assert document["status"] == "completed"
    assert combined(document)["ensemble:"]["reason"] == "a file is damaged"
    wide = document["rows"][2]["experiment_ids"][0]
    assert client.delete(f"/api/v1/experiments/{wide}").status_code == 204
    resumed = client.post(f"/api/v1/studies/{study['id']}/resume").json()
    assert combined(resumed) == {}
    train(filled, resumed["rows"][2]["experiment_ids"][0], right=40)
    advance(filled, study["id"])
    measure(filled)
    advance(filled, study["id"])
    assert combined(read(client, study))["ensemble:"]["difference"]["baseline"] == "base"


def test_an_experiment_names_the_studies_that_it_is_a_run_of(client: TestClient) -> None:
    study = post(client)
    number = study["rows"][0]["experiment_ids"][0]
    assert client.get(f"/api/v1/experiments/{number}").json()["studies"] == [{"id": study["id"], "title": "How wide?"}]
    other = post(client, {**WIDTHS, "title": "Again"})
    named = client.get(f"/api/v1/experiments/{number}").json()["studies"]
    assert [one["title"] for one in named] == ["How wide?", "Again"]
    assert "Again" in client.get(f"/experiments/{number}", headers={"Accept": "text/html"}).text
    client.post(f"/api/v1/studies/{other['id']}/cancel")
    client.delete(f"/api/v1/studies/{other['id']}")
    assert len(client.get(f"/api/v1/experiments/{number}").json()["studies"]) == 1


def test_what_cannot_be_added_is_refused(client: TestClient) -> None:
    for change, field in (
        ({"combine": ["ensembles"]}, "combine"),
        ({"combine": "ensemble"}, "combine"),
        ({"robustness": "yes"}, "robustness"),
    ):
        answer = client.post("/api/v1/studies", json={**WIDTHS, **change})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"].startswith(field)
