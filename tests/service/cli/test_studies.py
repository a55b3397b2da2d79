"""What the study command shows, and how a dry run is put together from the lab's answers."""

from pathlib import Path
from typing import Any

import pytest
import typer

from service.cli.client import Problem
from service.cli.studies import report_path, row_cells
from service.cli.study_plan import measure_plan

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

    def __init__(self, budget: float | None = None) -> None:
        self.budget = budget
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
        return {"title": "t", "rows": rows, "runs": 3, "budget_seconds": self.budget}


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


def test_a_budget_that_is_too_small_says_what_it_would_take() -> None:
    plan = measure_plan(Lab(20.0), {})  # type: ignore[arg-type]
    assert "too little for one epoch a row; they take about" in plan["problem"]


def test_a_row_shows_score_published_figure_and_difference() -> None:
    cells = row_cells(ROW)
    assert "0.6810" in cells
    assert "0.6581" in cells
    assert "+7.8 (+6.0 to +9.6)" in cells
    assert row_cells({**ROW, "val_accuracy": None, "difference": None, "published": None})[2:5] == ("-", "-", "-")


def test_a_report_is_html_markdown_or_pdf() -> None:
    assert report_path(Path("a.pdf")) == Path("a.pdf")
    with pytest.raises(typer.BadParameter, match=r"a\.docx must end in"):
        report_path(Path("a.docx"))
