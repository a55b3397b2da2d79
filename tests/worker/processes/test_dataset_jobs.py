"""What a forked process answers to a job of a dataset."""

from pathlib import Path
from typing import Any

import pytest

from models.data.catalogue import DATASETS
from models.errors import DataUnavailable
from models.settings import Settings
from tests.models.data import tiny
from worker.messages import DatasetJob, Report
from worker.processes import dataset_jobs


class Recorder:
    """A channel that keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.outcome: Report = {}

    def report(self, report: Report) -> None:
        self.phases.append(report["dataset_progress"]["phase"])

    def report_outcome(self, report: Report) -> None:
        self.outcome = report


def check(name: str, tmp_path: Path) -> Recorder:
    """The check of a built-in dataset."""
    settings = Settings(data_dir=tmp_path / "lab", cache_dir=tmp_path / "cache")
    job: DatasetJob = {
        "do": "dataset",
        "kind": "health",
        "dataset": name,
        "version": 0,
        "options": {},
        "staging": str(tmp_path),
        "settings": settings.model_dump(mode="json"),
    }
    channel: Any = Recorder()
    dataset_jobs.run_dataset_job(channel, settings, job)
    found: Recorder = channel
    return found


def no_weights(*_: Any) -> Any:
    raise DataUnavailable("no weights here")


def test_a_built_in_dataset_is_fetched_and_checked_like_an_uploaded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "tiny", tiny.recipe(tiny.fill))
    monkeypatch.setattr(dataset_jobs, "load_pretrained", no_weights)
    found = check("tiny", tmp_path)
    assert "filling" in found.phases
    report = found.outcome["health_report"]
    assert report["num_images"] == tiny.NUM_TRAIN + tiny.NUM_TEST
    leak = next(one for one in report["findings"] if one["code"] == "duplicates.leakage")
    assert leak["sentence"].startswith("8 of 8 test images (100.0%)")
    assert leak["figures"]["test_share"] == 1


def test_a_built_in_dataset_that_cannot_be_fetched_is_a_problem_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "tiny", tiny.recipe())
    problem = check("tiny", tmp_path).outcome["problem"]
    assert "could be fetched from none of its sources" in problem["detail"]
    assert problem["fix"]


def test_the_rest_of_a_phase_is_estimated_by_its_speed_in_this_attempt() -> None:
    assert dataset_jobs.seconds_left(elapsed=10.0, done=100, left=300) == 30
    assert dataset_jobs.seconds_left(elapsed=10.0, done=100, left=0) == 0
    assert dataset_jobs.seconds_left(elapsed=0.2, done=100, left=300) is None
    assert dataset_jobs.seconds_left(elapsed=10.0, done=0, left=300) is None
    assert dataset_jobs.seconds_left(elapsed=10.0, done=7, left=-7) is None  # the total is not known
