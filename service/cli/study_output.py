"""Prints studies: rows with scores and differences, trials of searches, robustness."""

from typing import Any

from service.cli.output import console, duration, figure, pairs, say, shown, status_text, table


def show_study(document: dict[str, Any], url: str) -> None:
    """Print a study: its rows or trials, what was left out, and what was measured beside."""
    progress = document["progress"]
    rows = [
        ("study", f"{document['id']} {shown(document['title'])}"),
        ("question", shown(document["question"])),
        ("status", status_text(document["status"])),
        ("reason", shown(document["reason"] or "")),
        ("runs", f"{progress['ended']} of {progress['runs']} have ended"),
        ("time", duration(document["spent_seconds"])),
        ("budget", duration(document["budget_seconds"]) if document["budget_seconds"] else ""),
        ("time left", duration(progress["seconds_left"]) if progress["seconds_left"] else ""),
        ("page", f"{url}/studies/{document['id']}"),
    ]
    pairs((name, value) for name, value in rows if value)
    console.print()
    if document["search"]:
        from service.cli.study_search import show_found, show_trials

        show_found(document["search"])
        console.print()
        show_trials(document["rows"])
        _show_reasons(document["rows"])
        return
    columns = ("row", "status", "accuracy", "published", "difference, 95% interval", "epochs", "time", "what")
    cells = [row_cells(row) for row in document["rows"]]
    table(
        columns,
        cells,
        right=("accuracy", "published", "epochs", "time"),
        optional=("time", "epochs", "status"),
        cut=True,
    )
    _show_reasons(document["rows"])
    for row in document["rows"]:
        if row["shortened"]:
            say(f"  {row['key']}: {row['shortened']}", style="dim")
    for row in document["rows"]:
        if row["kind"] != "trained" and row["difference"]:
            say(f"  {row['difference']['sentence']}")
    _show_robustness(document["robustness"])


def _show_robustness(rows: list[dict[str, Any]]) -> None:
    """Each row's accuracy on corrupted images, as the mean over the five strengths."""
    measured = [row for row in rows if row["clean"] is not None]
    if measured:
        kinds = list(measured[0]["accuracy"])
        console.print()
        cells = [
            (
                shown(row["row"]),
                figure(row["clean"]),
                *(figure(sum(row["accuracy"][kind]) / len(row["accuracy"][kind])) for kind in kinds),
                shown(row["title"]),
            )
            for row in measured
        ]
        names = [kind.replace("gaussian_", "").replace("_compression", "") for kind in kinds]
        table(("row", "as they are", *names, "what"), cells, right=("as they are", *names), cut=True)
        say(f"  mean accuracy over five strengths, on {measured[0]['num_images']:,} validation images", style="dim")
    for row in rows:
        if row["reason"]:
            say(f"  robustness of {row['row']}: {row['reason']}")


def _show_reasons(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["reason"]:
            say(f"  {row['key']}: {row['reason']}")


def row_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row of a study for a table."""
    accuracy, difference = row["val_accuracy"], row["difference"]
    spread = f" ±{accuracy['deviation']:.4f}" if accuracy and accuracy["deviation"] is not None else ""
    words = "-"
    if difference:
        low, high = difference["interval"]
        words = f"{difference['points']:+.1f} ({low:+.1f} to {high:+.1f})" + (
            ", noise" if difference["is_noise"] else ""
        )
    published = (row["published"] or {}).get("val_accuracy")
    return (
        shown(row["key"]),
        status_text(row["status"]),
        f"{figure(accuracy['mean'])}{spread}" if accuracy else "-",
        figure(published),
        words,
        "-" if row["epochs"] is None else str(row["epochs"]),
        duration(row["seconds"]) if row["seconds"] else "-",
        shown(row["title"]),
    )
