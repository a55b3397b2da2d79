"""Metrics as JSON and CSV, and curves drawn."""

import csv
import io

import pytest
from starlette.testclient import TestClient

from models.store import history
from tests.service.lab_of_one import NAN, Filled, epoch

API = "/api/v1/experiments"
HISTORY = [epoch(1, val_loss=2.0), epoch(2, val_loss=1.5, val_accuracy=0.7), epoch(3, val_loss=NAN, train_loss=NAN)]


@pytest.fixture
def trained(filled: Filled) -> int:
    return filled.trained(HISTORY, name='one, "two"\n=3')


def test_json_counts_from_one_and_writes_null_for_nan(client: TestClient, trained: int) -> None:
    document = client.get(f"{API}/{trained}/metrics").json()
    assert [row["epoch"] for row in document["epochs"]] == [1, 2, 3]
    assert document["epochs"][2]["val_loss"] is None
    assert document["best"]["val_loss"] == {"value": 1.5, "epoch": 2}
    assert document["best"]["val_accuracy"] == {"value": 0.7, "epoch": 2}


def test_each_class_has_its_accuracy_in_every_epoch(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add())
    of_classes = [0.5, None, *[1.0] * 8]
    with filled.store.writing() as session:
        history.append_epoch(session, claim, epoch(1), of_classes)
        history.append_epoch(session, claim, epoch(2))
    document = client.get(f"{API}/{claim.experiment_id}/metrics/classes").json()
    assert document["classes"][:2] == ["airplane", "automobile"]
    assert document["epochs"] == [{"epoch": 1, "accuracy": of_classes}, {"epoch": 2, "accuracy": None}]
    assert client.get(f"{API}/99999/metrics/classes").status_code == 404


@pytest.mark.parametrize(("path", "accept"), [("metrics.csv", "*/*"), ("metrics", "text/csv")])
def test_csv_is_rfc_4180(client: TestClient, trained: int, path: str, accept: str) -> None:
    answer = client.get(f"{API}/{trained}/{path}", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("text/csv")
    lines = answer.text.split("\r\n")
    assert lines[-1] == ""
    assert "\n" not in answer.text.replace("\r\n", "")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert lines[0].startswith("epoch,")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert (rows[0]["val_loss"], rows[2]["val_loss"], rows[2]["train_loss"]) == ("2.0", "", "")


def test_metrics_to_be_had_in_no_such_form(client: TestClient, trained: int) -> None:
    assert client.get(f"{API}/{trained}/metrics", headers={"Accept": "image/png"}).status_code == 406


def test_thinned_curves_keep_what_matters(client: TestClient, filled: Filled) -> None:
    history = [epoch(n, val_loss=1 + ((n * 37) % 100) / 100) for n in range(1, 401)]
    history[211] = epoch(212, val_loss=0.1)
    history[300] = epoch(301, val_loss=NAN)
    identifier = filled.trained(history)
    kept = [row["epoch"] for row in client.get(f"{API}/{identifier}/metrics?points=50").json()["epochs"]]
    assert len(kept) <= 60
    assert {1, 212, 301, 400} <= set(kept)
    rows = client.get(f"{API}/{identifier}/metrics.csv?points=50").text.splitlines()
    assert len(rows) == len(kept) + 1
    assert client.get(f"{API}/{identifier}/metrics?points=1").status_code == 422


def test_pictures_are_sent_once(client: TestClient, filled: Filled, trained: int) -> None:
    for extension, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        answer = client.get(f"{API}/{trained}/curves.{extension}")
        assert answer.status_code == 200
        assert answer.content.startswith(start)
        tag = answer.headers["etag"]
        again = client.get(f"{API}/{trained}/curves.{extension}", headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(f"{API}/{trained}/curves.{extension}?x=seconds").headers["etag"] != tag
        head = client.head(f"{API}/{trained}/curves.{extension}")
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)


def test_a_tag_changes_with_the_curve_and_not_with_progress(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])

    def tag() -> str:
        return client.get(f"{API}/{claim.experiment_id}/metrics.csv").headers["etag"]

    first = tag()
    from models.store import runs

    with filled.store.writing() as session:
        runs.renew(session, claim, {"epoch": 2, "step": 3})
    assert tag() == first
    filled.append(claim, [epoch(2)])
    assert tag() != first


def test_comparing_overlays_others(client: TestClient, filled: Filled, trained: int) -> None:
    other = filled.trained([epoch(1)])
    alone = client.get(f"{API}/{trained}/curves.svg")
    both = client.get(f"{API}/{trained}/curves.svg", params={"compare": str(other)})
    assert both.status_code == 200
    assert both.content != alone.content
    for wrong in ("x", "0", "999", f"{other},", "1;2", ",".join(["1"] * 40), "9" * 30):
        answer = client.get(f"{API}/{trained}/curves.png", params={"compare": wrong})
        assert answer.status_code == 422, wrong
        assert answer.json()["errors"][0]["field"] == "compare"


def test_an_experiment_without_epochs_has_an_empty_picture(client: TestClient, filled: Filled) -> None:
    identifier = filled.add()
    assert client.get(f"{API}/{identifier}/curves.png").status_code == 200
    assert client.get(f"{API}/{identifier}/metrics").json()["epochs"] == []
    assert client.get(f"{API}/{identifier}/metrics.csv").text.count("\r\n") == 1


def test_an_svg_may_style_itself_and_nothing_else(client: TestClient, trained: int) -> None:
    policy = client.get(f"{API}/{trained}/curves.svg").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert client.get(f"{API}/{trained}/curves.gif").status_code == 404
    assert client.get(f"{API}/{trained}/curves.png?y=1").status_code == 422
