"""Messages arrive signed at a real receiver, are sent again where they fail, and go to no address that is refused."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpcore
import pytest
from standardwebhooks import Webhook as Verifier

from models.store import Store, webhooks
from models.store.columns import now
from models.store.states import DeliveryStatus
from models.store.tables import Delivery
from models.webhooks import CHOICES
from service.webhooks import send as sending
from service.webhooks.connect import Connector
from service.webhooks.send import Sender
from tests.service.lab_of_one import Filled, epoch
from tests.service.webhooks.receiver import Receiver


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.moment = now() + timedelta(seconds=1)

    def __call__(self) -> datetime:
        return self.moment

    def pass_by(self, **span: float) -> None:
        self.moment += timedelta(**span)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def store(filled: Filled) -> Store:
    return filled.store


def add(store: Store, url: str) -> str:
    """A webhook for everything; its secret."""
    with store.writing() as session:
        return webhooks.create(session, url=url, name="", events=CHOICES, owner=None).secret


def deliveries(store: Store, webhook_id: int = 1) -> list[Delivery]:
    with store.reading() as session:
        return webhooks.list_deliveries(session, webhook_id, before=None, limit=100)[0][::-1]


def send(store: Store, connector: Connector | None = None, clock: Callable[[], datetime] = now) -> int:
    """What a sender does each second, to the end of it. Returns how many messages it sent."""

    async def run() -> int:
        tasks = await Sender(store, connector or Connector(allow_private=True), clock).start_due()
        await asyncio.gather(*tasks)
        return len(tasks)

    return asyncio.run(run())


def test_the_end_of_an_experiment_arrives_with_a_signature_that_can_be_verified(
    store: Store, filled: Filled, receiver: Receiver
) -> None:
    secret = add(store, receiver.url)
    number = filled.trained([epoch(1, val_accuracy=0.6)], name="\u00e4 first")
    assert send(store) == 1
    assert send(store) == 0
    (arrived,) = receiver.arrived
    payload = Verifier(secret).verify(arrived.body, arrived.headers)
    assert payload["type"] == "experiment.completed"
    assert (payload["data"]["id"], payload["data"]["name"]) == (number, "\u00e4 first")
    assert payload["data"]["best_val_accuracy"]["value"] == pytest.approx(0.6)
    assert arrived.path == "/hook?from=lab"
    assert arrived.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert arrived.headers["content-type"] == "application/json"
    (delivery,) = deliveries(store)
    assert (delivery.status, delivery.attempts, delivery.last_status) == (DeliveryStatus.DELIVERED, 1, 200)
    assert delivery.answer == "thank you [2J"  # without what a terminal would obey


def test_a_message_that_failed_is_sent_again_with_its_id_and_a_new_signature(
    store: Store, filled: Filled, receiver: Receiver
) -> None:
    secret, clock = add(store, receiver.url), Clock()
    receiver.answers = [500, 503, 200]
    filled.trained([epoch(1)])
    assert send(store, clock=clock) == 1
    (delivery,) = deliveries(store)
    assert (delivery.status, delivery.last_status) == (DeliveryStatus.PENDING, 500)
    assert send(store, clock=clock) == 0
    for pause in (6, 360):
        clock.pass_by(seconds=pause)
        assert send(store, clock=clock) == 1
    assert deliveries(store)[0].status is DeliveryStatus.DELIVERED
    assert len({arrived.headers["webhook-id"] for arrived in receiver.arrived}) == 1
    assert len({arrived.body for arrived in receiver.arrived}) == 1
    for arrived in receiver.arrived:
        Verifier(secret).verify(arrived.body, arrived.headers)


def test_after_gone_nothing_more_is_sent(store: Store, filled: Filled, receiver: Receiver) -> None:
    add(store, receiver.url)
    receiver.answers = [410]
    filled.trained([epoch(1)])
    send(store)
    filled.trained([epoch(1)])
    assert send(store, clock=lambda: now() + timedelta(days=2)) == 0
    assert len(receiver.arrived) == 1
    assert [one.status for one in deliveries(store)] == [DeliveryStatus.FAILED]


def test_a_redirect_is_not_followed(store: Store, filled: Filled, receiver: Receiver) -> None:
    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(307)
        request.send_header("Location", "/elsewhere")
        request.end_headers()

    add(store, receiver.url)
    receiver.answers = [redirect]
    filled.trained([epoch(1)])
    send(store)
    assert [arrived.path for arrived in receiver.arrived] == ["/hook?from=lab"]
    assert (deliveries(store)[0].status, deliveries(store)[0].last_status) == (DeliveryStatus.PENDING, 307)


@pytest.mark.parametrize("drips", [False, True], ids=["no answer", "an answer without end"])
def test_a_receiver_that_takes_too_long_has_failed(
    store: Store, filled: Filled, receiver: Receiver, drips: bool
) -> None:
    over = threading.Event()

    def dawdle(request: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            request.wfile.write(b"HTTP/1.1 200 OK\r\n" if drips else b"")
            while not over.wait(0.02):
                request.wfile.write(b"X: y\r\n" if drips else b"")

    add(store, receiver.url)
    receiver.answers = [dawdle]
    filled.trained([epoch(1)])
    send(store, Connector(allow_private=True, total_seconds=0.3))
    over.set()
    (delivery,) = deliveries(store)
    assert (delivery.status, delivery.last_status) == (DeliveryStatus.PENDING, None)
    assert delivery.answer in ("no complete answer within 0.3 s", "no answer in time")


def test_of_a_long_answer_only_the_beginning_is_read(store: Store, filled: Filled, receiver: Receiver) -> None:
    def flood(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):
            while True:
                request.wfile.write(b"a" * 65536)

    add(store, receiver.url)
    receiver.answers = [flood]
    filled.trained([epoch(1)])
    send(store)
    (delivery,) = deliveries(store)
    assert (delivery.status, delivery.answer) == (DeliveryStatus.DELIVERED, "a" * 500)


def test_what_is_no_answer_is_a_failure(store: Store, receiver: Receiver) -> None:
    add(store, receiver.url)
    for number, nonsense in enumerate((b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"")):
        receiver.answers = [lambda request, nonsense=nonsense: request.wfile.write(nonsense) and None]
        with store.writing() as session:
            webhooks.announce_test(session, 1)
        send(store)
        delivery = deliveries(store)[number]
        assert (delivery.status, delivery.attempts, delivery.last_status) == (DeliveryStatus.PENDING, 1, None)


def test_a_closed_port_is_a_failure(store: Store, filled: Filled) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        add(store, f"http://127.0.0.1:{unused.getsockname()[1]}/")
        filled.trained([epoch(1)])
        send(store)
    assert deliveries(store)[0].status is DeliveryStatus.PENDING


def test_two_senders_at_once_send_a_message_once(store: Store, filled: Filled, receiver: Receiver) -> None:
    add(store, receiver.url)
    filled.trained([epoch(1)])

    async def run() -> None:
        senders = [Sender(store, Connector(allow_private=True)) for _ in range(2)]
        for tasks in await asyncio.gather(*(sender.start_due() for sender in senders)):
            await asyncio.gather(*tasks)

    asyncio.run(run())
    assert len(receiver.arrived) == 1


def test_a_sender_that_was_ended_while_it_sent_is_made_up_for_after_a_restart(
    store: Store, filled: Filled, receiver: Receiver
) -> None:
    over, clock = threading.Event(), Clock()
    add(store, receiver.url)
    receiver.answers = [lambda _: over.wait(60) and None]
    filled.trained([epoch(1)])

    async def killed() -> None:
        (task,) = await Sender(store, Connector(allow_private=True), clock).start_due()
        while not receiver.arrived:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(killed())
    over.set()
    assert send(store, clock=clock) == 0
    clock.pass_by(minutes=1)
    assert send(store, clock=clock) == 1
    first, second = receiver.arrived
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert deliveries(store)[0].status is DeliveryStatus.DELIVERED


def test_many_messages_do_not_wait_for_the_next_look(
    store: Store, filled: Filled, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "POLL_SECONDS", 3600.0)
    add(store, receiver.url)
    with store.writing() as session:
        for _ in range(9):
            webhooks.announce_test(session, 1)

    async def run() -> None:
        task = asyncio.create_task(Sender(store, Connector(allow_private=True)).run())
        while len(receiver.arrived) < 9:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert len({arrived.headers["webhook-id"] for arrived in receiver.arrived}) == 9


class Resolver:
    """Answers as it is told, one answer after the other."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0)


