"""Studies over HTTP: created, read, shared, cancelled, resumed, cloned and deleted; a lab without a worker."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.data.catalogue import get_dataset
from models.evaluation.outputs import AboutOutputs, Outputs
from models.progress import RunProgress
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Status, runs, study_progress
from models.store.states import ArtifactKind
from models.studies.images import split_sizes
from service.studies.images import images_of
from tests.service.lab_of_one import Filled, epoch

BASE = {"model": "baseline", "epochs": 2, "dataset": {"train_limit": 200, "val_limit": 100}}
WIDTHS = {
    "title": "How wide?",
    "question": "Do more channels help?",
    "base": BASE,
    "variants": [
        {"key": "narrow", "title": "Fewer channels", "overrides": {"model": "narrow"}},
        {"key": "wide", "title": "More channels", "question": "Is wide better?", "overrides": {"model": "wide"}},
    ],
}


def post(client: TestClient, body: Any = WIDTHS, **headers: str) -> dict[str, Any]:
    answer = client.post("/api/v1/studies", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def train(filled: Filled, experiment_id: int, *, right: int = 50, status: Status = Status.COMPLETED) -> None:
    """What a worker does: two epochs, and outputs of which the first `right` images of a hundred are right."""
    claim = filled.start(experiment_id)
    filled.append(claim, [epoch(1, val_accuracy=right / 200), epoch(2, val_accuracy=right / 100)])
    labels = np.arange(100) % 10
    logits = np.zeros((100, 10), np.float32)
    logits[np.arange(100), np.where(np.arange(100) < right, labels, (labels + 1) % 10)] = 5
    about = AboutOutputs("validation", 2, "0" * 64, 100, tuple("abcdefghij"))
    outputs = Outputs(about, logits, labels.astype(np.int64), np.arange(100))
    filled.keep_bytes(claim, "outputs-validation.safetensors", ArtifactKind.OUTPUTS_VALIDATION, outputs.to_bytes())
    filled.settle(claim, status, reason=None if status is Status.COMPLETED else "the disk was full")


def advance(filled: Filled, study_id: int, *, parallel: int = 1) -> list[int]:
    """What a worker does every second, one of so many."""
    with filled.store.writing() as session:
        return study_progress.advance(session, study_id, filled.settings.experiments_dir, parallel=parallel)


def ended(
    client: TestClient, filled: Filled, body: Any = WIDTHS, rights: tuple[int, ...] = (50, 30, 90)
) -> dict[str, Any]:
    study = post(client, body)
    numbers = [number for row in study["rows"] for number in row["experiment_ids"]]
    for number, right in zip(numbers, rights, strict=True):
        train(filled, number, right=right)
    advance(filled, study["id"])
    return dict(client.get(f"/api/v1/studies/{study['id']}").json())


def test_a_study_queues_its_rows_as_ordinary_experiments(client: TestClient) -> None:
    study = post(client)
    assert [row["key"] for row in study["rows"]] == ["base", "narrow", "wide"]
    assert study["baseline"] == "base"
    assert study["status"] == "queued"
    assert study["progress"] == {"runs": 3, "ended": 0, "running": 0, "fraction": 0.0, "seconds_left": None}
    for row in study["rows"]:
        experiment = client.get(f"/api/v1/experiments/{row['experiment_ids'][0]}").json()
        assert experiment["status"] == "queued"
        assert experiment["spec"] == row["spec"]
        assert experiment["name"].startswith("How wide?: ")


def test_scores_differences_and_noise_are_told_when_the_runs_have_ended(client: TestClient, filled: Filled) -> None:
    study = ended(client, filled, rights=(50, 48, 90))
    base, narrow, wide = study["rows"]
    assert study["status"] == "completed"
    assert base["difference"] is None
    assert wide["val_accuracy"]["mean"] == pytest.approx(0.9)
    assert wide["difference"]["judgement"] == "better"
    assert wide["difference"]["method"] == "McNemar"
    assert wide["difference"]["points"] == pytest.approx(40)
    assert wide["difference"]["interval"][0] < 40 < wide["difference"]["interval"][1]
    assert narrow["difference"]["is_noise"]
    assert "chance may explain" in narrow["difference"]["sentence"]


@pytest.mark.parametrize("change", [{"split": "stratified"}, {"split_seed": 1}, {"val_fraction": 0.3}])
def test_rows_that_were_validated_on_different_images_are_not_compared_image_by_image(
    client: TestClient, filled: Filled, change: dict[str, Any]
) -> None:
    (field, value), *_ = change.items()
    body = {"base": BASE, "variants": [{"key": "other", "overrides": {f"dataset.{field}": value}}]}
    _, other = ended(client, filled, body, rights=(50, 90))["rows"]
    assert other["difference"]["method"] == "proportions"


def test_the_sizes_of_a_row_are_those_of_the_split_that_its_dataset_gives() -> None:
    spec = parse_spec({"model": "baseline", "dataset": {"val_limit": 8000}})
    given = replace(get_dataset("cifar10"), num_validation=7000)
    assert images_of(spec, given)["train"] == 43_000
    assert split_sizes(spec, images_of(spec, given))[1] == 7000
    random = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"split": "random"})})
    assert split_sizes(random, images_of(random, given))[1] == 8000


def test_several_seeds_are_runs_of_one_row(client: TestClient, filled: Filled) -> None:
    study = ended(client, filled, {**WIDTHS, "seeds": 2}, rights=(50, 52, 30, 33, 88, 90))
    wide = study["rows"][2]
    assert wide["seeds"] == [0, 1]
    assert wide["val_accuracy"]["count"] == 2
    assert wide["val_accuracy"]["mean"] == pytest.approx(0.89)
    assert wide["difference"]["method"] == "seeds x images"


def test_two_studies_that_need_the_same_spec_share_the_run(client: TestClient) -> None:
    first, second = post(client), post(client, {**WIDTHS, "title": "Again"})
    assert [row["experiment_ids"] for row in first["rows"]] == [row["experiment_ids"] for row in second["rows"]]
    assert client.get("/api/v1/experiments").json()["total"] == 3


def test_a_post_with_the_same_key_makes_one_study(client: TestClient) -> None:
    first = client.post("/api/v1/studies", json=WIDTHS, headers={"Idempotency-Key": "a"})
    again = client.post("/api/v1/studies", json=WIDTHS, headers={"Idempotency-Key": "a"})
    other = client.post("/api/v1/studies", json={**WIDTHS, "seeds": 2}, headers={"Idempotency-Key": "a"})
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.headers["Location"] == f"/api/v1/studies/{first.json()['id']}"
    assert other.status_code == 422
    assert client.get("/api/v1/studies").json()["total"] == 1


def test_a_study_comes_as_yaml_too(client: TestClient) -> None:
    body = "title: rates\nbase: baseline\ngrid: {optimizer.lr: [1e-3, 1e-2]}\n"
    answer = client.post("/api/v1/studies", content=body, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 202, answer.text
    assert [row["key"] for row in answer.json()["rows"]] == ["optimizer.lr=0.001", "optimizer.lr=0.01"]
    assert answer.json()["baseline"] == "optimizer.lr=0.01"  # the base spec's own rate


def test_a_variant_that_cannot_run_is_refused_before_anything_is_queued_and_all_are_named(client: TestClient) -> None:
    body = {
        **WIDTHS,
        "variants": [
            {"key": "a", "overrides": {"model": "widee"}},
            {"key": "b", "overrides": {"batch_size": 16}},
            {"key": "c", "overrides": {"optimizer": {"lr": -1}}},
            {"key": "d", "overrides": {"model": {"name": "squeezenet1_1", "input_size": 8}}},
        ],
    }
    answer = client.post("/api/v1/studies", json=body)
    assert answer.status_code == 422
    fields = [entry["field"] for entry in answer.json()["errors"]]
    assert "variants[0].overrides.model.name" in fields
    assert "variants[2].overrides.optimizer.lr" in fields
    assert client.get("/api/v1/experiments").json()["total"] == 0
    assert client.get("/api/v1/studies").json()["total"] == 0


def test_a_network_that_cannot_be_built_is_refused_with_its_variant(client: TestClient) -> None:
    variants = [{"key": "d", "overrides": {"model": {"name": "squeezenet1_1", "input_size": 8}}}]
    answer = client.post("/api/v1/studies", json={**WIDTHS, "variants": variants})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("variants[0].overrides.model")


def test_a_budget_too_small_for_anything_is_refused_with_what_it_would_take(client: TestClient) -> None:
    answer = client.post("/api/v1/studies", json={**WIDTHS, "budget": "5s"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "budget"
    assert "9 s" in answer.json()["errors"][0]["message"] or "9.0 s" in answer.json()["errors"][0]["message"]


def test_a_row_that_fails_does_not_stop_the_others_and_stands_in_the_report(client: TestClient, filled: Filled) -> None:
    study = post(client)
    numbers = [row["experiment_ids"][0] for row in study["rows"]]
    train(filled, numbers[0])
    train(filled, numbers[1], status=Status.FAILED)
    train(filled, numbers[2], right=80)
    advance(filled, study["id"])
    found = client.get(f"/api/v1/studies/{study['id']}").json()
    assert found["status"] == "completed"
    assert [row["status"] for row in found["rows"]] == ["completed", "failed", "completed"]
    assert found["rows"][1]["reason"] == "the disk was full"
    assert found["rows"][1]["difference"] is None
    report = client.get(f"/api/v1/studies/{study['id']}/report.md").text
    assert "failed: the disk was full" in report


def test_a_dry_run_lists_the_rows_and_stores_nothing(client: TestClient) -> None:
    plan = client.post("/api/v1/studies?dry_run=true", json={**WIDTHS, "seeds": 3}).json()
    assert [(row["key"], row["runs"], row["epochs"]) for row in plan["rows"]] == [
        ("base", 3, 2),
        ("narrow", 3, 2),
        ("wide", 3, 2),
    ]
    assert plan["rows"][0]["train_images"] == 200
    assert client.get("/api/v1/studies").json()["total"] == 0


def test_studies_are_listed_by_the_status_that_they_show(client: TestClient, filled: Filled) -> None:
    waiting = post(client)
    going = post(client, {**WIDTHS, "seeds": [7]})
    filled.start(going["rows"][1]["experiment_ids"][0])
    gone = post(client, {**WIDTHS, "seeds": [8]})
    client.post(f"/api/v1/studies/{gone['id']}/cancel")
    for study, status in ((waiting, "queued"), (going, "running"), (gone, "cancelled")):
        page = client.get("/api/v1/studies", params={"status": status}).json()
        assert [(item["id"], item["status"]) for item in page["items"]] == [(study["id"], status)]
        assert page["total"] == 1
    assert client.get("/api/v1/studies?status=completed").json()["items"] == []
    assert client.get("/api/v1/studies?status=done").status_code == 422


def test_a_cancelled_study_ends_its_own_runs_and_goes_on_when_it_is_resumed(client: TestClient, filled: Filled) -> None:
    study = post(client)
    first = study["rows"][0]["experiment_ids"][0]
    train(filled, first)
    cancelled = client.post(f"/api/v1/studies/{study['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert [row["status"] for row in cancelled["rows"]] == ["completed", "cancelled", "cancelled"]
    assert client.post(f"/api/v1/studies/{study['id']}/cancel").status_code == 200
    resumed = client.post(f"/api/v1/studies/{study['id']}/resume").json()
    assert [row["status"] for row in resumed["rows"]] == ["completed", "queued", "queued"]
    assert client.post(f"/api/v1/studies/{study['id']}/resume").status_code == 409


def test_a_study_is_not_resumed_before_its_runs_have_ended(client: TestClient, filled: Filled) -> None:
    study = post(client)
    claim = filled.start(study["rows"][0]["experiment_ids"][0])
    client.post(f"/api/v1/studies/{study['id']}/cancel")
    early = client.post(f"/api/v1/studies/{study['id']}/resume")
    assert (early.status_code, early.headers["retry-after"]) == (409, "2")
    assert "1 run of study" in early.json()["detail"]
    filled.settle(claim, Status.CANCELLED)
    resumed = client.post(f"/api/v1/studies/{study['id']}/resume").json()
    assert {row["status"] for row in resumed["rows"]} == {"queued"}


def test_cancelling_leaves_runs_alone_that_others_wait_for(client: TestClient) -> None:
    by_hand = client.post("/api/v1/experiments", json={**BASE, "model": "narrow"}).json()["id"]
    first, second = post(client), post(client, {**WIDTHS, "title": "Again"})
    client.post(f"/api/v1/studies/{first['id']}/cancel")
    assert client.get(f"/api/v1/experiments/{by_hand}").json()["status"] == "queued"
    assert {row["status"] for row in client.get(f"/api/v1/studies/{second['id']}").json()["rows"]} == {"queued"}


@pytest.mark.parametrize("also_experiments", [False, True])
def test_deleting_a_study_keeps_its_experiments_unless_asked(
    client: TestClient, filled: Filled, also_experiments: bool
) -> None:
    study = ended(client, filled)
    answer = client.delete(f"/api/v1/studies/{study['id']}?experiments={str(also_experiments).lower()}")
    assert answer.status_code == 204
    assert client.get(f"/api/v1/studies/{study['id']}").status_code == 404
    assert client.get("/api/v1/experiments").json()["total"] == (0 if also_experiments else 3)


def test_a_study_that_runs_cannot_be_deleted(client: TestClient) -> None:
    assert client.delete(f"/api/v1/studies/{post(client)['id']}").status_code == 409


def test_a_run_that_was_deleted_by_hand_is_made_again_by_resuming(client: TestClient, filled: Filled) -> None:
    study = ended(client, filled)
    client.delete(f"/api/v1/experiments/{study['rows'][1]['experiment_ids'][0]}")
    found = client.get(f"/api/v1/studies/{study['id']}").json()
    assert found["rows"][1]["status"] == "deleted"
    resumed = client.post(f"/api/v1/studies/{study['id']}/resume").json()
    assert resumed["rows"][1]["status"] == "queued"


def test_a_clone_with_more_seeds_trains_only_what_is_new(client: TestClient, filled: Filled) -> None:
    study = ended(client, filled)
    clone = client.post(f"/api/v1/studies/{study['id']}/clone", json={"seeds": 2, "title": "Twice"}).json()
    assert clone["title"] == "Twice"
    assert [row["experiment_ids"][0] for row in clone["rows"]] == [row["experiment_ids"][0] for row in study["rows"]]
    assert client.get("/api/v1/experiments").json()["total"] == 6


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sedes": 3}, "sedes"),
        ({"baseline": "widest"}, "baseline"),
        ({"seeds": 0}, "seeds"),
        ({"variants": None}, "variants"),
        ({"preset": "lab-report"}, "preset"),
    ],
)
def test_changes_of_a_clone_that_make_no_study_are_named(
    client: TestClient, changes: dict[str, Any], field: str
) -> None:
    study = post(client)
    answer = client.post(f"/api/v1/studies/{study['id']}/clone", json=changes)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert client.get("/api/v1/studies").json()["total"] == 1


def test_seeds_are_added_until_differences_are_known_well_enough(client: TestClient, filled: Filled) -> None:
    body = {**WIDTHS, "repeat_until": {"points": 20, "max_seeds": 3}, "variants": WIDTHS["variants"][1:]}
    study = post(client, body)
    rights = iter([50, 40, 90, 60, 52, 75])  # two seeds each that lie far apart, then a third
    while begun := [
        number
        for row in client.get(f"/api/v1/studies/{study['id']}").json()["rows"]
        for number in row["experiment_ids"]
        if client.get(f"/api/v1/experiments/{number}").json()["status"] == "queued"
    ]:
        for number in begun:
            train(filled, number, right=next(rights))
        advance(filled, study["id"])
    found = client.get(f"/api/v1/studies/{study['id']}").json()
    assert found["status"] == "completed"
    assert [row["seeds"] for row in found["rows"]] == [[0, 1, 2], [0, 1, 2]]


def test_seeds_are_added_by_the_same_intervals_that_the_report_shows(client: TestClient, filled: Filled) -> None:
    body = {**WIDTHS, "repeat_until": {"points": 20, "max_seeds": 4}}
    study = post(client, body)
    address = f"/api/v1/studies/{study['id']}"
    seeds = {"base": [50, 50, 50, 50], "narrow": [40, 40, 40, 40], "wide": [90, 60, 88, 62]}  # one row varies widely
    while begun := [
        (row["key"], repeat, number)
        for row in client.get(address).json()["rows"]
        for repeat, number in enumerate(row["experiment_ids"])
        if client.get(f"/api/v1/experiments/{number}").json()["status"] == "queued"
    ]:
        for key, repeat, number in begun:
            train(filled, number, right=seeds[key][repeat])
        advance(filled, study["id"])
    found = client.get(address).json()
    assert found["status"] == "completed"
    for row in found["rows"][1:]:
        low, high = row["difference"]["interval"]
        assert high - low <= 2 * 20 or len(row["seeds"]) == 4, row["key"]
    assert len(found["rows"][1]["seeds"]) > 2


@pytest.mark.parametrize(("form", "start"), [("html", b"<!doctype html>"), ("md", b"# How wide?"), ("pdf", b"%PDF")])
def test_a_report_is_self_contained_and_the_same_twice(
    client: TestClient, filled: Filled, form: str, start: bytes
) -> None:
    if form == "pdf":
        pytest.importorskip("weasyprint")
    study = ended(client, filled)
    address = f"/api/v1/studies/{study['id']}/report.{form}"
    first = client.get(address).content
    client.app.state.renderings._cached.clear()  # type: ignore[attr-defined]
    assert first.startswith(start)
    assert client.get(address).content == first
    if form != "pdf":
        text = first.decode()
        assert "Do more channels help?" in text
        assert "data:image/svg+xml;base64," in text
        assert "<script" not in text
        assert "http://" not in text
        assert "https://" not in text


def test_text_that_came_with_a_study_is_text_in_its_report(client: TestClient, filled: Filled) -> None:
    study = ended(client, filled, {**WIDTHS, "title": "<script>alert(1)</script> | *bold*"})
    page = client.get(f"/api/v1/studies/{study['id']}/report.html").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert r"\<script\>" in client.get(f"/api/v1/studies/{study['id']}/report.md").text


@pytest.mark.parametrize(("picture", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_rows_are_drawn_side_by_side(client: TestClient, filled: Filled, picture: str, start: bytes) -> None:
    study = ended(client, filled)
    assert client.get(f"/api/v1/studies/{study['id']}/curves.{picture}").content.startswith(start)
    assert client.get(f"/api/v1/studies/{study['id']}/curves.{picture}?rows=wide,narrow").status_code == 200
    assert client.get(f"/api/v1/studies/{study['id']}/curves.{picture}?rows=wider").status_code == 422


def test_pictures_and_reports_exist_before_anything_was_trained(client: TestClient) -> None:
    study = post(client)
    for part in ("curves.png", "curves.svg", "report.html", "report.md"):
        assert client.get(f"/api/v1/studies/{study['id']}/{part}").status_code == 200


@pytest.mark.parametrize("part", ["", "/curves.png", "/report.html"])
def test_a_study_that_is_not_there_is_not_found(client: TestClient, part: str) -> None:
    assert client.get(f"/api/v1/studies/99{part}").status_code == 404


def test_a_budget_waits_for_dry_runs_then_fits_its_rows(client: TestClient, filled: Filled, settings: Settings) -> None:
    body = {**WIDTHS, "base": {"model": "baseline", "epochs": 20}, "budget": "10m"}
    study = post(client, body)
    assert study["status"] == "measuring"
    assert [row["status"] for row in study["rows"]] == ["waiting"] * 3
    _measure(filled, images_per_second=1000.0)
    begun = advance(filled, study["id"])
    assert len(begun) == 1  # one worker: one row at a time, so that the next can be planned by what this one takes
    found = client.get(f"/api/v1/studies/{study['id']}").json()
    running = next(row for row in found["rows"] if row["experiment_ids"])
    assert running["epochs"] < 20
    assert f"{running['epochs']} of 20 epochs" in running["shortened"]
    assert "In full it takes about" in running["shortened"]


def test_runs_that_still_go_on_use_up_the_time_of_those_to_come(client: TestClient, filled: Filled) -> None:
    body = {**WIDTHS, "base": {"model": "baseline", "epochs": 100}, "budget": "10m"}
    study = post(client, body)
    _measure(filled, images_per_second=1000.0)
    first, second = advance(filled, study["id"], parallel=2)  # a run for each of two workers
    claim = filled.start(first)
    epochs = client.get(f"/api/v1/experiments/{first}").json()["spec"]["epochs"]
    filled.append(claim, [replace(epoch(1), seconds=900.0 / (epochs - 1))])
    train(filled, second)
    (third,) = advance(filled, study["id"], parallel=2)
    longer, shorter = (work_of(client, number) for number in (second, third))
    assert shorter < longer / 2


def work_of(client: TestClient, experiment_id: int) -> int:
    """Images that an experiment trains on, all epochs together."""
    spec = client.get(f"/api/v1/experiments/{experiment_id}").json()["spec"]
    return int(spec["epochs"] * spec["dataset"]["train_limit"])


def test_one_slow_epoch_of_a_run_does_not_shorten_those_to_come(client: TestClient, filled: Filled) -> None:
    study = post(client, {**WIDTHS, "base": {"model": "baseline", "epochs": 100}, "budget": "10m"})
    _measure(filled, images_per_second=1000.0)
    first, second = advance(filled, study["id"], parallel=2)
    claim = filled.start(first)
    filled.append(claim, [replace(epoch(number), seconds=seconds) for number, seconds in enumerate((1, 1, 60), 1)])
    with filled.store.writing() as session:
        left = RunProgress(
            epoch=3, epochs=9, step=1, steps=9, seconds_left=900.0, images_per_second=9.0, phase="training"
        )
        runs.renew(session, claim, left)
    train(filled, second)
    (third,) = advance(filled, study["id"], parallel=2)
    assert work_of(client, third) == work_of(client, second)


def test_a_worker_that_would_wait_for_a_long_run_runs_more_seeds_meanwhile(client: TestClient, filled: Filled) -> None:
    study = post(client, {**WIDTHS, "budget": "10m"})
    _measure(filled, images_per_second=1000.0)
    first, second = advance(filled, study["id"], parallel=2)
    filled.start(first)
    train(filled, second)
    (third,) = advance(filled, study["id"], parallel=2)
    train(filled, third)
    more = advance(filled, study["id"], parallel=2)
    assert len(more) == 1
    rows = client.get(f"/api/v1/studies/{study['id']}").json()["rows"]
    assert sorted(len(row["experiment_ids"]) for row in rows) == [1, 1, 2]


def test_rows_that_ask_for_the_same_runs_take_their_time_once(client: TestClient, filled: Filled) -> None:
    base = {"model": "baseline", "epochs": 100}
    same = [{"key": f"same{n}", "overrides": {"tags": [str(n)]}} for n in range(4)]
    work = []
    for variants in ([], same):
        other = {"key": "wide", "overrides": {"model": "wide", "optimizer.lr": 0.02 + len(variants) / 1000}}
        study = post(client, {"base": base, "variants": [other, *variants], "budget": "10m", "baseline": "wide"})
        _measure(filled, images_per_second=1000.0)
        (number,) = advance(filled, study["id"])
        work.append(work_of(client, number))
        client.post(f"/api/v1/studies/{study['id']}/cancel")
    assert work[1] > work[0] / 3


def test_time_that_a_budget_leaves_over_is_spent_on_more_seeds(client: TestClient, filled: Filled) -> None:
    study = post(client, {**WIDTHS, "budget": "10m"})
    _measure(filled, images_per_second=1000.0)
    trained: list[int] = []
    while len(trained) < 7:
        begun = advance(filled, study["id"])
        for number in begun:
            train(filled, number, right=40 + number)
        trained += begun
    found = client.get(f"/api/v1/studies/{study['id']}").json()
    assert [row["seeds"][:2] for row in found["rows"]] == [[0, 1], [0, 1], [0, 1]]
    assert all(row["shortened"] is None for row in found["rows"])  # nothing had to be shortened


def test_a_budget_too_small_for_one_epoch_a_row_says_what_it_would_take(client: TestClient, filled: Filled) -> None:
    study = post(client, {**WIDTHS, "base": {"model": "baseline", "epochs": 20}, "budget": "1m"})
    _measure(filled, images_per_second=20.0)
    advance(filled, study["id"])
    found = client.get(f"/api/v1/studies/{study['id']}").json()
    assert found["status"] == "failed"
    assert "too little for one epoch" in found["reason"]
    assert "give at least" in found["reason"]
    assert client.get("/api/v1/experiments").json()["total"] == 0


def _measure(filled: Filled, images_per_second: float) -> None:
    """What a worker answers to the dry runs that wait."""
    from models.store import measurements

    with filled.store.writing() as session:
        while (measurement := measurements.claim_next(session, "worker-1")) is not None:
            an_epoch = 40_000 / images_per_second + 10_000 / images_per_second / 3
            measurements.finish(
                session, measurement.id, {"images_per_second": images_per_second, "seconds_per_epoch": an_epoch}
            )


def test_the_pages_show_studies_with_their_rows_and_their_report(client: TestClient, filled: Filled) -> None:
    assert "No study has been run here yet" in client.get("/studies").text
    study = ended(client, filled)
    assert "How wide?" in client.get("/studies").text
    page = client.get(f"/studies/{study['id']}").text
    for words in (
        "More channels",
        "Is wide better?",
        "90.00",
        f"/api/v1/studies/{study['id']}/report.html",
        "baseline",
    ):
        assert words in page
    assert client.get("/studies/99").status_code == 404
