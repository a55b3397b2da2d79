"""Prints the results of a search, for the study commands."""

from typing import Any

from models.spec.trials import title_of
from service.cli.output import duration, figure, pairs, say, shown, status_text, table


def show_found(search: dict[str, Any]) -> None:
    """Print the progress of a search, its best trial, and the fields' importances."""
    best, importance = search["best"], search["importance"]
    counts = [f"{search['ended']} of {search['trials']} have ended"]
    counts += [f"{search[name]} {words}" for name, words in ENDINGS.items() if search[name]]
    rows = [("trials", ", ".join(counts)), ("drawn", f"{search['sampler']}, pruner {search['pruner']}")]
    if best:
        rows.append(("best", f"{figure(best['val_accuracy'])} by {best['key']}, experiment {best['experiment_id']}"))
        rows.append(("", shown(title_of(best["params"]))))
        rows.append(("its spec", f"epochal show {best['experiment_id']} --spec"))
    if importance:
        rows.append(("importance", ", ".join(f"{shown(one['field'])} {one['importance']:.0%}" for one in importance)))
    if search["stopped"]:
        rows.append(("stopped", STOPPED.get(search["stopped"], search["stopped"])))
    pairs(rows)


ENDINGS = {"pruned": "ended early", "diverged": "diverged", "failed": "without a result"}
STOPPED = {"budget": "the budget left no time for more", "space": "no other trial of the space can be run"}


def show_trials(rows: list[dict[str, Any]]) -> None:
    """Print a line for each trial."""
    cells = [
        (
            shown(row["key"]),
            status_text(row["status"]),
            figure(row["val_accuracy"]["mean"]) if row["val_accuracy"] else "-",
            f"{row['epochs_run'] or 0}/{row['epochs']}",
            duration(row["seconds"]) if row["seconds"] else "-",
            " ".join(map(str, row["experiment_ids"])) or "-",
            shown(row["title"]),
        )
        for row in rows
    ]
    columns = ("trial", "status", "accuracy", "epochs", "time", "experiment", "values")
    table(columns, cells, right=("accuracy", "epochs", "time", "experiment"), optional=("time", "experiment"), cut=True)


def show_space(search: dict[str, Any]) -> None:
    """Print a dry run of a search: the number of trials, and the values of each field."""
    say(f"{search['trials']} trials at most, sampler {search['sampler']}, pruner {search['pruner']}")
    table(("field", "may be"), [(shown(field), shown(words)) for field, words in search["space"].items()], cut=True)
