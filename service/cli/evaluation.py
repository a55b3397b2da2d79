"""Commands that evaluate the best weights on a split: confusion, mistakes."""

from typing import Annotated

import typer

from service.cli import options
from service.cli.output import Mode, figure, print_json, shown, table
from service.cli.pictures import picture_path, save

SPLIT_HELP = "validation, or test where the experiment had it measured."
Split = Annotated[str, typer.Option(help=SPLIT_HELP)]


def confusion(
    experiment_id: options.Id,
    output: options.Output = None,
    split: Split = "validation",
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the most confused classes, or with -o save the confusion matrix as a picture."""
    client = options.connect(url, api_key, data_dir)
    if output is not None:
        path = picture_path(output, "")
        save(path, client.get_bytes(f"/experiments/{experiment_id}/confusion{path.suffix}", split=split))
        return
    found = client.get(f"/experiments/{experiment_id}/confusion", split=split)
    if Mode.json:
        print_json(found)
        return
    rows = [
        (shown(pair["label"]), shown(pair["predicted"]), str(pair["count"]), f"{100 * pair['share']:.1f}%")
        for pair in found["most_confused"]
    ]
    table(("class", "predicted as", "images", "of the class"), rows, right=("images", "of the class"))


def mistakes(
    experiment_id: options.Id,
    output: options.Output = None,
    split: Split = "validation",
    label: Annotated[str | None, typer.Option(help="Only images of this class.")] = None,
    predicted: Annotated[str | None, typer.Option(help="Only images predicted as this class.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=60, help="How many at most.")] = 24,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the wrong predictions of the highest confidence, or with -o save them as a picture."""
    client = options.connect(url, api_key, data_dir)
    address = f"/experiments/{experiment_id}/mistakes"
    chosen = {"split": split, "label": label, "predicted": predicted, "limit": limit}
    if output is not None:
        path = picture_path(output, "")
        save(path, client.get_bytes(f"{address}{path.suffix}", **chosen))
        return
    found = client.get(address, **chosen)
    if Mode.json:
        print_json(found)
        return
    rows = [
        (str(one["index"]), shown(one["label"]), shown(one["predicted"]), figure(one["probability"]))
        for one in found["mistakes"]
    ]
    table(("image", "class", "predicted as", "probability"), rows, right=("image", "probability"))
