"""`epochal study run --dry-run`: estimates the time of a study from one dry run for each kind of row."""

from typing import TYPE_CHECKING, Any

from models.studies.budget import MARGIN, SMALLEST, Work, first_fit, seconds_of, shortened, total_seconds
from models.text import duration
from service.cli.output import Mode, console

if TYPE_CHECKING:
    from service.cli.client import Client

START_SECONDS = 5.0


def measure_plan(client: "Client", body: dict[str, Any], own_workers: int = 0) -> dict[str, Any]:
    """Rows with epochs, images and seconds, shortened where the study has a budget.

    As many runs go on at a time as the lab has workers; `own_workers` are those of a lab that was just started, which
    may not all be there yet.
    """
    from service.cli.client import Problem

    plan = client.post("/studies", body, dry_run="true")
    parallel = max(plan["workers"], own_workers, 1)
    costs: dict[str, dict[str, Any]] = {}
    kinds: dict[str, dict[str, Any]] = {}
    for row in plan["rows"]:
        kinds.setdefault(row["cost"], row)
    for number, (cost, row) in enumerate(kinds.items(), start=1):
        if not Mode.json:
            console.print(f"dry run {number} of {len(kinds)}: {row['title']}", style="dim", markup=False)
        try:
            costs[cost] = client.post("/experiments", row["spec"], dry_run="true")
        except Problem as problem:
            costs[cost] = {"reason": problem.detail}
    works = {row["key"]: work for row in plan["rows"] if (work := _work_of(row, costs[row["cost"]])) is not None}
    budget, problem_words, scale = plan["budget_seconds"], None, None
    if budget is not None and not plan.get("search"):
        scale = first_fit(list(works.values()), budget, parallel=parallel)
        if scale == 0.0:
            least = total_seconds(list(works.values()), SMALLEST, parallel) / MARGIN
            problem_words = f"the budget is too little for one epoch a row; they take about {duration(least)} here"
    rows = [_row(row, works.get(row["key"]), scale, costs[row["cost"]].get("reason")) for row in plan["rows"]]
    if budget is not None and plan.get("search"):
        rows = [_within(row, budget * parallel) for row in rows]
    known = [row for row in rows if row["seconds"] is not None]
    longest = max((row["seconds"] / row["runs"] for row in known), default=0.0)
    return {
        **plan,
        "rows": rows,
        "runs": sum(row["runs"] for row in rows),
        "workers": parallel,
        "seconds": max(sum(row["seconds"] for row in known) / parallel, longest),
        "problem": problem_words,
    }


def _work_of(row: dict[str, Any], cost: dict[str, Any]) -> Work | None:
    if "images_per_second" not in cost:
        return None
    speed = float(cost["images_per_second"])
    train, val = row["train_images"], row["val_images"]
    val_seconds = max(float(cost["seconds_per_epoch"]) - train / speed, 0.05 * val / speed) / val
    return Work(
        row["key"], row["epochs"], train, val, row["test_images"], 1 / speed, val_seconds, START_SECONDS, row["share"],
        row["min_epochs"], row["runs"],
    )  # fmt: skip


def _within(row: dict[str, Any], budget: float) -> dict[str, Any]:
    """The trials of a search that fit into its budget: `budget` is the time of all workers together."""
    if not row["seconds"] or row["seconds"] <= budget:
        return row
    runs = max(1, int(budget * row["runs"] / row["seconds"]))
    return {**row, "runs": runs, "seconds": round(row["seconds"] * runs / row["runs"], 1)}


def _row(row: dict[str, Any], work: Work | None, scale: float | None, reason: str | None) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in ("spec", "cost")}
    if work is None:
        return {**kept, "full_epochs": row["epochs"], "seconds": None, "reason": reason}
    length = shortened(work, 1e9 if scale is None else scale or SMALLEST)
    seconds = seconds_of(work, length) * row["runs"]
    found = {"epochs": length.epochs, "train_images": length.train_images, "val_images": length.val_images}
    return {**kept, **found, "full_epochs": row["epochs"], "seconds": round(seconds, 1), "reason": None}
