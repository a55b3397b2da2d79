"""What the study command shows, and how a dry run is put together from the lab's answers."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from service.cli.client import Problem
from service.cli.main import app
from service.cli.studies import report_path
from service.cli.study_output import row_cells
from service.cli.study_plan import measure_plan
from service.cli.study_search import show_found, show_trials

ROW = {
    "key": "wide",
    "title": "More channels",
    "status": "completed",
    "val_accuracy": {"mean": 0.681, "deviation": None},
    "difference": {"points": 7.8, "interval": [6.0, 9.6], "is_noise": False},
    "published": {"val_accuracy": 0.6581},
    "epochs": 30,
    "seconds": 61.0,
}


class Lab:
    """Answers as a lab would: two rows of which an epoch takes equally long, and one whose dry run fails."""

    def __init__(self, budget: float | None = None, workers: int = 1) -> None:
        self.budget, self.workers = budget, workers
        self.measured: list[str] = []

    def post(self, path: str, body: Any, **params: Any) -> dict[str, Any]:
        assert params == {"dry_run": "true"}
        if path == "/experiments":
            self.measured.append(body)
            if body == "broken":
                raise Problem({"title": "no", "detail": "its weights are nowhere", "code": "x"})
            return {"images_per_second": 100.0, "seconds_per_epoch": 12.0}
        usual = {"title": "row", "baseline": None, "runs": 1, "share": 1.0, "min_epochs": 1, "epochs": 100,
                 "train_images": 1000, "val_images": 500, "test_images": 0}  # fmt: skip
        rows = [
            {**usual, "key": "a", "cost": "1", "spec": "fine"},
            {**usual, "key": "b", "cost": "1", "spec": "fine too"},
            {**usual, "key": "c", "cost": "2", "spec": "broken"},
        ]
        return {"title": "t", "rows": rows, "runs": 3, "workers": self.workers, "budget_seconds": self.budget}


def test_rows_that_cost_the_same_are_measured_once() -> None:
    lab = Lab()
    plan = measure_plan(lab, {})  # type: ignore[arg-type]
    assert lab.measured == ["fine", "broken"]
    assert [row["epochs"] for row in plan["rows"]] == [100, 100, 100]
    assert plan["rows"][0]["seconds"] == pytest.approx(1207, rel=0.01)
    assert plan["rows"][2]["reason"] == "its weights are nowhere"


def test_a_budget_shortens_what_is_shown() -> None:
    plan = measure_plan(Lab(600.0), {})  # type: ignore[arg-type]
    assert plan["rows"][0]["epochs"] < 100
    assert plan["seconds"] <= 600
    assert plan["problem"] is None


def test_as_many_runs_are_planned_at_a_time_as_there_are_workers() -> None:
    alone, beside = measure_plan(Lab(), {}), measure_plan(Lab(workers=2), {})  # type: ignore[arg-type]
    assert (alone["workers"], beside["workers"]) == (1, 2)
    assert beside["seconds"] == pytest.approx(alone["seconds"] / 2)
    shorter, longer = measure_plan(Lab(600.0), {}), measure_plan(Lab(600.0, workers=2), {})  # type: ignore[arg-type]
    work = [row["epochs"] * row["train_images"] for plan in (shorter, longer) for row in plan["rows"][:1]]
    assert work[1] > 1.5 * work[0]
    assert longer["seconds"] <= 600


def test_a_lab_that_was_just_started_is_planned_with_the_workers_that_it_will_have() -> None:
    assert measure_plan(Lab(workers=0), {}, own_workers=2)["workers"] == 2  # type: ignore[arg-type]
    assert measure_plan(Lab(workers=0), {})["workers"] == 1  # type: ignore[arg-type]


def test_a_budget_that_is_too_small_says_what_it_would_take() -> None:
    plan = measure_plan(Lab(20.0), {})  # type: ignore[arg-type]
    assert "too little for one epoch a row; they take about" in plan["problem"]


def test_a_row_shows_score_published_figure_and_difference() -> None:
    cells = row_cells(ROW)
    assert "0.6810" in cells
    assert "0.6581" in cells
    assert "+7.8 (+6.0 to +9.6)" in cells
    assert row_cells({**ROW, "val_accuracy": None, "difference": None, "published": None})[2:5] == ("-", "-", "-")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "base: {model: narrow, dataset: nope}\nvariants: [{key: a}]",
            ("The study cannot", "no dataset 'nope'"),
        ),
        ("base: {model: narrow}\nvariants: [{key: a, overrides: {lr: -1}}]", ("variants[0].overrides.optimizer.lr",)),
        ("base: {model: narrow}\nvariants: [{key: a]", ("The file cannot be read", "study.yaml: is not valid YAML")),
        ("- a\n- b", ("it is no study: a study is an object with keys",)),
        ("", ("it is empty: a study is an object with keys",)),
        (None, ("there is no file",)),
    ],
)
def test_a_file_that_is_no_study_is_refused_without_a_lab(
    text: str | None, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lab(*_: Any, **__: Any) -> None:
        raise AssertionError("a lab was started")

    monkeypatch.setattr("service.lab.lab.Lab.start", no_lab)
    file = tmp_path / "study.yaml"
    if text is not None:
        file.write_text(text)
    found = CliRunner().invoke(app, ["study", "run", str(file), "--data-dir", str(tmp_path / "lab")])
    assert found.exit_code != 0
    assert found.stdout == ""
    shown = " ".join(found.stderr.replace("\u2502", " ").split())
    for each in words:
        assert each in shown, shown
    assert not (tmp_path / "lab").exists()


def test_a_report_is_html_markdown_or_pdf() -> None:
    assert report_path(Path("a.pdf")) == Path("a.pdf")
    with pytest.raises(typer.BadParameter, match=r"a\.docx must end in"):
        report_path(Path("a.docx"))


SEARCH = {
    "sampler": "tpe", "pruner": "median", "seed": 0, "trials": 30, "drawn": 12, "ended": 11, "pruned": 4, "failed": 0,
    "diverged": 1, "stopped": "budget", "space": {"optimizer.lr": "0.0001 to 0.1 on a log scale"},
    "best": {"key": "t7", "number": 7, "params": {"optimizer.lr": 0.0127}, "val_accuracy": 0.512, "epoch": 9,
             "experiment_id": 41},
    "importance": [{"field": "optimizer.lr", "importance": 0.83}, {"field": "batch_size", "importance": 0.17}],
}  # fmt: skip


def test_a_search_shows_its_best_trial_and_which_fields_matter(capsys: pytest.CaptureFixture[str]) -> None:
    show_found(SEARCH)
    shown = capsys.readouterr().out
    for words in ("11 of 30 have ended, 4 ended early, 1 diverged", "0.5120 by t7, experiment 41", "lr 0.0127",
                  "optimizer.lr 83%, batch_size 17%", "the budget left no time for more"):  # fmt: skip
        assert words in shown
    show_found({**SEARCH, "best": None, "importance": None, "stopped": None})
    assert "best" not in capsys.readouterr().out


def test_the_trials_of_a_search_are_listed_with_their_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    row = {**ROW, "key": "t2", "title": "lr 0.0127", "status": "pruned", "epochs_run": 3, "experiment_ids": [36]}
    show_trials([row, {**row, "key": "t3", "val_accuracy": None, "epochs_run": None, "experiment_ids": []}])
    shown = capsys.readouterr().out
    for words in ("pruned", "3/30", "0/30", "lr 0.0127", "36"):
        assert words in shown


def test_a_dry_run_of_a_search_says_how_many_trials_fit_into_its_budget() -> None:
    class SearchLab(Lab):
        def post(self, path: str, body: Any, **params: Any) -> dict[str, Any]:
            found = super().post(path, body, **params)
            if path == "/experiments":
                return found
            return {**found, "rows": [{**found["rows"][0], "runs": 30}], "runs": 30, "search": SEARCH}

    whole, short = measure_plan(SearchLab(), {}), measure_plan(SearchLab(3600.0), {})  # type: ignore[arg-type]
    assert whole["runs"] == 30
    assert short["runs"] == 2  # of 20 minutes each, in an hour less what cannot be halved
    assert short["rows"][0]["epochs"] == 100
    assert short["seconds"] <= 3600
