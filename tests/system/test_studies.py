"""A study in a running lab, from the command: its rows are trained, compared and reported."""

import json
import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml

from benchmarks.faults.stopping import stop_outside_transaction
from benchmarks.faults.workers import jobs_of
from models.store import Status, Store, experiments, history
from models.store.tables import Experiment
from service.cli.client import Client
from service.lab.lab import Lab
from tests.processes import wait_until
from tests.system.experiments import small_spec
from tests.system.foreign import EPOCHAL, foreign_environment


@pytest.mark.timeout(240)
def test_a_study_is_run_watched_and_reported_and_the_same_command_finds_it_again(
    lab: Lab, client: Client, tmp_path: Path
) -> None:
    study = {
        "title": "A small study",
        "base": small_spec(epochs=1, dataset={"name": "cifar10", "train_limit": 200, "val_limit": 100}),
        "variants": [
            {"key": "narrow", "overrides": {"model": "narrow"}},
            {"key": "exploding", "overrides": {"optimizer.lr": 100.0, "clip_grad_norm": None}},
        ],
        "combine": ["ensemble"],
        "robustness": True,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))

    environment = foreign_environment(tmp_path)

    def epochal(*arguments: str) -> str:
        command = [*EPOCHAL, "study", *arguments, "--url", lab.url]
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=110, check=False
        )
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        return result.stdout

    shown = epochal("run", "study.yaml", "--watch", "--report", "report.html")
    assert "narrow" in shown
    assert "saved report.html" in shown
    page = (tmp_path / "report.html").read_text()
    assert "A small study" in page
    assert "data:image/png;base64," in page  # the kernels
    found = json.loads(epochal("run", "study.yaml", "--json"))
    assert found["status"] == "completed"
    assert [row["status"] in ("completed", "diverged") for row in found["rows"]] == [True] * 4
    assert found["rows"][3]["key"] == "ensemble:"
    assert found["rows"][3]["difference"]["method"] == "McNemar"
    assert [row["row"] for row in found["robustness"] if row["clean"] is not None][:2] == ["base", "narrow"]
    document = client.get(f"/studies/{found['id']}")
    assert document["rows"][1]["difference"]["method"] == "McNemar"
    assert document["spent_seconds"] > 0


@pytest.mark.timeout(240)
def test_a_search_is_run_by_the_lab_and_ends_the_trials_early_that_others_are_ahead_of(
    lab: Lab, client: Client
) -> None:
    body = {
        "title": "A small search",
        "base": small_spec(
            model="narrow", epochs=8, dataset={"name": "cifar10", "train_limit": 1000, "val_limit": 200}, batch_size=20
        ),
        "search": {"sampler": "grid", "pruner": "median", "space": {"optimizer.lr": [0.01, 1e-9, 1e-8]}},
    }
    number = client.post("/studies", body)["id"]
    worker = next(part for part in lab.parts if part.name.startswith("worker"))
    store, seen = Store(lab.settings), set[int]()
    for key in ("t1", "t2", "t3"):
        trial = wait_until(lambda: _training(store, seen), 100.0, f"an epoch of trial {key}")
        seen.add(trial)
        if key != "t1":
            _asleep_until_it_is_to_end(store, worker.pid, trial)
    store.dispose()
    ended = wait_until(
        lambda: found if (found := client.get(f"/studies/{number}"))["status"] == "completed" else None,
        100.0,
        "the search's end",
    )
    assert [row["params"]["optimizer.lr"] for row in ended["rows"]] == [0.01, 1e-8, 1e-9]
    assert [row["status"] for row in ended["rows"]] == ["completed", "pruned", "pruned"]
    pruned = ended["rows"][1]
    assert pruned["epochs_run"] < pruned["epochs"] == 8
    experiment = client.get(f"/experiments/{pruned['experiment_ids'][0]}")
    assert (experiment["status"], experiment["reason"]) == ("completed", pruned["reason"])
    assert pruned["reason"].startswith("pruned: ")
    assert client.get(f"/experiments/{experiment['id']}/verdict")["summary"]
    assert client.get_bytes(f"/experiments/{experiment['id']}/confusion.png").startswith(b"\x89PNG")
    assert ended["search"]["best"]["key"] == "t1"
    assert ended["search"]["best_spec"]["optimizer"]["lr"] == 0.01


def _training(store: Store, seen: Collection[int]) -> int | None:
    """The experiment that trains now and has an epoch behind it, unless it was seen before.

    Asked of the database: an answer of a busy API may come when a trial has no epoch left to be spared.
    """
    with store.reading() as session:
        running = session.query(Experiment.id).filter(Experiment.status == Status.RUNNING)
        new = [number for (number,) in running if number not in seen and history.read(session, number)]
    return new[0] if new else None


def _asleep_until_it_is_to_end(store: Store, worker: int | None, experiment_id: int) -> None:
    """Stop the training process until the search has judged it, so that a quick one is not at its end by then."""
    assert worker is not None
    [job] = jobs_of(worker)

    def is_to_end() -> bool:
        with store.reading() as session:
            return experiments.get(session, experiment_id).stop_requested is not None

    wait_until(lambda: stop_outside_transaction(store.url, job), what="a moment without a transaction")
    try:
        wait_until(is_to_end, 60.0, "the request to end early")
    finally:
        os.kill(job, signal.SIGCONT)
