"""A search over HTTP: its trials drawn, ended early, resumed and reported; a lab without a worker."""

import itertools
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.notices import NoticeCode
from models.store import Status, experiments, runs, studies, study_progress
from models.store.tables import Experiment
from tests.service.lab_of_one import NAN, Filled, epoch

LR = {"log": [1e-4, 1e-1]}
numbers = itertools.count(200)


@pytest.fixture
def filled(shared_filled: Filled) -> Filled:
    """The store of a lab that other tests use too."""
    return shared_filled


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    """Its client."""
    return shared_client


def base() -> dict[str, Any]:
    """A base of its own in each call, so that tests share no runs."""
    return {"model": "narrow", "epochs": 4, "dataset": {"train_limit": next(numbers), "val_limit": 100}}


def body(**search: Any) -> dict[str, Any]:
    asked = {"trials": 4, "space": {"optimizer.lr": LR, "batch_size": [16, 32]}, **search}
    return {"title": "Rates", "question": "Which rate?", "base": base(), "search": asked}


def total(client: TestClient, of: str = "studies") -> int:
    return int(client.get(f"/api/v1/{of}").json()["total"])


def post(client: TestClient, sent: Any, **headers: str) -> dict[str, Any]:
    answer = client.post("/api/v1/studies", json=sent, headers=headers)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def read(client: TestClient, study: dict[str, Any]) -> dict[str, Any]:
    return dict(client.get(f"/api/v1/studies/{study['id']}").json())


def advance(filled: Filled, study: dict[str, Any], parallel: int = 1) -> list[int]:
    """What a worker does every second."""
    with filled.store.writing() as session:
        return study_progress.advance(session, study["id"], filled.settings.experiments_dir, parallel=parallel)


def train(filled: Filled, number: int, *accuracies: float, status: Status = Status.COMPLETED) -> None:
    """What a worker does with a trial: as many epochs as there are accuracies, then its end."""
    claim = filled.start(number)
    filled.append(claim, [epoch(n, val_accuracy=value) for n, value in enumerate(accuracies, 1)])
    filled.settle(claim, status, reason=None if status is Status.COMPLETED else "the disk was full")


def rate_of(filled: Filled, number: int) -> float:
    with filled.store.reading() as session:
        return float(experiments.get(session, number).spec["optimizer"]["lr"])


def ended(client: TestClient, filled: Filled, sent: Any = None, parallel: int = 1) -> dict[str, Any]:
    """A search that was run to its end; a rate near 0.01 is best, one above 0.05 diverges."""
    study = post(client, sent or body())
    while begun := advance(filled, study, parallel):
        for number in begun:
            rate = rate_of(filled, number)
            best = round(0.6 - abs(np.log10(rate) + 2) / 10, 4)
            if rate > 0.05:
                train(filled, number, 0.2, NAN, status=Status.DIVERGED)
            else:
                train(filled, number, best / 2, best / 1.5, best, best - 0.01)
    return read(client, study)


@pytest.fixture(scope="module")
def finished(shared_client: TestClient, shared_filled: Filled) -> dict[str, Any]:
    """A search that was run to its end, over every kind of range; tests only read it."""
    space = {
        "optimizer.lr": LR,
        "optimizer.momentum": {"uniform": [0, 0.9], "step": 0.1},
        "batch_size": {"int": [8, 32], "log": True},
        "model": ["narrow", "baseline"],
    }
    return ended(shared_client, shared_filled, body(trials=8, space=space))


def test_a_worker_draws_as_many_trials_as_there_are_workers(client: TestClient, filled: Filled) -> None:
    study = post(client, body())
    assert (study["status"], study["rows"], study["baseline"]) == ("queued", [], None)
    assert study["progress"]["runs"] == 4
    assert study["search"] == {
        "sampler": "tpe", "pruner": "none", "seed": 0, "trials": 4, "drawn": 0, "ended": 0, "pruned": 0, "failed": 0,
        "diverged": 0, "stopped": None, "best": None, "best_spec": None, "importance": None,
        "space": {"optimizer.lr": "0.0001 to 0.1 on a log scale", "batch_size": "16, 32"},
    }  # fmt: skip
    assert len(advance(filled, study, parallel=2)) == 2
    assert advance(filled, study, parallel=2) == []
    found = read(client, study)
    assert [row["key"] for row in found["rows"]] == ["t1", "t2"]
    for row in found["rows"]:
        experiment = client.get(f"/api/v1/experiments/{row['experiment_ids'][0]}").json()
        assert experiment["status"] == "queued"
        assert experiment["spec"]["optimizer"]["lr"] == row["params"]["optimizer.lr"]
        assert experiment["spec"]["batch_size"] == row["params"]["batch_size"]
        assert experiment["name"] == f"Rates: {row['title']}"
        layers = client.get(f"/api/v1/experiments/{row['experiment_ids'][0]}/layers").json()["layers"]
        assert layers


