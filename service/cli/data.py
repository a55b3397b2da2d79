"""`epochal data`: upload, list, show, check and remove datasets of your own images."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from models.errors import EpochalError
from service.cli import fetching, options
from service.cli.output import SEVERITY_STYLES, Mode, age, duration, errors, pairs, print_json, say, shown, table
from service.cli.several import each
from service.cli.visible import visible

if TYPE_CHECKING:
    from service.cli.client import Client

Name = Annotated[str, typer.Argument(metavar="NAME", help="The dataset's name.")]
VersionOption = Annotated[
    int | None, typer.Option("--version", min=1, help="A version; the newest that is ready if left out.")
]
POLL_SECONDS = 0.5
FEW_IMAGES = 2_000
"""Fewer images than this are hardly enough to train a network from nothing."""
SHOWN_CLASSES = 30
SHOWN_SKIPPED = 10
SHOWN_IDS = 10

app = typer.Typer(no_args_is_help=True, help="Your own images as datasets, and the built-in ones.")


class ImportFailed(EpochalError):
    """The lab could not make a dataset of the files."""

    code = "import-failed"
    title = "The import failed"


@app.command()
def add(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A folder of images, or a zip, tar or tar.gz.")],
    name: Annotated[str | None, typer.Option(help="What specs call it; like the folder or file if left out.")] = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Side of the stored images; by their own sizes if left out.")
    ] = None,
    fit: Annotated[str, typer.Option(help="crop, pad or stretch pictures of other shapes to squares.")] = "crop",
    on_broken: Annotated[str, typer.Option(help="skip or refuse files that cannot be read.")] = "skip",
    group: Annotated[
        str | None, typer.Option(help="Keep images of one group in one split: column, or a regex on the path.")
    ] = None,
    test_fraction: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Fraction for the test split, if the files give none.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random test split.")] = 0,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Make the next version of an existing dataset.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how the files would be interpreted; send nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the import has ended.")] = True,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Upload images and have them imported: epochal data add photos/

    After Ctrl-C or a broken connection the same command continues where it stopped.
    """
    from models.data.uploaded import check_dataset_name, nearest_name

    if not path.exists():
        raise typer.BadParameter(f"there is no file or folder {visible(path)}", param_hint="DIR|FILE")
    asked = {
        "image_size": image_size,
        "fit": fit,
        "on_broken": on_broken,
        "group": group,
        "test_fraction": test_fraction,
        "seed": seed,
    }
    called = name or nearest_name(_name_of(path)) or _name_of(path)
    check_dataset_name(called)
    if dry_run:
        _show_plan(path, called, asked)
        return
    client = options.connect(url, api_key, data_dir)
    _check_taken(client, called, new_version=new_version)
    document = _upload(client, path, called, asked, new_version=new_version)
    if wait:
        made = int(document["version"])
        document = _wait(document, "importing", lambda: client.get(_address(called), version=made))
    if Mode.json:
        print_json(document)
    if document["status"] == "failed":
        raise ImportFailed(str(document["reason"].get("detail", "no reason given")), fix=document["reason"].get("fix"))
    _show(document)
    _suggest_training(document, called)


def _suggest_training(document: dict[str, Any], called: str) -> None:
    if document["status"] == "ready":
        say(f"train on it: epochal submit baseline --set dataset.name={called} --watch")
        if int(document["num_images"]) < FEW_IMAGES:
            tuned = f"epochal submit fine_tune_squeezenet --set dataset.name={called} --set epochs=10 --watch"
            say(f"with so few images a network learns more if it was trained on ImageNet before: {tuned}")


