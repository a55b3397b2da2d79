"""Commands that explain the prediction of one image, or export a network: explain, feature-maps, timeline, export."""

from pathlib import Path
from typing import Annotated

import typer

from models.errors import EpochalError
from service.cli import options
from service.cli.models import address_of
from service.cli.output import Mode, print_json, say
from service.cli.pictures import picture_path, save
from service.cli.visible import visible

Image = Annotated[Path, typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="An image file.")]
Weights = Annotated[str, typer.Option(help="best or last.")]
Target = Annotated[str | None, typer.Option(help="A class, by name or number; the predicted one if not given.")]


def explain(
    experiment_id: options.Id,
    image: Image,
    output: options.Output = None,
    method: Annotated[str, typer.Option(help="occlusion, grad_cam or integrated_gradients.")] = "occlusion",
    target: Target = None,
    weights: Weights = "best",
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Save a picture of the pixels that a prediction depends on: epochal explain 3 cat.jpg"""
    path = picture_path(output, f"explanation-{experiment_id}.png")
    client = options.connect(url, api_key, data_dir)
    chosen = {"method": method, "target": target, "weights": weights, "format": path.suffix[1:]}
    save(path, client.post_for_picture(f"/experiments/{experiment_id}/explanations", image, **chosen))


def feature_maps(
    experiment_id: options.Id,
    image: Image,
    output: options.Output = None,
    layer: Annotated[str | None, typer.Option(help="A layer's name or number; the first convolution.")] = None,
    scaling: Annotated[str, typer.Option(help="layer: one scale for all; map: each its own.")] = "layer",
    weights: Weights = "best",
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Save a layer's outputs for an image as a grid: epochal feature-maps 3 cat.jpg --layer features.3"""
    path = picture_path(output, f"feature-maps-{experiment_id}.png")
    client = options.connect(url, api_key, data_dir)
    chosen = {"layer": layer, "scaling": scaling, "weights": weights, "format": path.suffix[1:]}
    save(path, client.post_for_picture(f"/experiments/{experiment_id}/feature_maps", image, **chosen))


def timeline(
    experiment_id: options.Id,
    image: Image,
    output: options.Output = None,
    target: Target = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Save at which epochs an image was learned and forgotten: epochal timeline 3 cat.jpg --target cat"""
    path = picture_path(output, f"timeline-{experiment_id}.png")
    client = options.connect(url, api_key, data_dir)
    chosen = {"target": target, "format": path.suffix[1:]}
    save(path, client.post_for_picture(f"/experiments/{experiment_id}/timeline", image, **chosen))


def export(
    source: Annotated[str, typer.Argument(metavar="ID|NAME", help="An experiment's number, or a model's name.")],
    form: Annotated[str, typer.Option("--format", help="onnx, safetensors or bundle.")] = "onnx",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    weights: Annotated[str | None, typer.Option(help="best or last, of an experiment.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="A version, of a model.")] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Download a trained network: epochal export 3 --format bundle -o cats.zip"""
    by_number = source.isdecimal()
    if by_number and version is not None:
        raise typer.BadParameter("an experiment has no versions", param_hint="--version")
    if not by_number and weights is not None:
        raise typer.BadParameter("a model's version says which weights", param_hint="--weights")
    client = options.connect(url, api_key, data_dir)
    address = f"/experiments/{int(source)}" if by_number else address_of(source)
    name, content = client.download(f"{address}/export", format=form, weights=weights, version=version)
    path = output or Path(name)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise EpochalError(f"{path} cannot be written: {error.strerror}", fix="Choose another path with -o.") from error
    if Mode.json:
        print_json({"file": str(path), "bytes": len(content)})
    say(f"saved {visible(path)} ({len(content):,} bytes)")
