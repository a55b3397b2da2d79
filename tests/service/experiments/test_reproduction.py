"""Two runs of one spec are compared: identical to the bit, within noise, or different."""

import numpy as np
from starlette.testclient import TestClient

from models.curves.agreement import Agreement
from models.curves.metrics import EpochMetrics
from models.store import experiments
from models.store.states import ArtifactKind
from service.experiments.reproduction import compare_runs
from tests.service.lab_of_one import NAN, Filled, epoch


def curve(*accuracies: float) -> list[EpochMetrics]:
    return [epoch(number, val_accuracy=value) for number, value in enumerate(accuracies, 1)]


def test_equal_histories_agree_to_the_bit_whatever_the_clock_said() -> None:
    one = curve(0.3, 0.4, NAN)
    other = [EpochMetrics(*(getattr(e, n) for n in e.__dataclass_fields__)) for e in one]
    found = compare_runs(one, other, same_weights=True)
    assert found["agreement"] == Agreement.BIT_IDENTICAL
    assert found["first_difference"] is None


def test_a_last_digit_is_noise_and_a_gap_is_not() -> None:
    base = [0.3012, 0.4037, 0.4519, 0.4733, 0.4641, 0.4807]
    nudged = compare_runs(curve(*base), curve(*(a + 0.001 for a in base)), same_weights=None)
    assert nudged["agreement"] == Agreement.WITHIN_NOISE
    assert nudged["first_difference"] == 1
    apart = compare_runs(curve(*base), curve(*(a - 0.2 for a in base)), same_weights=None)
    assert apart["agreement"] == Agreement.DIFFERENT


def test_fewer_epochs_are_a_difference() -> None:
    found = compare_runs(curve(0.3, 0.4), curve(0.3), same_weights=None)
    assert found["agreement"] == Agreement.DIFFERENT
    assert "2 epochs and the other 1" in found["sentence"]


def test_other_weights_after_equal_curves_are_not_to_the_bit() -> None:
    found = compare_runs(curve(0.3, 0.4), curve(0.3, 0.4), same_weights=False)
    assert found["agreement"] == Agreement.WITHIN_NOISE


def test_reproducing_and_comparing(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add(name="first"))
    filled.append(claim, curve(0.3, 0.4))
    filled.keep(claim, ArtifactKind.WEIGHTS_LAST, {"w": np.ones(3, np.float32)}, {"of": "the first"})
    filled.settle(claim)
    missing = client.get(f"/api/v1/experiments/{claim.experiment_id}/reproduction")
    assert missing.status_code == 409

    answer = client.post(f"/api/v1/experiments/{claim.experiment_id}/reproduce")
    assert answer.status_code == 202
    again = answer.json()
    assert answer.headers["location"] == f"/api/v1/experiments/{again['id']}"
    assert again["reproduces"] == claim.experiment_id
    assert client.get(f"/api/v1/experiments/{again['id']}/reproduction").json()["agreement"] == "pending"

    second = filled.start(again["id"])
    filled.append(second, curve(0.3, 0.4))
    filled.keep(second, ArtifactKind.WEIGHTS_LAST, {"w": np.ones(3, np.float32)}, {"of": "the second"})
    filled.settle(second)
    for identifier in (claim.experiment_id, again["id"]):
        found = client.get(f"/api/v1/experiments/{identifier}/reproduction").json()
        assert found["agreement"] == "bit-identical"
        assert found["weights_identical"] is True
        assert (found["original"], found["reproduction"]) == (claim.experiment_id, again["id"])
        assert client.get(found["links"]["curves"]).status_code == 200
    with filled.store.reading() as session:
        rows = [experiments.get(session, identifier) for identifier in (claim.experiment_id, again["id"])]
        assert rows[0].spec == rows[1].spec
