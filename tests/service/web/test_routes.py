"""Pages show what they should, whatever experiments' names hold."""

import html
import re

import pytest
from starlette.testclient import TestClient

from models.store import Status, runs
from models.store.states import ArtifactKind
from service.curves.draw import MAX_RUNS
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


def chips_of(page: str) -> dict[str, tuple[int, str]]:
    """Status to count and address."""
    found = re.findall(r'<a class="chip \w+" href="([^"]*)"[^>]*>(\w+) <b>(\d+)</b>', page)
    return {name: (int(number), html.unescape(address)) for address, name, number in found}


def test_chips_count_what_the_filters_show_and_keep_them(client: TestClient, filled: Filled) -> None:
    filled.add(tags=["x & y"])
    filled.trained([epoch(1)], tags=["x & y"])
    filled.trained([epoch(1)], model="wide")
    assert {name: count for name, (count, _) in chips_of(client.get("/").text).items()} == {
        "all": 3, "queued": 1, "completed": 2,
    }  # fmt: skip
    page = client.get("/", params={"tag": "x & y", "sort": "val_loss.best"}).text
    chips = chips_of(page)
    assert {name: count for name, (count, _) in chips.items()} == {"all": 2, "queued": 1, "completed": 1}
    for name, (count, address) in chips.items():
        there = client.get(address).text
        assert there.count('<td class="pick">') == count, name
        assert 'value="val_loss.best" selected' in there
    assert 'aria-label="Remove the filter tag: x &amp; y"' in page
    both = client.get("/?model=wide&status=queued").text
    assert chips_of(both) == {"all": (1, "/?model=wide"), "queued": (0, "/?status=queued&model=wide"),
                              "completed": (1, "/?status=completed&model=wide")}  # fmt: skip
    assert "Show all" in both


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.DIVERGED, Status.COMPLETED])
def test_nothing_is_still_to_come_of_what_has_ended(client: TestClient, filled: Filled, status: Status) -> None:
    claim = filled.start(filled.add())
    filled.settle(claim, status)
    number, api = claim.experiment_id, f"/api/v1/experiments/{claim.experiment_id}"
    shown = [client.get(path, headers=HTML).text for path in ("/", f"/experiments/{number}")]
    shown += [client.get(api + part).text for part in ("/verdict", "/kernels.png", "/kernels.json")]
    assert not [text for text in shown if re.search(r"\byet\b", text)]
    filled.add()
    assert "no epoch yet" in client.get("/?status=queued").text


def test_one_epoch_is_not_several(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add(epochs=1))
    filled.append(claim, [epoch(1)])
    filled.settle(claim)
    page = client.get(f"/experiments/{claim.experiment_id}").text
    assert "1 epoch, batch" in page
    assert "1 epoch in 2.0 s" in page
    assert ">1 experiment<" in client.get("/").text


def test_a_comparison_that_cannot_be_drawn_says_why(client: TestClient, filled: Filled) -> None:
    numbers = [filled.trained([epoch(1)]) for _ in range(MAX_RUNS + 1)]
    page = f"/experiments/{numbers[0]}?compare="
    for compare, why in (
        (",".join(map(str, numbers[1:])), f"names {MAX_RUNS} experiments"),
        ("99", "there is no experiment 99"),
        ("x", "is not an experiment"),
    ):
        shown = client.get(page + compare, headers=HTML).text
        assert why in shown
        assert f"compare={compare}" not in shown
    most = ",".join(map(str, numbers[1:MAX_RUNS]))
    assert "cannot be drawn" not in client.get(page + most, headers=HTML).text
    assert f'data-most="{MAX_RUNS}"' in client.get("/").text
    waiting = filled.add()  # has no curves of its own yet
    assert 'id="curves"' in client.get(f"/experiments/{waiting}?compare={most}").text


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/new/?preset=wide", "/new?preset=wide"),
        ("/docs/", "/docs"),
        ("/experiments/1/", "/experiments/1"),
        ("//new", "/new"),
        ("/new//", "/new"),
        ("//", "/"),
    ],
)
def test_a_slash_too_many_leads_to_the_page(client: TestClient, path: str, address: str) -> None:
    answer = client.get(f"http://127.0.0.1{path}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, address)


@pytest.mark.parametrize(
    ("method", "path", "address"),
    [
        ("GET", "/api/v1/experiments/", "/api/v1/experiments"),
        ("POST", "/api/v1/experiments/", "/api/v1/experiments"),
        ("GET", "/api/v1//experiments/1", "/api/v1/experiments/1"),
        ("DELETE", "/api/v1/experiments/1/", "/api/v1/experiments/1"),
        ("GET", "/experiments/1/metrics.csv", "/api/v1/experiments/1/metrics.csv"),
        ("POST", "/learning-rate-tests", "/api/v1/learning-rate-tests"),
        ("POST", "/login/", "/login"),
    ],
)
def test_an_address_that_is_almost_right_is_told_the_right_one(
    client: TestClient, method: str, path: str, address: str
) -> None:
    answer = client.request(method, path, follow_redirects=False)
    assert (answer.status_code, answer.json()["fix"]) == (404, f"use {address}")


@pytest.mark.parametrize("path", ["/nothing/", "//evil.example/", "/api/v1/experiments/x", "/experiments/x/y/"])
def test_what_is_nowhere_leads_nowhere(client: TestClient, path: str) -> None:
    answer = client.get(f"http://127.0.0.1{path}", follow_redirects=False)
    assert (answer.status_code, answer.json()["fix"]) == (404, "GET /docs lists every address")