@app.command("list")
def list_datasets(
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the datasets that a spec can name."""
    document = options.connect(url, api_key, data_dir).get("/datasets")
    if Mode.json:
        print_json(document)
        return
    rows = []
    for item in document["datasets"]:
        images = item["num_train"] + item["num_test"] if "num_train" in item else None
        size = f"{item['channels']}x{item['size']}x{item['size']}" if "size" in item else "-"
        kind = "built in" if item["built_in"] else f"{item['status']}, version {item['version']}"
        rows.append(
            (
                shown(item["name"]),
                "-" if images is None else f"{images:,}",
                size,
                str(item.get("num_classes", "-")),
                shown(kind),
            )
        )
    table(("name", "images", "size", "classes", "kind"), rows, right=("images", "classes"))


@app.command()
def show(
    name: Name,
    version: VersionOption = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a dataset: its classes, what was skipped, its versions."""
    document = options.connect(url, api_key, data_dir).get(_address(name), version=version)
    if Mode.json:
        print_json(document)
        return
    _show(document)
    if len(document["versions"]) > 1:
        rows = [
            (str(one["version"]), shown(one["status"]), str(one["num_images"] or "-"), age(one["created_at"]),
             shown((one["fingerprint"] or "-")[:12]))
            for one in document["versions"]
        ]  # fmt: skip
        table(("version", "status", "images", "made", "fingerprint"), rows, right=("version", "images"))


@app.command()
def health(
    name: Name,
    version: VersionOption = None,
    again: Annotated[bool, typer.Option("--again", help="Repeat a check that has ended.")] = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is wrong with a dataset's images; waits until a worker has checked them."""
    client = options.connect(url, api_key, data_dir)
    address = f"{_address(name)}/health"
    document = client.post(address, version=version) if again else client.get(address, version=version)
    document = _wait(document, "checking", lambda: client.get(address, version=version))
    if Mode.json:
        print_json(document)
    if document["status"] == "failed":
        raise ImportFailed(str(document["reason"].get("detail", "")), fix=document["reason"].get("fix"))
    for finding in document["report"]["findings"]:
        say(f"{finding['severity']}: {finding['sentence']}", style=SEVERITY_STYLES.get(str(finding["severity"])))
        if finding["image_ids"]:
            shown_ids = ", ".join(str(image) for image in finding["image_ids"][:SHOWN_IDS])
            say(f"    images {shown_ids}{' ...' if finding['num_images'] > SHOWN_IDS else ''}", style="dim")
    if not document["report"]["findings"]:
        say("nothing was found")


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The datasets' names.")],
    version: Annotated[int | None, typer.Option("--version", min=1, help="Delete only this version.")] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete datasets with all their versions, or one version of a dataset."""
    if version is not None and len(names) > 1:
        raise typer.BadParameter("needs exactly one dataset's name", param_hint="--version")
    client = options.connect(url, api_key, data_dir)

    def delete(name: str) -> dict[str, Any]:
        client.delete(_address(name) if version is None else f"{_address(name)}/versions/{version}")
        say(f"dataset {name} is deleted" if version is None else f"version {version} of dataset {name} is deleted")
        return {"name": name, "deleted": True, **({} if version is None else {"version": version})}

    each(names, delete, noun="dataset", key="name")


app.command()(fetching.fetch)


def _name_of(path: Path) -> str:
    """A folder's name, or a file's without its ending."""
    name = path.resolve().name
    for ending in (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".zip", ".tar", ".parquet"):
        if path.is_file() and name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def _address(name: str) -> str:
    return f"/datasets/{quote(name, safe='', errors='surrogateescape')}"


def _check_taken(client: "Client", name: str, *, new_version: bool) -> None:
    """Refuse a name that is taken before anything is sent."""
    from models.errors import Conflict
    from service.cli.client import Problem

    if new_version:
        return
    try:
        found = client.get(_address(name))
    except Problem as problem:
        if problem.status == 404:
            return
        raise
    if found["status"] != "failed":
        raise Conflict(
            f"a dataset {name} exists already ({found['status']})",
            fix="Give --new-version to make its next version, or --name to choose another name.",
        )


def _upload(client: "Client", path: Path, name: str, asked: dict[str, Any], *, new_version: bool) -> dict[str, Any]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from service.cli.packing import PackedFolder
    from service.cli.sending import FileContent, forget, send

    content = PackedFolder(path) if path.is_dir() else FileContent(path)
    notes = options.settings_for(None).cache_dir / "uploads"
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()),
        TimeRemainingColumn(),
    )
    sent = 0
    try:
        with Progress(*columns, console=errors, disable=Mode.json or not errors.is_terminal) as bar:
            task = bar.add_task("sending", total=content.length)

            def progress(done: int, total: int) -> None:
                nonlocal sent
                sent = done
                bar.update(task, completed=done)

            upload_id = send(client, content, notes, progress)
    except KeyboardInterrupt:
        percent = 100 * sent // max(1, content.length)
        errors.print(f"stopped at {percent} %; the same command continues from there")
        raise typer.Exit(130) from None
    query = {**asked, "upload": upload_id}
    made: dict[str, Any] = (
        client.put(_address(name), None, **query) if new_version else client.post("/datasets", name=name, **query)
    )
    forget(client, content, notes)
    return made


def _wait(document: dict[str, Any], status: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Show the progress of a worker's job for as long as the document has this status; the last document."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    said = ""
    with Progress(*columns, console=errors, disable=Mode.json or not errors.is_terminal) as bar:
        task = bar.add_task("waiting for a worker", total=None, left="")
        while document["status"] == status:
            if found := document["progress"]:
                phase, left = shown(found["phase"]), found.get("seconds_left")
                bar.update(
                    task, description=phase, completed=found["done"], total=found["total"] or None,
                    left="" if left is None else f"about {duration(left)} left",
                )  # fmt: skip
                if phase != said and not Mode.json and not errors.is_terminal:
                    errors.print(f"{phase} ...")
                said = phase
            time.sleep(POLL_SECONDS)
            document = read()
    return document


def _show(document: dict[str, Any]) -> None:
    if Mode.json:
        return
    if document["reason"]:
        errors.print(f"[red]{shown(document['reason'].get('detail', ''))}[/]")
    rows = [
        ("name", shown(document["name"])),
        ("status", shown(document["status"])),
        ("images", f"{document['num_images']:,}" if document["num_images"] is not None else "-"),
        ("size", f"{document['image_size']} pixels" if document["image_size"] else "-"),
        ("layout", shown(document["layout"] or "-")),
        ("fingerprint", shown(document["fingerprint"] or "-")),
    ]
    pairs(rows)
    if classes := document["classes"]:
        counted = [
            (*(str(one[split] if one[split] is not None else "-") for split in ("train", "validation", "test")),
             shown(one["name"]))
            for one in classes[:SHOWN_CLASSES]
        ]  # fmt: skip
        table(("train", "validation", "test", "class"), counted, right=("train", "validation", "test"))
        if len(classes) > SHOWN_CLASSES:
            say(f"and {len(classes) - SHOWN_CLASSES:,} more classes")
    for warned in document["warnings"]:
        say(f"warning: {warned}", style="yellow")
    skipped = document["skipped"]
    if skipped:
        say(f"{document['num_skipped']:,} files were left out:")
        for one in skipped[:SHOWN_SKIPPED]:
            say(f"  {one['file']}: {one['reason']}")


def _show_plan(path: Path, name: str, asked: dict[str, Any]) -> None:
    """Print the layout, classes and splits that an import would find, from names and tables alone."""
    import tempfile

    from pydantic import ValidationError

    from models.data.importing.layouts.recognise import recognise
    from models.data.importing.opening import open_images
    from models.data.importing.options import ImportOptions
    from models.data.importing.plan import make_plan
    from service.http.errors import message_of

    try:
        chosen = ImportOptions.model_validate({"name": name, **asked})
    except ValidationError as error:
        wrong = (f"{(found['loc'] or ('group',))[0]}: {message_of(found['msg'])}" for found in error.errors())
        raise typer.BadParameter(visible("; ".join(wrong))) from None
    with tempfile.TemporaryDirectory() as work, open_images(path, Path(work), chosen) as opened:
        layout = recognise(opened, chosen)
        plan = make_plan(layout, opened.listing.entries, chosen)
    train = Counter(plan.labels[: plan.num_train].tolist())
    test = Counter(plan.labels[plan.num_train :].tolist())
    found = {
        "name": name,
        "layout": layout.name,
        "num_images": len(plan.labels),
        "classes": [
            {"name": label, "train": train[number], "test": test[number]}
            for number, label in enumerate(plan.class_names)
        ],
        "warnings": list(plan.warnings),
        "skipped": [{"file": file, "reason": why} for file, why in layout.left_out[:200]],
    }
    if Mode.json:
        print_json(found)
        return
    pairs([("name", shown(name)), ("layout", shown(layout.name)), ("images", f"{len(plan.labels):,}")])
    rows = [
        (str(train[number]), str(test[number]), shown(label))
        for number, label in enumerate(plan.class_names[:SHOWN_CLASSES])
    ]
    table(("train", "test", "class"), rows, right=("train", "test"))
    for warned in plan.warnings:
        say(f"warning: {warned}", style="yellow")
    for file, why in layout.left_out[:SHOWN_SKIPPED]:
        say(f"left out: {file}: {why}")
    say("nothing was sent; images are decoded by the lab, which may find broken ones among them")
