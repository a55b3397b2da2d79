"""Commands that download pictures or upload images: curves, kernels, classify, lr-test; and lr-tests."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.errors import EpochalError
from models.model_names import NAME
from service.cli import options
from service.cli.classify_folder import IMAGE_SUFFIXES, classify_folder
from service.cli.models import address_of
from service.cli.output import Mode, age, console, figure, print_json, say, shown, table
from service.cli.retrying import with_retries
from service.cli.visible import visible

if TYPE_CHECKING:
    from service.cli.client import Client, Problem

PICTURE_SUFFIXES = (".png", ".svg")
POLL_SECONDS = 0.5
TEST_SECONDS = 600.0
BATCH_BYTES = 32_000_000
TOO_LARGE = 413
KNOWN = {True: "yes", False: "no", None: "-"}
"""Texts for whether an image is like the validation images; empty without a calibration."""


def curves(
    experiment_id: options.Id,
    output: options.Output = None,
    compare: Annotated[str | None, typer.Option(help="Numbers of experiments to overlay: 7,9")] = None,
    x: Annotated[str, typer.Option("--x", help="epoch or seconds.")] = "epoch",
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Save loss and accuracy curves as a picture."""
    path = picture_path(output, f"curves-{experiment_id}.png")
    client = options.connect(url, api_key, data_dir)
    picture = client.get_bytes(f"/experiments/{experiment_id}/curves{path.suffix}", x=x, compare=compare)
    save(path, picture)


def kernels(
    experiment_id: options.Id,
    output: options.Output = None,
    layer: Annotated[str | None, typer.Option(help="A convolution's name; the first one if not given.")] = None,
    epoch: Annotated[str | None, typer.Option(help="best, last or a number.")] = None,
    scaling: Annotated[str | None, typer.Option(help="layer: one scale for all; kernel: each its own.")] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Save a convolution's kernels as a picture."""
    path = picture_path(output, f"kernels-{experiment_id}.png")
    client = options.connect(url, api_key, data_dir)
    address = f"/experiments/{experiment_id}/kernels{path.suffix}"
    save(path, client.get_bytes(address, layer=layer, epoch=epoch, scaling=scaling))


def classify(
    context: typer.Context,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID|MODEL] FILE...", help="Images, after the number of an experiment or the name of a model."
        ),
    ],
    table_path: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            parser=options.read_path,
            help="Write predictions for a folder's images, nested folders included, to a CSV file, or continue one.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=1000, help="Labels an image.")] = 3,
    weights: Annotated[str | None, typer.Option(help="best or last.")] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Classify images with an experiment's network or a served model: epochal classify 3 cat.jpg"""
    names = list(arguments)
    by = names.pop(0) if _names_weights(names) else None
    if by is not None and not by.isdecimal() and weights is not None:
        raise typer.BadParameter("a model's version says which weights", param_hint="--weights")
    if table_path is not None and len(names) == 1 and not Path(names[0]).exists():
        raise typer.BadParameter(f"there is no folder {visible(names[0])}", param_hint="FILE")
    if table_path is not None and (len(names) != 1 or not Path(names[0]).is_dir()):
        raise typer.BadParameter("needs exactly one folder of images", param_hint="--csv")
    files = [] if table_path is not None else [file for name in names for file in _images_at(Path(name))]
    if not files and table_path is None:
        raise typer.BadParameter("name at least one image", param_hint="FILE")
    if table_path is not None:
        from service.cli.predicting import PredictingProcess

        with context.obj or PredictingProcess() as predicting:  # epochal_command.py has started one
            client = options.connect(url, api_key, data_dir)
            address = _weights_address(client, by)
            classify_folder(client, address, predicting, Path(names[0]), table_path, top_k=top_k, weights=weights)
        return
    client = options.connect(url, api_key, data_dir)
    address = _weights_address(client, by)
    found = _classify_all(client, f"{address}/predictions", files, top_k=top_k, weights=weights)
    if Mode.json:
        print_json(found)
        return
    rows = [
        (
            shown(file.name) if rank == 0 else "",
            shown(label["label"]),
            figure(label["probability"]),
            figure(label["calibrated_probability"]),
            KNOWN[prediction["known"]] if rank == 0 else "",
        )
        for file, prediction in zip(files, found["predictions"], strict=True)
        for rank, label in enumerate(prediction["top"])
    ]
    columns = ("image", "label", "probability", "calibrated", "known")
    table(columns, rows, right=("probability", "calibrated"))


def _weights_address(client: "Client", by: str | None) -> str:
    """The address of an experiment or a model; of the newest experiment that has completed where none is named."""
    if by is not None and not by.isdecimal():
        return address_of(by)
    return f"/experiments/{int(by) if by else _newest_completed(client)}"


def _names_weights(arguments: list[str]) -> bool:
    """Whether the first argument is an experiment's number or, if images follow it, a model's name, and not a file."""
    first = arguments[0]
    if Path(first).exists():
        return False
    is_name = NAME.fullmatch(first) is not None and Path(first).suffix.lower() not in IMAGE_SUFFIXES
    return first.isdecimal() or (is_name and len(arguments) > 1)


def _images_at(path: Path) -> list[Path]:
    """A file, or the images of a folder in the order of their names."""
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        if not found:
            raise typer.BadParameter(f"the folder {visible(path)} holds no images", param_hint="FILE")
        return found
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {visible(path)}", param_hint="FILE")
    return [path]