def test_a_search_ends_with_its_best_trial_and_a_spec_to_post(client: TestClient, finished: dict[str, Any]) -> None:
    study, search = finished, finished["search"]
    assert study["status"] == "completed"
    assert (search["drawn"], search["ended"], search["failed"]) == (8, 8, 0)
    scores = {row["key"]: row["val_accuracy"]["mean"] for row in study["rows"] if row["status"] == "completed"}
    assert search["best"]["key"] == max(scores, key=lambda key: scores[key])
    assert search["best"]["val_accuracy"] == max(scores.values())
    assert search["best"]["epoch"] == 3
    again = client.post("/api/v1/experiments", json=search["best_spec"])
    assert again.status_code == 202
    assert again.json()["spec"]["optimizer"]["lr"] == search["best"]["params"]["optimizer.lr"]
    assert {each["field"] for each in search["importance"]} == set(search["best"]["params"])
    assert sum(each["importance"] for each in search["importance"]) == pytest.approx(1)
    row = next(row for row in study["rows"] if row["key"] == search["best"]["key"])
    assert (row["epochs"], row["epochs_run"], row["pruned"], row["difference"]) == (4, 4, False, None)


def test_a_trial_that_others_are_ahead_of_is_asked_to_end_early(client: TestClient, filled: Filled) -> None:
    study = post(client, body(pruner="median"))
    [first] = advance(filled, study)
    train(filled, first, 0.4, 0.5, 0.6, 0.6)
    [second] = advance(filled, study)
    claim = filled.start(second)
    filled.append(claim, [epoch(1, val_accuracy=0.1)])
    assert advance(filled, study) == []
    with filled.store.writing() as session:
        assert runs.renew(session, claim) == (False, True)
        runs.settle(session, claim, Status.COMPLETED, reason="ended early by request")
    row = read(client, study)["rows"][1]
    assert (row["status"], row["pruned"], row["epochs_run"], row["epochs"]) == ("pruned", True, 1, 4)
    assert row["reason"] == "pruned: 10.0% after epoch 1 is below the median of 1 trial that ran in full, there"
    events = client.get(f"/api/v1/experiments/{second}/events").text
    assert '"code":"pruned"' in events.replace(": ", ":")
    experiment = client.get(f"/api/v1/experiments/{second}").json()
    assert (experiment["status"], experiment["reason"]) == ("completed", row["reason"])
    assert len(advance(filled, study)) == 1
    assert read(client, study)["search"]["pruned"] == 1


def test_a_trial_that_was_ended_early_stands_for_no_other_study(client: TestClient, filled: Filled) -> None:
    spec = base()
    number = filled.add(**spec)
    claim = filled.start(number)
    filled.append(claim, [epoch(1)])
    with filled.store.writing() as session:
        assert experiments.request_stop(session, number, NoticeCode.PRUNED, "pruned: slow")
        runs.settle(session, claim, Status.COMPLETED, reason="ended early by request")
    study = post(client, {"title": "t", "base": spec, "variants": [{"key": "wide", "overrides": {"model": "wide"}}]})
    assert number not in [each for row in study["rows"] for each in row["experiment_ids"]]


def test_a_trial_that_another_study_waits_for_is_not_ended_early(client: TestClient, filled: Filled) -> None:
    study = post(client, body(pruner="median"))
    [first] = advance(filled, study)
    train(filled, first, 0.4, 0.5, 0.6, 0.6)
    [second] = advance(filled, study)
    spec = client.get(f"/api/v1/experiments/{second}").json()["spec"]
    post(client, {"title": "other", "base": spec, "grid": {"batch_size": [spec["batch_size"]]}})
    claim = filled.start(second)
    filled.append(claim, [epoch(1, val_accuracy=0.1)])
    advance(filled, study)
    with filled.store.writing() as session:
        assert runs.renew(session, claim) == (False, False)


