"""Cached answers: the same bytes as fresh ones, and never older than the database."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.store import keys, runs
from models.store.stamps import Stamps
from models.store.states import Role
from service.experiments import routes as experiments
from service.http import caching
from service.http.access import ANONYMOUS, Caller
from service.http.caching import Caching, cached_routes
from tests.service.lab_of_one import Filled, client_of, epoch

API = "/api/v1/experiments"
PARTS = ["", "/metrics", "/metrics.csv", "/metrics?points=2", "/curves.png", "/curves.svg?x=seconds"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the answers that had to be made."""
    paths: list[str] = []
    make = Caching._make

    async def counting(self: Any, key: Any, stamp: int, scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await make(self, key, stamp, scope, receive, send)

    monkeypatch.setattr(Caching, "_make", counting)
    return paths


@pytest.mark.parametrize("part", PARTS)
def test_an_answer_is_made_once_and_is_the_same_when_asked_again(
    client: TestClient, filled: Filled, made: list[str], part: str
) -> None:
    number = filled.trained([epoch(1), epoch(2)])
    first, second = (client.get(f"{API}/{number}{part}") for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert first.headers == second.headers
    assert len(made) == 1


def test_lists_are_kept_until_anything_changes(client: TestClient, filled: Filled, made: list[str]) -> None:
    filled.add()
    assert client.get(API).json()["total"] == client.get(API).json()["total"] == 1
    assert len(made) == 1
    filled.add(name="another")
    assert [item["name"] for item in client.get(API).json()["items"]][:1] == ["another"]
    assert client.get(API, params={"limit": 1}).json()["items"] == client.get(API).json()["items"][:1]


def test_a_long_address_is_kept_and_followed_like_a_short_one(
    client: TestClient, filled: Filled, made: list[str]
) -> None:
    word = "x" * caching.MAX_ADDRESS_LENGTH

    def found() -> int:
        total: int = client.get(API, params={"search": word}).json()["total"]
        return total

    assert found() == found() == 0
    assert len(made) == 1
    filled.add(name=word)
    assert found() == 1


def test_a_list_is_kept_while_only_experiments_beyond_its_page_make_progress(
    client: TestClient, filled: Filled, made: list[str]
) -> None:
    claim = filled.start(filled.add(name="below"))
    filled.add(name="above")

    def first() -> dict[str, Any]:
        page = client.get(API, params={"limit": 1, "sort": "name", "order": "asc"}).json()
        return {"name": page["items"][0]["name"], "total": page["total"], **page["items"][0]["best"]}

    assert first() == {"name": "above", "total": 2}
    made.clear()
    for step in (1, 2):
        with filled.store.writing() as session:
            runs.renew(session, claim, {"epoch": 1, "step": step})
        assert first() == {"name": "above", "total": 2}
    assert made == []
    filled.add(name="a third")
    assert first() == {"name": "a third", "total": 3}


def test_a_list_follows_epochs_that_reorder_it_and_experiments_that_are_deleted(
    client: TestClient, filled: Filled
) -> None:
    leader = filled.trained([epoch(1, val_accuracy=0.6)])
    claim = filled.start(filled.add())

    def page() -> tuple[int, int]:
        found = client.get(API, params={"limit": 1, "sort": "val_accuracy.best"}).json()
        return found["items"][0]["id"], found["total"]

    assert page() == page() == (leader, 2)
    filled.append(claim, [epoch(1, val_accuracy=0.7)])
    assert page() == page() == (claim.experiment_id, 2)
    third = filled.trained([epoch(1, val_accuracy=0.1)])
    assert page() == (claim.experiment_id, 3)
    assert client.delete(f"{API}/{third}").status_code == 204
    assert page() == (claim.experiment_id, 2)
    filled.trained([epoch(1, val_accuracy=0.2)])
    assert page() == (claim.experiment_id, 3)


@pytest.mark.parametrize("part", ["", "/metrics", "/metrics.csv", "/curves.png", "/verdict"])
def test_a_change_is_seen_at_once(client: TestClient, filled: Filled, part: str) -> None:
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    filled.judge(claim, {"summary": "one epoch", "findings": []})
    path = f"{API}/{claim.experiment_id}{part}"
    before = client.get(path).content
    assert client.get(path).content == before
    filled.append(claim, [epoch(2, val_loss=0.5)])
    filled.judge(claim, {"summary": "two epochs", "findings": []})
    assert client.get(path).content != before


def test_progress_is_a_change(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add())
    path = f"{API}/{claim.experiment_id}"
    for step in (1, 2):
        with filled.store.writing() as session:
            runs.renew(session, claim, {"epoch": 1, "step": step})
        assert client.get(path).json()["progress"]["step"] == step
        assert client.get(f"{path}/metrics").json()["epochs"] == []
        assert client.get(API).json()["items"][0]["progress"]["step"] == step


def test_a_deleted_experiment_is_gone_and_its_copies_have_lost_their_original(
    client: TestClient, filled: Filled
) -> None:
    original = filled.trained([epoch(1)])
    copy = client.post(f"{API}/{original}/reproduce").json()
    for _ in range(2):
        assert client.get(f"{API}/{copy['id']}").json()["reproduces"] == original
        assert client.get(API).json()["items"][0]["reproduces"] == original
    assert client.delete(f"{API}/{original}").status_code == 204
    assert client.get(f"{API}/{original}").status_code == 404
    assert client.get(f"{API}/{copy['id']}").json()["reproduces"] is None
    assert client.get(API).json()["items"][0]["reproduces"] is None


@pytest.mark.parametrize("word", ["compare", "%63ompare", "c%6Fmpare"])
def test_what_is_compared_changes_with_each_of_both(client: TestClient, filled: Filled, word: str) -> None:
    first, claim = filled.trained([epoch(1)]), filled.start(filled.add())
    filled.append(claim, [epoch(1, val_loss=0.7)])
    path = f"{API}/{first}/curves.png?{word}={claim.experiment_id}"
    before = client.get(path).content
    filled.append(claim, [epoch(2, val_loss=0.1)])
    assert client.get(path).content != before


def test_a_client_that_has_it_is_told_so(client: TestClient, filled: Filled) -> None:
    path = f"{API}/{filled.trained([epoch(1)])}/curves.png"
    tag = client.get(path).headers["etag"]
    for _ in range(2):  # made, and kept
        again = client.get(path, headers={"If-None-Match": tag})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == tag
        assert "content-type" not in again.headers
        assert client.get(path, headers={"If-None-Match": 'W/"other"'}).status_code == 200


def test_forms_are_kept_apart_and_head_has_no_body(client: TestClient, filled: Filled) -> None:
    path = f"{API}/{filled.trained([epoch(1)])}/metrics"
    for _ in range(2):
        assert client.get(path, headers={"Accept": "text/csv"}).text.startswith("epoch,")
        assert client.get(path).json()["epochs"][0]["epoch"] == 1
        assert client.get(path, headers={"Accept": "image/png"}).status_code == 406
        head = client.head(path)
        assert head.status_code == 200
        assert head.content == b""


def test_errors_are_not_kept(client: TestClient, filled: Filled) -> None:
    assert client.get(f"{API}/1").status_code == 404
    assert client.get(f"{API}/1/verdict").status_code == 404
    filled.add()
    assert client.get(f"{API}/1").status_code == 200
    assert client.get(f"{API}/1/verdict").status_code == 409
    assert client.get(f"{API}?color=red").status_code == 422


def test_many_who_ask_at_once_wait_for_one_answer(client: TestClient, filled: Filled, made: list[str]) -> None:
    path = f"{API}/{filled.trained([epoch(n) for n in range(1, 30)])}/curves.png"
    with ThreadPoolExecutor(16) as pool:
        pictures = set(pool.map(lambda _: client.get(path).content, range(32)))
    assert len(pictures) == 1
    assert len(made) == 1


def test_only_so_much_is_kept(client: TestClient, filled: Filled, made: list[str], monkeypatch: Any) -> None:
    numbers = [filled.trained([epoch(1)]) for _ in range(3)]
    size = len(client.get(f"{API}/{numbers[0]}").content)
    made.clear()
    room = (size + caching.BYTES_BESIDE + 100) * 5 // 2  # two fit
    monkeypatch.setattr(caching, "MAX_BYTES", room)
    with client_of(filled.settings) as other:
        for number in (numbers[0], numbers[1], numbers[0], numbers[2], numbers[0], numbers[1]):
            assert other.get(f"{API}/{number}", headers={"Accept-Encoding": "identity"}).json()["id"] == number
    assert made == [f"{API}/{numbers[place]}" for place in (0, 1, 2, 1)]


def test_a_key_is_asked_for_all_the_same(filled: Filled) -> None:
    number = filled.trained([epoch(1)])
    settings = filled.settings.model_copy(update={"auth": True})
    with filled.store.writing() as session:
        key = keys.create(session, "reader", Role.VIEWER)[1]
    with client_of(settings) as client:
        headers = {"Authorization": f"Bearer {key}"}
        assert client.get(f"{API}/{number}", headers=headers).status_code == 200
        refused = client.get(f"{API}/{number}")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert client.get(f"{API}/{number}", headers={"X-API-Key": "wrong"}).status_code == 401


def test_a_maker_that_fails_leaves_nobody_waiting() -> None:
    """Whoever waits for an answer that comes to nothing makes it anew."""

    class Authenticator:
        async def identify(self, request: Any) -> Caller:
            return ANONYMOUS

    class OneStamp:
        def of_experiment(self, experiment_id: int) -> int:
            return 1

        of_everything = of_history = None

    attempts: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        attempts.append(1)
        await asyncio.sleep(0)
        if len(attempts) == 1:
            raise RuntimeError("the first one fails")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"made"})

    state = type("State", (), {"authenticator": Authenticator(), "stamps": OneStamp()})()
    sent: list[Any] = []

    async def ask(cache: Caching) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"{API}/1",
            "query_string": b"",
            "headers": [],
            "app": type("App", (), {"state": state})(),
        }

        async def send(message: Any) -> None:
            sent.append(message)

        await cache(scope, None, send)  # type: ignore[arg-type]

    async def three() -> list[Any]:
        cache = Caching(app, cached_routes("/api/v1", [experiments.router]))
        return await asyncio.gather(ask(cache), ask(cache), ask(cache), return_exceptions=True)

    results = asyncio.run(three())
    assert [type(result) for result in results] == [RuntimeError, type(None), type(None)]
    assert [message["body"] for message in sent if message["type"] == "http.response.body"] == [b"made", b"made"]
    assert len(attempts) == 2


def test_stamps_move_with_what_others_commit(filled: Filled) -> None:
    stamps = Stamps(filled.store)
    first, second = filled.add(), filled.add()
    everything, revision = stamps.of_everything(), stamps.of_experiment(second)
    assert stamps.of_everything() == everything
    filled.start(first)
    assert stamps.of_everything() != everything
    assert stamps.of_experiment(second) == revision
    assert stamps.of_experiment(first) != revision
    told = stamps.of_history(first)
    assert told is not None
    assert stamps.of_history(second) == told - 1
    assert stamps.of_experiment(99) is None
    stamps.close()
    assert stamps.of_everything() is None
