"""`epochal model`: names under which experiments' weights are served, with versions and rollback."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from models.model_names import check_name
from service.cli import options
from service.cli.output import Mode, age, print_json, say, shown, table
from service.cli.several import each

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
PAGE = 200
"""Models or versions that the lab hands out at once."""

app = typer.Typer(no_args_is_help=True, help="Names for trained networks, with versions: what predictions ask for.")


@app.command("set")
def set_version(
    name: Name,
    experiment_id: options.Id,
    weights: Annotated[str, typer.Option(help="best or last.")] = "best",
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Make an experiment's weights the next version of a model: epochal model set cats 7"""
    check_name(name)  # here too: a slash in it would be another address
    client = options.connect(url, api_key, data_dir)
    model = client.put(address_of(name), {"experiment_id": experiment_id, "weights": weights})
    _show_serving(model)


@app.command("list")
def list_models(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List models and what each serves."""
    items, more = _collect(options.connect(url, api_key, data_dir), "/models", limit)
    if Mode.json:
        print_json({"items": items, "next": more})
        return
    if not items:
        say("no models; `epochal model set NAME ID` makes one of an experiment's weights")
        return
    rows = [
        (str(item["version"]), _experiment(item), shown(item["weights"]), _epoch(item), age(item["created_at"]),
         shown(item["name"]))
        for item in items
    ]  # fmt: skip
    table(
        ("version", "experiment", "weights", "epoch", "since", "name"), rows, right=("version", "experiment", "epoch")
    )
    _say_more(more, limit)


@app.command()
def show(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many versions at most.")] = 20,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a model serves, and its versions, the newest first."""
    client = options.connect(url, api_key, data_dir)
    model = client.get(address_of(name))
    versions, more = _collect(client, f"{address_of(name)}/versions", limit)
    if Mode.json:
        print_json({**model, "versions": versions})
        return
    _show_serving(model)
    rows = [
        (str(item["version"]), _experiment(item), shown(item["weights"]), _epoch(item), age(item["created_at"]),
         shown(item["created_by"] or "-"), _standing(item))
        for item in versions
    ]  # fmt: skip
    columns = ("version", "experiment", "weights", "epoch", "created", "by", "")
    table(columns, rows, right=("version", "experiment", "epoch"))
    _say_more(more, limit)


@app.command()
def rollback(
    name: Name,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="An earlier version; the one before if left out.")
    ] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Withdraw the version that a model serves, and serve the one before again."""
    _show_serving(options.connect(url, api_key, data_dir).post(f"{address_of(name)}/rollback", to=to))


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The models' names.")],
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, help="Withdraw only this earlier version, to free its experiment."),
    ] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete models' names with their versions, or withdraw a version; experiments and their weights stay."""
    if version is not None and len(names) > 1:
        raise typer.BadParameter("needs exactly one model's name", param_hint="--version")
    client = options.connect(url, api_key, data_dir)

    def remove(name: str) -> dict[str, Any]:
        client.delete(address_of(name) if version is None else f"{address_of(name)}/versions/{version}")
        what = f"model {name} is deleted" if version is None else f"version {version} of model {name} is withdrawn"
        say(f"{what}; experiments are not touched")
        return {"name": name, "deleted": True} if version is None else {"name": name, "withdrawn": version}

    each(names, remove, noun="model", key="name")


def address_of(name: str) -> str:
    """The address of a model below /api/v1."""
    return f"/models/{quote(name, safe='', errors='surrogateescape')}"


def _show_serving(model: dict[str, Any]) -> None:
    if Mode.json:
        print_json(model)
        return
    epoch = f", of epoch {model['epoch']}" if model["epoch"] is not None else ""
    say(
        f"model {model['name']} serves version {model['version']}: "
        f"the {model['weights']} weights of experiment {model['experiment_id']}{epoch}"
    )


def _collect(client: Any, path: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Up to `limit` items of a list, by several requests if needed, and the cursor of the rest."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(items) < limit:
        page = client.get(path, cursor=cursor, limit=min(PAGE, limit - len(items)))
        items += page["items"]
        if not (cursor := page["next"]):
            break
    return items, cursor


def _experiment(item: dict[str, Any]) -> str:
    return "-" if item["experiment_id"] is None else str(item["experiment_id"])


def _epoch(item: dict[str, Any]) -> str:
    return "-" if item["epoch"] is None else str(item["epoch"])


def _standing(item: dict[str, Any]) -> str:
    if item["withdrawn_at"]:
        return f"withdrawn {age(item['withdrawn_at'])}"
    return "served" if item["serving"] else ""


def _say_more(cursor: str | None, limit: int) -> None:
    if cursor:
        say(f"there are more; --limit {limit * 2} shows them")
