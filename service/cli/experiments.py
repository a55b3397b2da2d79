"""Commands about experiments: submit, list, show, watch, cancel, resume, reproduce, compare, delete, verdict."""

import json
from typing import Annotated, Any

import typer

from service.cli import options
from service.cli.experiment_output import (
    COLUMNS,
    row_cells,
    say_finding,
    say_verdict,
    show_dry_run,
    show_experiment,
    stability_text,
)
from service.cli.output import Mode, print_json, say, table
from service.cli.several import each
from service.cli.visible import visible

Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A YAML or JSON file, - for standard input, or a preset's name.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field: optimizer.lr=0.1")
]


OPTIONAL = ("dataset", "at", "loss", "created", "model", "epoch")
"""Columns of the list that make room for names on a narrow terminal, the first one first."""
PAGE = 200
"""Experiments that the lab hands out at once."""


def submit(
    spec: Spec,
    changes: Changes = None,
    name: Annotated[str | None, typer.Option("--name", help="The experiment's name.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait and show progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure the cost only; queue nothing.")] = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Submit an experiment: epochal submit baseline --set epochs=5 --watch"""
    from service.cli.body import read_body

    client = options.connect(url, api_key, data_dir)
    body = read_body(spec, changes or [], client)
    if name is not None:
        body["name"] = name
    if tags:
        body["tags"] = tags
    if dry_run:
        show_dry_run(client.post("/experiments", body, dry_run="true"))
        return
    experiment = client.post("/experiments", body)
    if Mode.json and not watch:
        print_json(experiment)
    say(f"experiment {experiment['id']} is queued: {client.url}/experiments/{experiment['id']}")
    for warning in experiment.get("warnings") or ():
        say_finding(warning)
    if watch:
        _watch(client, experiment["id"])


def list_experiments(
    status: Annotated[
        str | None, typer.Option(help="queued, running, completed, failed, cancelled or diverged.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A network's name, as in the list.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A dataset's name.")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag.")] = None,
    search: Annotated[str | None, typer.Option("--search", "-q", help="Words in the name, notes or tags.")] = None,
    sort: Annotated[str | None, typer.Option(help="A metric's best or last: val_accuracy.best; or name.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="Oldest, or worst, first.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List experiments, newest first or by any metric."""
    client = options.connect(url, api_key, data_dir)
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(items) < limit:
        page = client.get(
            "/experiments",
            status=status,
            model=model,
            dataset=dataset,
            tag=tag,
            search=search,
            sort=f"-{sort or 'created'}" if reverse else sort,
            cursor=cursor,
            limit=min(PAGE, limit - len(items)),
        )
        items += page["items"]
        cursor = page.get("next")
        if not cursor:
            break
    if Mode.json:
        print_json({"items": items, "next": cursor})
        return
    if not items:
        say("no experiments; submit one with `epochal submit baseline`")
        return
    right = ("id", "epoch", "best acc", "at", "loss")
    table(COLUMNS, [row_cells(item) for item in items], right=right, optional=OPTIONAL, cut=True)
    if cursor:
        say(f"there are more; --limit {limit * 2} shows them")


def show(
    experiment_id: options.Id,
    spec: Annotated[bool, typer.Option("--spec", help="Print its spec as YAML, to be submitted again.")] = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show one experiment: status, metrics and runs."""
    client = options.connect(url, api_key, data_dir)
    experiment = client.get(f"/experiments/{experiment_id}")
    if spec:
        import yaml

        if Mode.json:
            print_json(experiment["spec"])
        else:
            plain = json.loads(json.dumps(experiment["spec"]))
            text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
            if visible(text.replace("\n", "")) != text.replace("\n", ""):
                text = yaml.safe_dump(plain, sort_keys=False)  # with escapes in place of all that is not ASCII
            typer.echo(text, nl=False)
    elif Mode.json:
        print_json(experiment)
    else:
        show_experiment(experiment, client.url)


def edit(
    experiment_id: options.Id,
    name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    notes: Annotated[str | None, typer.Option("--notes", help="Its notes, in place of those it has.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Add a tag; may be repeated.")] = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", help="Remove a tag; may be repeated.")] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Change an experiment's name, notes or tags; its spec never changes."""
    if name is None and notes is None and not tags and not untag:
        raise typer.BadParameter("nothing to change; give --name, --notes, --tag or --untag")
    client = options.connect(url, api_key, data_dir)
    changes: dict[str, Any] = {"name": name, "notes": notes}
    if tags or untag:
        own = client.get(f"/experiments/{experiment_id}")["tags"]
        kept = [tag for tag in own if tag not in (untag or ())]
        changes["tags"] = list(dict.fromkeys([*kept, *(tags or ())]))
    experiment = client.patch(
        f"/experiments/{experiment_id}", {field: value for field, value in changes.items() if value is not None}
    )
    if Mode.json:
        print_json(experiment)
    say(f"experiment {experiment_id} is changed")


def watch(
    experiment_id: options.Id,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Follow an experiment until it ends. Exits 0 if it completed, else 1; --json writes one event a line."""
    _watch(options.connect(url, api_key, data_dir), experiment_id)


def cancel(
    experiment_ids: options.Ids,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel queued or running experiments; their weights so far are kept."""
    client = options.connect(url, api_key, data_dir)
    each(experiment_ids, lambda number: _act(client, number, "cancel"), noun="experiment")


def resume(
    experiment_ids: options.Ids,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Resume cancelled, failed or diverged experiments from their last checkpoints."""
    client = options.connect(url, api_key, data_dir)
    each(experiment_ids, lambda number: _act(client, number, "resume"), noun="experiment")


def continue_training(
    experiment_id: options.Id,
    epochs: Annotated[int, typer.Option("--epochs", "-e", min=1, max=10_000, help="How many epochs more.")] = 10,
    name: Annotated[str | None, typer.Option("--name", help="The new experiment's name.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait and show progress.")] = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a completed experiment for more epochs, as a new experiment that begins where it ended."""
    client = options.connect(url, api_key, data_dir)
    body: dict[str, Any] = {"epochs": epochs, **({} if name is None else {"name": name})}
    experiment = client.post(f"/experiments/{experiment_id}/continue", body)
    if Mode.json and not watch:
        print_json(experiment)
    say(f"experiment {experiment['id']} continues experiment {experiment_id} and is queued")
    for warning in experiment.get("warnings") or ():
        say_finding(warning)
    if watch:
        _watch(client, experiment["id"])


def reproduce(
    experiment_id: options.Id,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Run the same spec again and compare: identical to the bit, within noise, or different."""
    from service.cli.watching import watch

    client = options.connect(url, api_key, data_dir)
    repeated = client.post(f"/experiments/{experiment_id}/reproduce")["id"]
    say(f"experiment {repeated} repeats experiment {experiment_id}")
    watch(client, repeated, quiet=Mode.json)
    comparison = client.get(f"/experiments/{repeated}/reproduction")
    if Mode.json:
        print_json(comparison)
        return
    say(str(comparison["sentence"]), style="bold")
    for difference in comparison["environment_differences"]:
        say(f"  {difference['name']}: {difference['original']} then, {difference['reproduction']} now")


def stability(
    experiment_id: options.Id,
    other_id: Annotated[int, typer.Argument(metavar="OTHER", min=1, help="Number of the experiment to compare with.")],
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare the stability of two experiments' curves, with the confidence."""
    found = options.connect(url, api_key, data_dir).get(f"/experiments/{experiment_id}/stability", compare=other_id)
    if Mode.json:
        print_json(found)
        return
    say(str(found["sentence"]), style="bold")
    for number, figures in zip((experiment_id, other_id), found["stability"], strict=True):
        if figures is not None:
            say(f"  experiment {number}: {stability_text(figures)}")


def delete(
    experiment_ids: options.Ids,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete experiments that are not running, with their curves, weights and kernels."""
    client = options.connect(url, api_key, data_dir)

    def remove(number: int) -> dict[str, Any]:
        client.delete(f"/experiments/{number}")
        say(f"experiment {number} is deleted")
        return {"id": number, "deleted": True}

    each(experiment_ids, remove, noun="experiment")


def verdict(
    experiment_id: options.Id,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the verdict: how training went, in plain words, and what to try."""
    found = options.connect(url, api_key, data_dir).get(f"/experiments/{experiment_id}/verdict")
    if Mode.json:
        print_json(found)
        return
    say_verdict(found)


def _watch(client: Any, experiment_id: int) -> None:
    from service.cli.watching import say_outcome, watch

    experiment = watch(client, experiment_id)
    say_outcome(experiment)
    if not Mode.json:
        say_verdict(client.get(f"/experiments/{experiment_id}/verdict"))
    if experiment["status"] != "completed":
        raise typer.Exit(1)


def _act(client: Any, experiment_id: int, verb: str) -> dict[str, Any]:
    experiment: dict[str, Any] = client.post(f"/experiments/{experiment_id}/{verb}")
    if verb == "cancel" and experiment["status"] == "running":
        say(f"experiment {experiment_id} is being cancelled; it ends after its current step")
    else:
        say(f"experiment {experiment_id} is {experiment['status']}")
    return experiment
