"""Small experiments for the running lab, and waiting for what becomes of them."""

from typing import Any

from service.cli.client import Client
from service.cli.watching import TERMINAL
from tests.processes import wait_until


def small_spec(**changes: Any) -> dict[str, Any]:
    """A real experiment of 24 steps: baseline on a part of CIFAR-10."""
    spec = {
        "name": "small",
        "dataset": {"name": "cifar10", "train_limit": 400, "val_limit": 100},
        "model": "baseline",
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
        "epochs": 3,
        "batch_size": 50,
        "seed": 1,
    }
    return {**spec, **changes}


def long_spec(**changes: Any) -> dict[str, Any]:
    """One that goes on until somebody cancels it, an epoch a second or so."""
    images = {"name": "cifar10", "train_limit": 1000, "val_limit": 500}
    return small_spec(name="long", epochs=2000, dataset=images, **changes)


def epochs_done(client: Client, experiment_id: int) -> int:
    """How many epochs are stored."""
    return len(client.get(f"/experiments/{experiment_id}/metrics")["epochs"])


def wait_until_ended(client: Client, experiment_id: int, seconds: float = 100.0) -> dict[str, Any]:
    """The experiment once it is terminal."""

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/experiments/{experiment_id}")
        return found if found["status"] in TERMINAL else None

    return wait_until(ended, seconds, f"the end of experiment {experiment_id}")


def wait_for_epochs(client: Client, experiment_id: int, number: int) -> None:
    """Until so many epochs are stored."""
    what = f"{number} epochs of experiment {experiment_id}"
    wait_until(lambda: epochs_done(client, experiment_id) >= number, 100.0, what)