PRIVATE = (
    *(["127.0.0.1"], ["169.254.169.254", "10.0.0.1"], ["::1"], ["::ffff:7f00:1"], ["64:ff9b::7f00:1"], ["0.0.0.0"]),
    [],
)


def test_a_name_of_a_private_network_is_refused_before_anything_is_connected(store: Store, receiver: Receiver) -> None:
    for number, addresses in enumerate(PRIVATE, start=1):
        add(store, f"http://hooks.example:{receiver.port}/")
        with store.writing() as session:
            webhooks.announce_test(session, number)
        send(store, Connector(allow_private=False, resolve=Resolver(addresses)))
        (delivery,) = deliveries(store, number)
        assert receiver.arrived == []
        assert (delivery.status, delivery.last_status) == (DeliveryStatus.PENDING, None)
        said = "hooks.example is " + ", ".join(addresses) if addresses else "hooks.example has no address"
        assert str(delivery.answer).startswith(said)


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    store: Store, filled: Filled, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to another address the next time (DNS rebinding) is not asked a next time."""
    resolver = Resolver(["127.0.0.1"], ["203.0.113.1"])
    add(store, f"http://hooks.example:{receiver.port}/")
    filled.trained([epoch(1)])
    looked_up = []
    real = socket.getaddrinfo

    def watched(host: str, *rest: int, **more: int) -> object:
        looked_up.append(host)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nor by way of a proxy
    send(store, Connector(allow_private=True, resolve=resolver))
    assert resolver.asked == [("hooks.example", receiver.port)]
    assert "hooks.example" not in looked_up
    assert [arrived.headers["host"] for arrived in receiver.arrived] == [f"hooks.example:{receiver.port}"]


def test_of_several_addresses_only_those_that_are_public_are_tried(
    store: Store, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def connect(_: object, host: str, *rest: object) -> None:
        tried.append(host)
        raise httpcore.ConnectError("nobody there")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    add(store, "http://hooks.example/")
    filled.trained([epoch(1)])
    resolver = Resolver(["10.0.0.1", "1.1.1.1", "::1", "2606:4700:4700::1111"])
    send(store, Connector(allow_private=False, resolve=resolver))
    assert tried == ["1.1.1.1", "2606:4700:4700::1111"]
    assert "nobody there" in str(deliveries(store)[0].answer)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of hooks.example in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    made = [*command.split(), "-addext", "subjectAltName=DNS:hooks.example", "-keyout", "key", "-out", "crt"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key").read_text() + (folder / "crt").read_text())
    return both


@pytest.mark.parametrize(("name", "arrives"), [("hooks.example", True), ("other.example", False)])
def test_the_certificate_is_checked_for_the_name_although_the_address_is_connected_to(
    store: Store, filled: Filled, certificate: Path, name: str, arrives: bool
) -> None:
    named: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _, asked, __: named.append(asked)  # type: ignore[assignment]
    with Receiver() as receiver:
        receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
        receiver.server.handle_error = lambda *_: None
        add(store, f"https://{name}:{receiver.port}/")
        filled.trained([epoch(1)])
        trusting = ssl.create_default_context(cafile=str(certificate))
        send(store, Connector(allow_private=True, resolve=Resolver(["127.0.0.1"]), ssl_context=trusting))
        assert len(receiver.arrived) == arrives
    assert named == [name]
    assert deliveries(store)[0].status is (DeliveryStatus.DELIVERED if arrives else DeliveryStatus.PENDING)
    assert json.loads(deliveries(store)[0].body)["type"] == "experiment.completed"
