"""The perimeter: checks on every request before the application sees it, and headers on every answer.

An ASGI middleware that checks Host, Origin, body size and body speed, applies admission control, adds the security
headers, and turns every exception into a problem document.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import EpochalError, TooLarge, UnsupportedMedia
from service.http.admission import ConcurrencyLimiter, RoundRobin
from service.http.body import MAX_BODY_BYTES
from service.http.connections import client_network
from service.http.documents import INFERENCE
from service.http.errors import RequestTimeout, error_response, shown, unexpected
from service.http.headers import SECURITY_HEADERS
from service.http.origins import HostNames, check_origin
from service.http.proxies import TrustedProxies

logger = logging.getLogger(__name__)

BODY_GRACE_SECONDS = 20.0
BODY_BYTES_PER_SECOND = 32_000
"""Minimum rate at which a body must arrive after the grace period; a slow uplink manages it."""
LOGIN, MAX_LOGIN_BYTES = "/login", 16_000
UPLOADS = ("/predictions", "/infer")
DATASET_PATHS = re.compile(r"(/api/v1)?/datasets(/[^/]+)?")
UPLOAD_PATHS = re.compile(r"/api/v1/uploads(/[^/]+)?")
FORM_BYTES = 100_000
"""What a form may have beside its file."""
PLAIN, SEND_PLAIN = ("", "identity"), "send the body as it is, without Content-Encoding"
LIVENESS, READINESS = "/healthz", "/readyz"


class Perimeter:
    """Host, Origin, body size and body speed on the way in; headers and problem documents on the way out."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: HostNames,
        proxies: TrustedProxies,
        max_body_bytes: int,
        max_dataset_bytes: int,
        observe: Callable[[Scope, int, float], None],
    ) -> None:
        self.app = app
        self.observe = observe
        self.hosts = hosts
        self.proxies = proxies
        self.max_body_bytes = max_body_bytes
        self.max_dataset_bytes = max_dataset_bytes
        self._round_robin = RoundRobin()
        self._limiter = ConcurrencyLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.proxies.unwrap(scope)
        exchange = Exchange(scope, receive, send, self._body_limit(scope))
        inner, began = exchange.inner_scope(), time.monotonic()
        try:
            if scope["path"] != LIVENESS:  # health checks use any host name
                self.hosts.check(exchange.headers)
            check_origin(scope, exchange.headers)
            exchange.check_length()
            exchange.check_coding()
            await self._admit(scope, exchange)
            await self.app(inner, exchange.receive, exchange.send)
        except EpochalError as error:
            await exchange.fail(error)
        except ClientDisconnect:
            return
        except Exception:
            incident = f"incident {secrets.token_hex(4)}"
            logger.exception("%s: %s %s", incident, scope["method"], scope["path"])
            await exchange.fail(unexpected(incident))
        finally:
            exchange.release_place()
            if exchange.status:
                self.observe(inner, exchange.status, (exchange.answered_at or time.monotonic()) - began)

    def _body_limit(self, scope: Scope) -> int:
        return body_limit(scope["method"], scope["path"], self.max_body_bytes, self.max_dataset_bytes)

    async def _admit(self, scope: Scope, exchange: "Exchange") -> None:
        """Wait for admission: starts are round robin between client networks, and reads limited per network.

        Only reads count against the limit, until their answer begins: slow bodies, writes, uploads and streams have
        limits of their own. Liveness has its own queue per network, and readiness, which may wait for a broker, does
        not count against the limit.
        """
        address = client_network(scope["client"][0] if scope.get("client") else None)
        is_liveness = scope["path"].endswith(LIVENESS)
        if exchange.only_reads and not is_liveness and not scope["path"].endswith(READINESS):
            await self._limiter.acquire(address)
            exchange.release_on_answer(partial(self._limiter.release, address))
        await self._round_robin.wait_for_turn(f"{LIVENESS} {address}" if is_liveness else address)


def body_limit(method: str, path: str, max_upload_bytes: int, max_dataset_bytes: int) -> int:
    """Return the maximum size of a request's body at a path, in bytes."""
    if path == LOGIN:
        return MAX_LOGIN_BYTES
    if is_dataset_upload(method, path):
        return max_dataset_bytes + FORM_BYTES
    return max_upload_bytes if path.endswith(UPLOADS) else MAX_BODY_BYTES


