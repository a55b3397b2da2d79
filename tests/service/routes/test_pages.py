"""Pages hold what they should, whatever experiments are called."""

import pytest
from starlette.testclient import TestClient

from models.store import Status, runs
from models.store.states import ArtifactKind
from tests.service.lab_of_one import NAN, Filled, epoch

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
NASTY = "<script>alert(1)</script>\"'&\u202e\x00{{ 7*7 }}"


@pytest.fixture
def many(filled: Filled) -> list[int]:
    """Experiments in every state, with names and reasons that want to be code."""
    found = [filled.add(name=NASTY, tags=[NASTY[:60]])]
    for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.DIVERGED):
        claim = filled.start(filled.add(name=status.value))
        filled.append(claim, [epoch(1, val_loss=NAN, val_accuracy=NAN), epoch(2), epoch(3, val_accuracy=0.6)])
        finding = {"code": "c", "severity": "problem", "sentence": NASTY, "suggestion": NASTY, "evidence": {}}
        filled.judge(claim, {"summary": NASTY, "findings": [finding]})
        filled.settle(claim, status, NASTY)
        found.append(claim.experiment_id)
    claim = filled.start(filled.add())
    with filled.store.writing() as session:
        runs.renew(session, claim, {"epoch": 2, "epochs": 3, "step": 1, "steps": 4, "seconds_left": 61.0})
    filled.append(claim, [epoch(1)])
    return [*found, claim.experiment_id]


def test_the_list_shows_every_state(client: TestClient, many: list[int]) -> None:
    page = client.get("/", headers=HTML)
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for status in Status:
        assert f'class="status {status.value}"' in page.text
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "epoch 2 of 3" in page.text
    assert page.text.count('class="spark"') == 5
    only = client.get("/?status=failed&sort=val_accuracy.best", headers=HTML).text
    assert 'class="status failed"' in only
    assert 'class="status completed"' not in only


def test_each_experiment_has_a_page(client: TestClient, filled: Filled, many: list[int]) -> None:
    for identifier in many:
        page = client.get(f"/experiments/{identifier}", headers=HTML)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert f'data-experiment="{identifier}"' in page.text
    assert "Run again" in client.get(f"/experiments/{many[1]}").text
    assert "Cancel" in client.get(f"/experiments/{many[-1]}").text
    assert f"compare={many[2]}" in client.get(f"/experiments/{many[1]}?compare={many[2]}").text


def test_an_empty_lab_says_how_to_begin(client: TestClient) -> None:
    assert "New experiment" in client.get("/", headers=HTML).text


def test_long_lists_have_pages(client: TestClient, filled: Filled) -> None:
    for number in range(30):
        filled.add(name=f"experiment-{number}")
    first = client.get("/?sort=created", headers=HTML).text
    assert "Older ones" in first
    address = first.split('href="?')[1].split('"')[0].replace("&amp;", "&")
    second = client.get(f"/?{address}", headers=HTML).text
    assert "experiment-0" in second
    assert "Older ones" not in second


def test_form_and_reference(client: TestClient) -> None:
    form = client.get("/new", headers=HTML).text
    assert "lab-report/6e" in form
    assert "model: baseline" in form
    reference = client.get("/docs", headers=HTML).text
    assert "/api/v1/experiments/{experiment_id}/predictions" in reference
    assert 'id="unreadable-image"' in reference
    assert "cdn" not in reference.lower()


def test_errors_are_pages_for_browsers_and_problems_for_programs(client: TestClient) -> None:
    for path in ("/experiments/999", "/nothing", "/experiments/x"):
        assert client.get(path, headers=HTML).headers["content-type"].startswith("text/html")
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    api = client.get("/api/v1/experiments/999", headers=HTML)
    assert api.headers["content-type"] == "application/problem+json"


def test_static_files(client: TestClient) -> None:
    for name, kind in (("epochal.css", "text/css"), ("epochal.js", "javascript"), ("icon.svg", "image/svg+xml")):
        answer = client.get(f"/static/{name}")
        assert kind in answer.headers["content-type"]
    for path in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "%2e%2e%2f%2e%2e%2fpyproject.toml", "%00", "a" * 3000):
        assert client.get(f"/static/{path}").status_code == 404


def test_kernels_and_weights_are_offered_when_they_are_there(client: TestClient, filled: Filled) -> None:
    import numpy as np

    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    assert "There are no weights yet" in client.get(f"/experiments/{claim.experiment_id}").text
    filled.keep(claim, ArtifactKind.KERNELS, {"kernels": np.zeros((1, 4, 3, 5, 5), np.float32)}, {})
    filled.keep(claim, ArtifactKind.WEIGHTS_BEST, {"x": np.zeros(1, np.float32)}, {})
    page = client.get(f"/experiments/{claim.experiment_id}").text
    assert 'id="kernels"' in page
    assert "data-predict" in page
