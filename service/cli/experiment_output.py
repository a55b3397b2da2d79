"""Prints experiments, verdicts, findings and dry runs, for the commands about experiments."""

from typing import Any

from service.cli.output import (
    SEVERITY_STYLES,
    Mode,
    age,
    console,
    duration,
    figure,
    pairs,
    print_json,
    say,
    shown,
    status_text,
    table,
)

COLUMNS = ("id", "status", "model", "dataset", "epoch", "best acc", "at", "loss", "created", "name")


def row_cells(item: dict[str, Any]) -> tuple[str, ...]:
    """The cells of an experiment in the list, under COLUMNS."""
    best = (item.get("best") or {}).get("val_accuracy") or {}
    progress = item.get("progress") or {}
    epoch = f"{progress['epoch']}/{progress['epochs']}" if progress.get("epochs") else "-"
    return (
        str(item["id"]),
        status_text(item["status"]),
        shown(item["model"]),
        shown(item["dataset"]),
        epoch,
        figure(best.get("value")),
        str(best.get("epoch", "-")),
        figure((item.get("last") or {}).get("val_loss")),
        age(item["created_at"]),
        shown(item["name"]),
    )


def show_experiment(experiment: dict[str, Any], url: str) -> None:
    """Print an experiment with its metrics, runs and warnings."""
    progress, test = experiment.get("progress") or {}, experiment.get("test") or {}
    rows = [
        ("experiment", f"{experiment['id']} {shown(experiment['name'])}"),
        ("status", status_text(experiment["status"])),
        ("reason", shown(experiment.get("reason") or "")),
        ("network", shown(experiment["model"])),
        ("dataset", shown(experiment["dataset"])),
        ("tags", shown(", ".join(experiment.get("tags") or ()))),
        ("notes", shown(experiment.get("notes") or "")),
        ("created", age(experiment["created_at"])),
        ("epoch", f"{progress['epoch']} of {progress['epochs']}" if progress.get("epochs") else ""),
        ("time left", duration(progress["seconds_left"]) if progress.get("seconds_left") is not None else ""),
        ("test", f"accuracy {figure(test.get('accuracy'))}, loss {figure(test.get('loss'))}" if test else ""),
        ("page", f"{url}/experiments/{experiment['id']}"),
    ]
    pairs((name, value) for name, value in rows if value)
    best, last = experiment.get("best") or {}, experiment.get("last") or {}
    if best:
        console.print()
        figures = [
            (name, figure(found["value"]), str(found["epoch"]), figure(last.get(name))) for name, found in best.items()
        ]
        table(("metric", "best", "at epoch", "last"), figures, right=("best", "at epoch", "last"))
    runs = experiment.get("runs") or ()
    if runs:
        console.print()
        rows_of_runs = [
            (
                str(run["attempt"]),
                shown(run["worker"]),
                shown(run["status"]),
                age(run.get("started_at")),
                shown(run.get("reason") or ""),
            )
            for run in runs
        ]
        table(("run", "worker", "status", "started", "reason"), rows_of_runs, right=("run",))
    for warning in experiment.get("warnings") or ():
        say_finding(warning)


def say_verdict(found: dict[str, Any]) -> None:
    """Print a verdict: its summary and its findings."""
    if found["summary"]:
        say(str(found["summary"]), style="bold")
    for finding in found["findings"] or ():
        say_finding(finding)


def say_finding(finding: dict[str, Any]) -> None:
    """Print a finding or a warning with its suggestion; nothing with --json."""
    severity = str(finding.get("severity") or "warning")
    text = finding.get("sentence") or finding.get("message") or finding.get("text") or finding.get("code") or ""
    if Mode.json:
        return
    console.print(f"[{SEVERITY_STYLES.get(severity, 'yellow')}]{shown(severity):>8}[/]  {shown(text)}")
    if finding.get("suggestion"):
        console.print(f"{'try':>8}  {shown(finding['suggestion'])}", style="dim")


def stability_text(figures: dict[str, Any]) -> str:
    """Format the figures of one experiment's stability."""
    parts = [f"stability {figures['score']:.2f}"]
    if figures["wobble_accuracy"] is not None:
        parts.append(f"accuracy fluctuates by {100 * figures['wobble_accuracy']:.1f} points")
    if figures["wobble_loss"] is not None:
        parts.append(f"loss by {100 * figures['wobble_loss']:.1f}%")
    parts.append(f"{100 * figures['kept']:.0f}% of the best accuracy's gain kept to the end")
    return ", ".join(parts)


def show_dry_run(result: dict[str, Any]) -> None:
    """Print the estimated and measured cost of a spec, and warnings about it."""
    if Mode.json:
        print_json(result)
        return
    pairs((shown(name.replace("_", " ")), shown(_plain(value))) for name, value in result.items() if name != "warnings")
    for warning in result.get("warnings") or ():
        say_finding(warning)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value)