def is_dataset_upload(method: str, path: str) -> bool:
    """Whether a request's body is an archive of images or a part of one, which is written to the disk as it arrives."""
    return (method in ("POST", "PUT") and DATASET_PATHS.fullmatch(path) is not None) or (
        method in ("POST", "PATCH") and UPLOAD_PATHS.fullmatch(path) is not None
    )


class Exchange:
    """One request and its response: wraps ASGI receive and send with limits, deadlines and headers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.max_body_bytes = max_body_bytes
        self._receive = receive
        self._send = send
        self._received = 0
        self._deadline_base: float | None = None
        length = self.headers.get("content-length")
        self._length = int(length) if length and length.isdigit() and len(length) < 20 else None
        self._body_complete = not self._length and "transfer-encoding" not in self.headers
        self._started = self._finished = False
        self.status = 0
        self.answered_at: float | None = None
        self.only_reads = scope["method"] in ("GET", "HEAD") and self._body_complete
        self._release: Callable[[], None] | None = None

    def release_on_answer(self, release: Callable[[], None]) -> None:
        """Register a function that frees the request's concurrency slot; called once, when its answer begins."""
        self._release = release

    def release_place(self) -> None:
        """Free the request's concurrency slot, if it still holds one."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def check_length(self) -> None:
        """Check Content-Length against the limit. Raises TooLarge."""
        if self._length is not None and self._length > self.max_body_bytes:
            raise self._too_large(self._length)

    def check_coding(self) -> None:
        """Refuse a compressed body, but for those below /v2, which are unpacked there. Raises UnsupportedMedia."""
        coding = self.headers.get("content-encoding", "").strip().lower()
        if coding in PLAIN or self._body_complete or self.scope["path"].startswith(f"{INFERENCE}/"):
            return
        raise UnsupportedMedia(f"the Content-Encoding is '{shown(coding)}', and no coding is read", fix=SEND_PLAIN)

    def inner_scope(self) -> Scope:
        """Return the application's scope: HEAD becomes GET, and Range is dropped (partial content is not supported)."""
        headers = [(name, value) for name, value in self.scope["headers"] if name not in (b"range", b"if-range")]
        method = "GET" if self.scope["method"] == "HEAD" else self.scope["method"]
        return {**self.scope, "headers": headers, "method": method}

    async def receive(self) -> Message:
        """Receive the next part of the body; the deadline moves with the bytes received.

        Raises RequestTimeout, TooLarge.
        """
        if self._body_complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._deadline_base is None:
            self._deadline_base = loop.time() + BODY_GRACE_SECONDS
        try:
            async with asyncio.timeout_at(self._deadline_base + self._received / BODY_BYTES_PER_SECOND):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(
                f"only {self._received:,} bytes of the body arrived in {BODY_GRACE_SECONDS:g} s or more",
                fix=f"send at {BODY_BYTES_PER_SECOND // 1000} kB/s or faster",
            ) from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._body_complete = not message.get("more_body", False)
            if self._received > self.max_body_bytes:
                raise self._too_large(self._received)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response; adds the common headers, and drops the body of a HEAD request."""
        if self._finished:
            return
        if message["type"] == "http.response.start":
            self._started, self.status, self.answered_at = True, message["status"], time.monotonic()
            self.release_place()
            message = {**message, "headers": self._complete(message["headers"])}
        elif self.scope["method"] == "HEAD":
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._finished = True

    def _complete(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Add the common headers to those of the response, which take precedence."""
        headers = [(name.lower(), value) for name, value in given]
        names = {name for name, _ in headers}
        headers += [pair for pair in SECURITY_HEADERS if pair[0] not in names]
        if not self._body_complete:
            headers = [*(pair for pair in headers if pair[0] != b"connection"), (b"connection", b"close")]
        return headers

    async def fail(self, error: EpochalError) -> None:
        """Answer with a problem document. Raises RuntimeError if the response has begun."""
        if self._started:
            raise RuntimeError(f"the response had begun when this happened: {error.detail}") from error
        await error_response(self.scope["path"], error)(self.scope, self._receive, self.send)

    def _too_large(self, num_bytes: int) -> TooLarge:
        return TooLarge(
            f"the body is {num_bytes:,} bytes or more; the limit is {self.max_body_bytes:,}",
            fix="send fewer or smaller images, or raise EPOCHAL_MAX_UPLOAD_MB"
            if self.scope["path"].endswith(UPLOADS)
            else "upload a part of it, or have EPOCHAL_MAX_DATASET_MB raised"
            if is_dataset_upload(self.scope["method"], self.scope["path"])
            else "send a smaller body",
        )
