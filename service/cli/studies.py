"""Commands about studies: run, list, show, report, cancel, resume, delete."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import options
from service.cli.output import Mode, age, duration, errors, print_json, say, shown, status_text, table
from service.cli.several import each
from service.cli.study_output import show_study
from service.cli.visible import visible

if TYPE_CHECKING:
    from models.settings import Settings
    from service.cli.client import Client

app = typer.Typer(no_args_is_help=True, help="Studies: experiments made to be compared, with a report.")

Study = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the study.")]
StudyIds = Annotated[list[int], typer.Argument(metavar="ID...", min=1, help="Numbers of the studies.")]
REPORT_SUFFIXES = (".html", ".md", ".pdf")
MOST_WORKERS = 4
"""The most workers of a lab that is started for one study: each takes about a gigabyte."""


@app.command()
def run(
    study: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A YAML or JSON file, or a built-in study's name.")],
    budget: Annotated[str | None, typer.Option(help="How long it may take: 30m, 1h30m. Rows are shortened.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=50, help="Seeds of each row.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait and show progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show rows, epochs and seconds; run nothing.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", "-o", help="Save the report when it has ended: .html, .md or .pdf.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="A new study, even if the same one was run before.")] = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Run a study or search: epochal study run lab-report --budget 30m --watch

    The same command again continues the same study. If no lab runs, it starts one until the study ends; Ctrl-C stops
    that lab, and the same command continues. In a lab that runs already, Ctrl-C leaves the study running.
    """
    path = None if report is None else report_path(report)
    body = study_body(study)
    body |= {"budget": budget} if budget else {}
    body |= {"seeds": seeds} if seeds else {}
    with _lab(url, api_key, data_dir, body) as (client, own_workers):
        is_own = own_workers > 0
        if dry_run:
            _show_plan(client, body, own_workers)
            return
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
        headers = {"Idempotency-Key": f"study-{key}{os.urandom(4).hex() if again else ''}"}
        document = client.post("/studies", body, headers=headers)
        if is_own:
            say(f"no lab was running; this command has started one at {client.url}, until the study ends")
        document = _resume_if_cancelled(client, document)
        say(f"study {document['id']} is {document['status']}: {client.url}/studies/{document['id']}")
        if not (watch or is_own or path):
            if Mode.json:
                print_json(document)
            return
        document = _watch(client, document, is_own=is_own)
        if path is not None:
            _save_report(client, document["id"], path)
        if Mode.json:
            print_json(document)
        if document["status"] != "completed":
            raise typer.Exit(1)


