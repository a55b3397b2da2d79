"""Command `epochal demo`: one complete run on real images, over HTTP, with its own lab in demo/lab."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.errors import EpochalError
from service.cli.output import console, figure, shown, table

if TYPE_CHECKING:
    from models.settings import Settings
    from service.cli.client import Client

DATASET = "cifar10"
SPEC: dict[str, Any] = {
    "name": "demo: baseline",
    "tags": ["demo"],
    "dataset": {"name": DATASET, "val_fraction": 0.2, "split_seed": 0},
    "model": "baseline",
    "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
    "lr_scheduler": {"name": "exponential", "gamma": 0.8},
    "epochs": 6,
    "batch_size": 32,
    "seed": 0,
}
TEST_IMAGES = (0, 1, 4)  # a cat, a ship and a frog of the test split, which no training sees


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for pictures, predictions and the demo's lab.")] = Path("demo"),
    again: Annotated[bool, typer.Option("--again", help="Train again, even if an earlier demo did.")] = False,
) -> None:
    """Train a small network on CIFAR-10 over HTTP and save its curves, kernels and three predictions."""
    from models.data.catalogue import get_dataset
    from models.settings import read_settings
    from service.cli.fetching import fetch_with_bar
    from service.cli.running import stop_on_signals
    from service.lab.lab import Lab, LabStopped

    started = time.monotonic()
    settings = read_settings(data_dir=folder / "lab", host="127.0.0.1", port=0, workers=1, auth=False)
    settings = settings.model_copy(update={"broker_url": None, "database_url": None})
    folder.mkdir(parents=True, exist_ok=True)
    fetch_with_bar(get_dataset(DATASET), settings.cache_dir)
    lab = Lab(settings, say=lambda text: console.print(f"[yellow]{shown(text)}[/]"))
    stop_on_signals(lab, interrupt=True)
    try:
        with console.status("starting the lab: broker, API, one worker"):
            lab.start()
        console.print(f"the lab is at [cyan]{lab.url}[/] (broker, API, one worker)")
        experiment = _train(lab.url, again)
        _save_results(lab.url, experiment, folder, lab.settings)
        _summarise(lab.url, experiment, folder, time.monotonic() - started)
    except (LabStopped, KeyboardInterrupt):
        console.print("interrupted; the next demo continues from here")
        raise typer.Exit(130) from None
    finally:
        lab.stop()
    console.print("the lab is stopped")


def _train(url: str, again: bool) -> dict[str, Any]:
    """POST the experiment and follow it. Its Idempotency-Key is fixed, so an earlier demo's is continued."""
    from service.cli.client import Client
    from service.cli.watching import TERMINAL, say_outcome, watch

    client = Client(url)
    fresh = f"-{time.time_ns()}" if again else ""
    experiment = _post(client, f"demo{fresh}")
    if experiment["status"] in TERMINAL - {"completed"}:
        experiment = _post(client, f"demo-{time.time_ns()}")
    if experiment["status"] == "completed":
        console.print(f"experiment {experiment['id']} was trained by an earlier demo; --again trains it again")
    else:
        console.print(f"POST /api/v1/experiments: experiment {experiment['id']} is {experiment['status']}")
        experiment = watch(client, experiment["id"])
    say_outcome(experiment)
    if experiment["status"] != "completed":
        raise EpochalError(
            f"experiment {experiment['id']} {experiment['status']}: {experiment.get('reason') or 'no reason given'}",
            fix="The worker's log is in demo/lab/logs.",
        )
    return experiment


def _post(client: "Client", key: str) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(SPEC).encode()).hexdigest()[
        :12
    ]  # a demo with another spec is another experiment
    posted = client.post("/experiments", SPEC, headers={"Idempotency-Key": f"{key}-{digest}"})
    experiment: dict[str, Any] = client.get(f"/experiments/{posted['id']}")
    return experiment


def _save_results(url: str, experiment: dict[str, Any], folder: Path, settings: "Settings") -> None:
    """GET the pictures, and send three images of the test split."""
    from service.cli.client import Client

    client, address = Client(url), f"/experiments/{experiment['id']}"
    files = _save_test_images(folder, settings)
    results: dict[str, Callable[[], bytes]] = {
        "curves.png": lambda: client.get_bytes(f"{address}/curves.png"),
        "kernels.png": lambda: client.get_bytes(f"{address}/kernels.png"),
        "predictions.json": lambda: _as_text(client.post_images(f"{address}/predictions", files, top_k=3)),
    }
    for name, fetch in results.items():
        (folder / name).write_bytes(fetch())


def _save_test_images(folder: Path, settings: "Settings") -> list[Path]:
    from PIL import Image

    from models.data.dataset import load_dataset

    dataset = load_dataset(DATASET, settings)
    files = []
    for index in TEST_IMAGES:
        label = dataset.info.class_names[int(dataset.test_labels[index])]
        file = folder / f"test-{index}-{label}.png"
        Image.fromarray(dataset.test_images[index].transpose(1, 2, 0)).save(file)
        files.append(file)
    return files


def _as_text(document: Any) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _summarise(url: str, experiment: dict[str, Any], folder: Path, seconds: float) -> None:
    predictions = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))["predictions"]
    rows = []
    for index, prediction in zip(TEST_IMAGES, predictions, strict=True):
        top = prediction["top"][0]
        file = next(folder.glob(f"test-{index}-*.png"))
        rows.append((shown(file.name), shown(top["label"]), figure(top["probability"], 2)))
    table(("test image", "predicted", "probability"), rows, right=("probability",))
    console.print(f"saved {folder}/curves.png, {folder}/kernels.png, {folder}/predictions.json in {seconds:.0f} s")
    console.print(f"its page: [cyan]{url}/experiments/{experiment['id']}[/], until the lab stops in a moment;")
    console.print(f"to look at it again: [bold]epochal up --data-dir {folder}/lab[/]")