def test_a_cancelled_search_goes_on_where_it_was(client: TestClient, filled: Filled) -> None:
    study = post(client, body())
    [first] = advance(filled, study)
    train(filled, first, 0.4, 0.5, 0.6, 0.6)
    [second] = advance(filled, study)
    cancelled = client.post(f"/api/v1/studies/{study['id']}/cancel").json()
    assert [row["status"] for row in cancelled["rows"]] == ["completed", "cancelled"]
    assert advance(filled, study) == []
    resumed = client.post(f"/api/v1/studies/{study['id']}/resume").json()
    assert [row["status"] for row in resumed["rows"]] == ["completed", "queued"]
    train(filled, second, 0.3, 0.3, 0.3, 0.3)
    assert len(advance(filled, study)) == 1
    assert len(read(client, study)["rows"]) == 3


def test_trials_that_fail_do_not_stop_the_others(client: TestClient, filled: Filled) -> None:
    study = post(client, body())
    [first] = advance(filled, study)
    train(filled, first, status=Status.FAILED)
    [second] = advance(filled, study)
    train(filled, second, 0.1, NAN, status=Status.DIVERGED)
    found = read(client, study)
    assert [row["status"] for row in found["rows"]] == ["failed", "diverged"]
    assert (found["search"]["failed"], found["search"]["diverged"], found["search"]["best"]) == (1, 1, None)
    assert len(advance(filled, study)) == 1


def test_a_deleted_trial_is_made_again_by_resuming(client: TestClient, filled: Filled) -> None:
    study = ended(client, filled)
    client.delete(f"/api/v1/experiments/{study['rows'][1]['experiment_ids'][0]}")
    assert read(client, study)["rows"][1]["status"] == "deleted"
    client.post(f"/api/v1/studies/{study['id']}/resume")
    [again] = advance(filled, study)
    assert rate_of(filled, again) == study["rows"][1]["params"]["optimizer.lr"]


def test_no_trial_is_drawn_that_would_end_after_the_budget(client: TestClient, filled: Filled) -> None:
    study = post(client, {**body(trials=100), "budget": "10m"})
    assert study["status"] == "queued"
    [first] = advance(filled, study)
    train(filled, first, 0.4, 0.5, 0.6, 0.6)
    with filled.store.writing() as session:
        studies.get(session, study["id"]).spent_seconds = 601.0
    assert advance(filled, study) == []
    found = read(client, study)
    assert (found["status"], found["search"]["stopped"], len(found["rows"])) == ("completed", "budget", 1)
    assert found["progress"]["runs"] == 1


def test_runs_that_go_on_after_the_budget_are_cancelled(client: TestClient, filled: Filled) -> None:
    study = post(client, {**body(), "budget": "1m"})
    [first] = advance(filled, study)
    claim = filled.start(first)
    with filled.store.writing() as session:
        studies.get(session, study["id"]).spent_seconds = 70.0
    advance(filled, study)
    with filled.store.writing() as session:
        assert runs.renew(session, claim).cancel


def test_a_space_with_no_other_trial_ends_the_search(client: TestClient, filled: Filled) -> None:
    study = ended(client, filled, body(space={"batch_size": [16, 32]}, trials=9))
    assert (study["status"], study["search"]["trials"], len(study["rows"])) == ("completed", 2, 2)


def test_a_search_that_is_cloned_with_more_trials_draws_the_same_ones_first_and_shares_their_runs(
    client: TestClient, filled: Filled, finished: dict[str, Any]
) -> None:
    sent = {**finished["spec"]["search"], "trials": 9}
    clone = client.post(f"/api/v1/studies/{finished['id']}/clone", json={"search": sent}).json()
    before = total(client, "experiments")
    while not (begun := advance(filled, clone)):
        pass
    rows = read(client, clone)["rows"]
    assert [row["experiment_ids"] for row in rows[:8]] == [row["experiment_ids"] for row in finished["rows"]]
    assert begun == rows[8]["experiment_ids"]
    assert total(client, "experiments") == before + 1