@app.command("list")
def list_studies(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List studies, newest first."""
    page = options.connect(url, api_key, data_dir).get("/studies", limit=limit)
    if Mode.json:
        print_json(page)
        return
    if not page["items"]:
        say("no studies; run one with `epochal study run lab-report --budget 30m`")
        return
    rows = [
        (
            str(item["id"]),
            status_text(item["status"]),
            f"{item['progress']['ended']}/{item['progress']['runs']}",
            duration(item["progress"]["seconds_left"]) if item["progress"]["seconds_left"] else "-",
            age(item["created_at"]),
            shown(item["title"]),
        )
        for item in page["items"]
    ]
    table(("id", "status", "runs", "left", "created", "title"), rows, right=("id", "runs"), cut=True)


@app.command()
def show(
    study_id: Study,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show one study: its rows with scores, published figures and differences."""
    client = options.connect(url, api_key, data_dir)
    document = client.get(f"/studies/{study_id}")
    if Mode.json:
        print_json(document)
        return
    show_study(document, client.url)


@app.command()
def report(
    study_id: Study,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write: .html, .md or .pdf.")] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Save the report of a study, finished or not, as one file that needs nothing else."""
    path = report_path(output or Path(f"study-{study_id}.html"))
    _save_report(options.connect(url, api_key, data_dir), study_id, path)


@app.command()
def cancel(
    study_ids: StudyIds,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel studies: nothing more is begun, and their own runs end after their current step."""
    client = options.connect(url, api_key, data_dir)
    each(study_ids, lambda number: _act(client, number, "cancel"), noun="study")


@app.command()
def resume(
    study_ids: StudyIds,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Resume studies that were cancelled, or of which runs failed."""
    client = options.connect(url, api_key, data_dir)
    each(study_ids, lambda number: _act(client, number, "resume"), noun="study")


@app.command()
def delete(
    study_ids: StudyIds,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Delete the experiments that they made too.")
    ] = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete studies that have ended; their experiments stay unless asked."""
    client = options.connect(url, api_key, data_dir)

    def remove(number: int) -> dict[str, Any]:
        client.delete(f"/studies/{number}" + ("?experiments=true" if experiments else ""))
        say(f"study {number} is deleted")
        return {"id": number, "deleted": True}

    each(study_ids, remove, noun="study")


def report_path(path: Path) -> Path:
    """The path of a report. Raises BadParameter for a suffix that no report has."""
    if path.suffix not in REPORT_SUFFIXES:
        raise typer.BadParameter(f"{visible(path)} must end in {' or '.join(REPORT_SUFFIXES)}", param_hint="--output")
    return path


def study_body(source: str) -> dict[str, Any]:
    """The body of a study: from a file, or {"preset": name}."""
    from service.cli.body import read_file

    body = read_file(source, "study")
    return {"preset": source} if body is None else body


def check_study(body: dict[str, Any], settings: "Settings") -> None:
    """Refuse a study that cannot be run, as far as that is known without a lab: its fields, rows and datasets.

    The lab builds the networks too. Raises StudyError with an entry for each field that is wrong.
    """
    from models.data.uploaded import find_dataset
    from models.errors import FieldError, SpecError
    from models.spec.rows import parse_study, refuse, relocated

    parsed = parse_study(body)
    entries: list[FieldError] = []
    for row in parsed.rows:
        try:
            find_dataset(row.spec.dataset, settings)
        except SpecError as error:
            entries += relocated(error, row.place, row.key, parsed.overrides.get(row.key, {}))
    refuse(entries)


@contextmanager
def _lab(
    url: str | None, api_key: str | None, data_dir: Path | None, body: dict[str, Any]
) -> Iterator[tuple["Client", int]]:
    """The running lab and 0, or a new one started by this command if none runs and the number of its workers.

    Raises StudyError for a study that cannot be run, before a lab is started for it.
    """
    from service.cli.client import Client
    from service.cli.running import stop_on_signals
    from service.lab.address import running_lab
    from service.lab.lab import Lab, LabStopped

    known = options.read_client_settings(url, api_key, data_dir)
    if options.names_a_lab(known, url, data_dir) or running_lab(known.data_dir):
        yield options.connect(url, api_key, data_dir), 0
        return
    settings = options.settings_for(data_dir, url=url, api_key=api_key)
    check_study(body, settings)
    settings = settings.model_copy(update={"host": "127.0.0.1", "port": 0, "workers": _num_workers(settings)})
    lab = Lab(settings, say=lambda text: errors.print(f"[yellow]{shown(text)}[/]"))
    stop_on_signals(lab, interrupt=True)
    try:
        lab.start()
        yield Client(lab.url, lab.first_key or settings.api_key), settings.workers
    except (LabStopped, KeyboardInterrupt):
        errors.print("stopped; the same command continues from here")
        raise typer.Exit(130) from None
    finally:
        lab.stop()


def _num_workers(settings: "Settings") -> int:
    """How many workers a study's own lab starts: EPOCHAL_WORKERS, else one for a GPU, and on a CPU one a core.

    Small batches use one core well and two badly: two runs side by side get through more than one run on two cores.
    """
    from models.cores import usable_cores
    from models.devices import trains_on_cpu

    if "workers" in settings.model_fields_set:
        return max(settings.workers, 1)
    return min(usable_cores(), MOST_WORKERS) if trains_on_cpu(settings.device) else 1


def _resume_if_cancelled(client: "Client", document: dict[str, Any]) -> dict[str, Any]:
    """Continue an existing study: a cancelled one is resumed, once its runs have ended."""
    from service.cli.retrying import with_retries

    if document["status"] == "cancelled":
        found: dict[str, Any] = with_retries(lambda: client.post(f"/studies/{document['id']}/resume"))
        return found
    return document


def _watch(client: "Client", document: dict[str, Any], *, is_own: bool) -> dict[str, Any]:
    from service.cli.study_watching import watch_study

    try:
        document = watch_study(client, document)
    except KeyboardInterrupt:
        if is_own:
            raise
        number = document["id"]
        errors.print(f"study {number} continues in the lab; `epochal study cancel {number}` ends it")
        raise typer.Exit(130) from None
    if not Mode.json:
        show_study(document, client.url)
    return document


def _save_report(client: "Client", study_id: int, path: Path) -> None:
    content = client.get_bytes(f"/studies/{study_id}/report{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    say(f"saved {path} ({len(content) / 1000:,.0f} kB)")


def _act(client: "Client", study_id: int, verb: str) -> dict[str, Any]:
    document: dict[str, Any] = client.post(f"/studies/{study_id}/{verb}")
    say(f"study {study_id} is {document['status']}")
    return document


def _show_plan(client: "Client", body: dict[str, Any], own_workers: int) -> None:
    """Measure each kind of row once, and show the time that all rows take, in full or within the budget."""
    from service.cli.study_plan import measure_plan

    plan = measure_plan(client, body, own_workers)
    if Mode.json:
        print_json(plan)
        return
    cells = [
        (
            shown(row["key"]),
            str(row["runs"]),
            f"{row['epochs']}/{row['full_epochs']}",
            f"{row['train_images']:,}",
            duration(row["seconds"]) if row["seconds"] is not None else "-",
            shown(row["title"] + (f" ({row['reason']})" if row["reason"] else "")),
        )
        for row in plan["rows"]
    ]
    table(
        ("row", "runs", "epochs", "images", "time", "what"), cells, right=("runs", "epochs", "images", "time"), cut=True
    )
    if plan["search"]:
        from service.cli.study_search import show_space

        show_space(plan["search"])
    at_once = "one worker" if plan["workers"] == 1 else f"{plan['workers']} workers side by side"
    say(f"{plan['runs']} runs, about {duration(plan['seconds'])} with {at_once}")
    if plan["problem"]:
        say(plan["problem"], style="bold red")
