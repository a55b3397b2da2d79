"""Which of two experiments has the more stable curves."""

import numpy as np
from starlette.testclient import TestClient

from models.curves.metrics import EpochMetrics
from tests.service.lab_of_one import NAN, Filled, epoch


def wobbling(size: float, epochs: int = 30, seed: int = 0) -> list[EpochMetrics]:
    """A plain learning curve with so much noise on its validation part."""
    noise = np.random.default_rng(seed).normal(0, size, (2, epochs))
    return [
        epoch(
            number,
            val_accuracy=float(0.7 - 0.6 / (number + 1) + noise[0, number - 1]),
            val_loss=float((0.8 + 1.5 / (number + 1)) * np.exp(noise[1, number - 1])),
        )
        for number in range(1, epochs + 1)
    ]


def trained(filled: Filled, history: list[EpochMetrics]) -> int:
    """An experiment with this history, completed."""
    claim = filled.start(filled.add())
    filled.append(claim, history)
    filled.settle(claim)
    return int(claim.experiment_id)


def test_the_calmer_of_two_is_named_by_its_id_from_either_side(client: TestClient, filled: Filled) -> None:
    calm, wild = trained(filled, wobbling(0.003)), trained(filled, wobbling(0.05, seed=1))
    for first, second in ((calm, wild), (wild, calm)):
        found = client.get(f"/api/v1/experiments/{first}/stability?compare={second}").json()
        assert (found["experiment"], found["compared_with"]) == (first, second)
        assert found["more_stable"] == calm
        assert found["confidence"] > 0.99
        assert found["sentence"].startswith(f"Experiment {calm} is the more stable: stability ")
        scores = [figures["score"] for figures in found["stability"]]
        assert abs(found["difference"] - (scores[1] - scores[0])) < 1e-3
        assert client.get(found["links"]["curves"]).status_code == 200


def test_an_experiment_is_not_more_stable_than_itself(client: TestClient, filled: Filled) -> None:
    number = trained(filled, wobbling(0.02))
    found = client.get(f"/api/v1/experiments/{number}/stability?compare={number}").json()
    assert found["more_stable"] is None
    assert found["difference"] == 0


def test_what_is_too_short_to_tell_is_said(client: TestClient, filled: Filled) -> None:
    long, queued = trained(filled, wobbling(0.02)), filled.add()
    found = client.get(f"/api/v1/experiments/{long}/stability?compare={queued}").json()
    assert found["more_stable"] is found["difference"] is found["confidence"] is found["stability"][1] is None
    assert found["sentence"] == (
        f"Experiment {queued} has fewer than four epochs, too few to measure how stable it is."
    )


def test_a_run_that_diverged_has_no_stability_to_speak_of(client: TestClient, filled: Filled) -> None:
    history = wobbling(0.01, 8)
    ended = [*history[:2], *(epoch(number, train_loss=NAN, val_loss=NAN, val_accuracy=0.1) for number in range(3, 9))]
    calm, broken = trained(filled, history), trained(filled, ended)
    found = client.get(f"/api/v1/experiments/{broken}/stability?compare={calm}").json()
    assert found["stability"][0]["score"] == 0
    assert found["more_stable"] == calm


def test_what_cannot_be_compared_is_named(client: TestClient, filled: Filled) -> None:
    number = trained(filled, wobbling(0.02))
    assert client.get(f"/api/v1/experiments/999/stability?compare={number}").status_code == 404
    for query in ("", "?compare=999", "?compare=x", "?compare=0", "?compare=1.5"):
        answer = client.get(f"/api/v1/experiments/{number}/stability{query}")
        assert answer.status_code == 422
        assert "compare" in str(answer.json()["errors"][0]["field"])