def _classify_all(client: "Client", address: str, files: list[Path], **params: Any) -> dict[str, Any]:
    """Classify all files, in as many requests as the lab's limits require, and merge the answers."""
    from service.cli.client import Problem

    waiting, answered = _batches(files), []
    while waiting:
        batch = waiting.pop(0)
        try:
            answered.append(with_retries(partial(client.post_images, address, batch, **params)))
        except Problem as problem:
            if problem.status != TOO_LARGE or len(batch) == 1:
                raise _of_all(problem, batch, sum(len(answer["predictions"]) for answer in answered)) from problem
            waiting[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    for member in ("version", "epoch"):
        found = {answer.get(member) for answer in answered}
        if len(found) > 1:
            raise EpochalError(
                f"the weights changed between two requests: they were of the {member}s "
                f"{', '.join(sorted(map(str, found)))}",
                fix="Classify again, or wait until the experiment has ended.",
            )
    predictions = [prediction for answer in answered for prediction in answer["predictions"]]
    for index, prediction in enumerate(predictions):
        prediction["index"] = index
    return {**answered[0], "predictions": predictions}


def _of_all(problem: "Problem", batch: list[Path], num_before: int) -> "Problem":
    """A problem with an image of a batch, with the file's path for its number and its place among all files."""
    from service.cli.client import Problem

    document = problem.document
    match document.get("index"):
        case int(index) if 0 <= index < len(batch):
            named = f"image {index + 1}, '{document.get('image')}', "
            detail = problem.detail.replace(named, f"{visible(batch[index])} ", 1)
            return Problem({**document, "detail": detail, "index": num_before + index})
    return problem


def _batches(files: list[Path]) -> list[list[Path]]:
    """Files in order, in groups that one request can carry."""
    from service.http.uploads import MAX_IMAGES

    batches: list[list[Path]] = []
    room = 0
    for file in files:
        size = file.stat().st_size
        if not batches or len(batches[-1]) == MAX_IMAGES or size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(file)
        room -= size
    return batches


def lr_test(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A YAML or JSON file, or a preset's name.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field: optimizer.lr=0.1")
    ] = None,
    lr_min: Annotated[float | None, typer.Option("--min", help="Lowest rate.")] = None,
    lr_max: Annotated[float | None, typer.Option("--max", help="Highest rate.")] = None,
    output: options.Output = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Find a learning rate: the loss over a sweep of rates, and a suggestion."""
    from service.cli.body import read_body

    path = picture_path(output, "lr-test.png")
    client = options.connect(url, api_key, data_dir)
    limits = {"lr_min": lr_min, "lr_max": lr_max}
    body = {
        **read_body(spec, changes or [], client),
        **{name: value for name, value in limits.items() if value is not None},
    }
    started = client.post("/learning-rate-tests", body)
    address = f"/learning-rate-tests/{started['id']}"
    result = _await_test(client, address)
    picture = client.get_bytes(f"{address}/curve{path.suffix}")
    if Mode.json:
        print_json(result)
    suggestion = (result.get("result") or result).get("suggestion") or {}
    if suggestion.get("lr") is not None:
        say(f"suggested learning rate: {suggestion['lr']:.3g}", style="bold")
    if suggestion.get("why"):
        say(str(suggestion["why"]))
    save(path, picture, report=not Mode.json)


def lr_tests(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List learning-rate tests, the newest first."""
    page = options.connect(url, api_key, data_dir).get("/learning-rate-tests", limit=limit)
    if Mode.json:
        print_json(page)
        return
    if not page["items"]:
        say("no learning-rate tests; run one with `epochal lr-test baseline`")
        return
    rows = [_test_row(item) for item in page["items"]]
    table(("id", "status", "model", "dataset", "from", "to", "suggested", "created", "why"), rows, right=("id",))
    if page["next"]:
        say(f"there are {page['total']:,}; --limit {min(200, limit * 2)} shows more")


def _test_row(item: dict[str, Any]) -> tuple[str, ...]:
    found = item["suggestion"] or {}
    lowest, highest = (item["options"].get(name) for name in ("lr_min", "lr_max"))
    return (
        str(item["id"]),
        shown(item["status"]),
        shown(item["model"]),
        shown(item["dataset"]),
        *("-" if rate is None else f"{rate:.3g}" for rate in (lowest, highest, found.get("lr"))),
        age(item["created_at"]),
        shown(item["reason"] or found.get("why") or ""),
    )


def _await_test(client: Any, address: str) -> dict[str, Any]:
    deadline = time.monotonic() + TEST_SECONDS
    with console.status("testing learning rates"):
        while True:
            found: dict[str, Any] = client.get(address)
            if found["status"] == "completed":
                return found
            if found["status"] == "failed":
                raise EpochalError(str(found.get("reason") or "no reason given"), fix="The worker's log may say more.")
            if time.monotonic() > deadline:
                raise EpochalError(f"no result within {TEST_SECONDS:g} s", fix="Check that a worker is running.")
            time.sleep(POLL_SECONDS)


def _newest_completed(client: Any) -> int:
    found = client.get("/experiments", status="completed", limit=1)["items"]
    if not found:
        raise EpochalError("no experiment has completed yet", fix="Train one: epochal submit baseline --watch")
    say(f"with experiment {found[0]['id']}, {found[0]['model']}")
    return int(found[0]["id"])


def picture_path(output: Path | None, default: str) -> Path:
    """Return the path of a picture: `output` or, without it, `default`. Refuses formats other than PNG and SVG."""
    path = output or Path(default)
    if path.suffix not in PICTURE_SUFFIXES:
        raise typer.BadParameter(f"{visible(path)} must end in .png or .svg", param_hint="--output")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {visible(path.parent)}", param_hint="--output")
    return path


def save(path: Path, data: bytes, *, report: bool = True) -> None:
    """Write a picture and print its path."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise EpochalError(f"{path} cannot be written: {error.strerror}", fix="Choose another path with -o.") from error
    if Mode.json and report:
        print_json({"file": str(path), "bytes": len(data)})
    say(f"saved {path} ({len(data):,} bytes)")