@pytest.mark.parametrize(
    ("search", "field"),
    [
        ({"space": {"optimizer.lrr": LR}}, "search.space.optimizer.lrr"),
        ({"space": {"optimizer.lr": {"log": [0, 1]}}}, "search.space.optimizer.lr"),
        ({"space": {"model": ["narrow", {"name": "squeezenet1_1", "input_size": 8}]}}, "search.space.model"),
        ({"space": {"optimizer.lr": LR}, "trails": 3}, "search.trails"),
    ],
)
def test_a_search_that_cannot_run_is_refused_before_anything_is_queued(
    client: TestClient, search: dict[str, Any], field: str
) -> None:
    before = total(client)
    answer = client.post("/api/v1/studies", json={"base": base(), "search": search})
    assert answer.status_code == 422
    assert field in [entry["field"] for entry in answer.json()["errors"]]
    assert total(client) == before


def test_a_dry_run_says_the_number_of_trials_and_the_space(client: TestClient) -> None:
    before = total(client)
    sent = body(trials=30)
    plan = client.post("/api/v1/studies?dry_run=true", json=sent).json()
    assert plan["runs"] == 30
    assert [(row["key"], row["runs"], row["epochs"], row["train_images"]) for row in plan["rows"]] == [
        ("trial", 30, 4, sent["base"]["dataset"]["train_limit"])
    ]
    assert plan["search"]["trials"] == 30
    assert plan["search"]["space"]["optimizer.lr"] == "0.0001 to 0.1 on a log scale"
    assert total(client) == before


def test_a_search_of_several_networks_knows_the_layers_of_each(client: TestClient, filled: Filled) -> None:
    sent = body(space={"model": ["narrow", "wide"]}, sampler="grid")
    study = ended(client, filled, sent, parallel=2)
    with filled.store.reading() as session:
        rows = {row["params"]["model"]: row["experiment_ids"][0] for row in study["rows"]}
        layers = {model: session.get_one(Experiment, number).layers for model, number in rows.items()}
    assert layers["narrow"]
    assert layers["wide"]
    assert layers["narrow"][0]["parameters"] < layers["wide"][0]["parameters"]


@pytest.mark.parametrize(("picture", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_search_is_drawn_before_and_after_it_ran(
    client: TestClient, finished: dict[str, Any], picture: str, start: bytes
) -> None:
    waiting = post(client, body())
    for study in (waiting, finished):
        assert study["links"]["search"] == f"/api/v1/studies/{study['id']}/search.png"
        address = f"/api/v1/studies/{study['id']}/search.{picture}"
        drawn = client.get(address)
        assert drawn.content.startswith(start)
        assert client.get(address, headers={"If-None-Match": drawn.headers["ETag"]}).status_code == 304


def test_another_study_has_no_picture_of_a_search(client: TestClient) -> None:
    study = post(client, {"base": base(), "grid": {"batch_size": [16, 32]}})
    answer = client.get(f"/api/v1/studies/{study['id']}/search.png")
    assert answer.status_code == 404
    assert "is not a search" in answer.json()["detail"]
    assert study["search"] is None
    assert "search" not in study["links"]


@pytest.mark.parametrize("form", ["html", "md"])
def test_the_report_of_a_search_names_the_best_trial_and_the_fields_that_matter(
    client: TestClient, finished: dict[str, Any], form: str
) -> None:
    study = finished
    first = client.get(f"/api/v1/studies/{study['id']}/report.{form}").text
    client.app.state.renderings._cached.clear()  # type: ignore[attr-defined]
    assert client.get(f"/api/v1/studies/{study['id']}/report.{form}").text == first
    for words in (
        "Which rate?",
        "Which fields matter",
        "matters most",
        "8 of 8 trials have ended",
        "0.0001 to 0.1",
        "Images of a trial",
    ):
        assert words in first
    assert f"The best trial, {study['search']['best']['key']}, reaches" in first
    assert "data:image/svg+xml;base64," in first


def test_a_report_of_a_search_exists_before_anything_was_trained(client: TestClient) -> None:
    study = post(client, body())
    for form in ("html", "md"):
        assert "No trial was drawn yet" in client.get(f"/api/v1/studies/{study['id']}/report.{form}").text


def test_the_page_of_a_search_shows_its_best_trial_its_picture_and_its_trials(
    client: TestClient, finished: dict[str, Any]
) -> None:
    waiting = post(client, body())
    assert "No trial was run in full yet" in client.get(f"/studies/{waiting['id']}").text
    study = finished
    page = client.get(f"/studies/{study['id']}").text
    best = study["search"]["best"]
    for words in ("optimizer.lr", f"trial {best['number']}", "search.svg", "8 of 8 trials", "The best spec", "t8"):
        assert words in page
