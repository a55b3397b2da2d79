"""The perimeter: what every request must pass before the application sees it, and what every answer carries.

One ASGI middleware, outside everything else: is the Host ours, is the Origin ours, is the body small enough and fast
enough; and on the way out the security headers, and a problem document in place of whatever went wrong.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import EpochalError, TooLarge
from service.http.body import MAX_BODY_BYTES
from service.http.connections import neighbourhood
from service.http.errors import RequestTimeout, problem_response, unexpected
from service.http.headers import SECURITY_HEADERS
from service.http.origins import HostNames, check_origin
from service.http.proxies import TrustedProxies
from service.http.turnstile import Shares, Turnstile

logger = logging.getLogger(__name__)

BODY_GRACE_SECONDS = 20.0
BODY_BYTES_PER_SECOND = 32_000
"""A body must arrive at this rate after the grace; a slow uplink manages it, a client that drips does not."""
LOGIN, MAX_LOGIN_BYTES = "/login", 16_000
UPLOADS = "/predictions"
SIGN_OF_LIFE, READINESS = "/healthz", "/readyz"


class Perimeter:
    """Host, Origin, body size and body speed on the way in; headers and problem documents on the way out."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: HostNames,
        proxies: TrustedProxies,
        max_body_bytes: int,
        observe: Callable[[Scope, int, float], None],
    ) -> None:
        self.app = app
        self.observe = observe
        self.hosts = hosts
        self.proxies = proxies
        self.max_body_bytes = max_body_bytes
        self._turnstile = Turnstile()
        self._shares = Shares()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.proxies.unwrap(scope)
        exchange = Exchange(scope, receive, send, body_limit(scope["path"], self.max_body_bytes))
        inner, began = exchange.inner_scope(), time.monotonic()
        try:
            if scope["path"] != SIGN_OF_LIFE:  # a health check names whatever address it reaches the lab by
                self.hosts.check(exchange.headers)
            check_origin(scope, exchange.headers)
            exchange.check_length()
            await self._wait_for_its_turn(scope, exchange)
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
            exchange.give_up_its_place()
            if exchange.status:
                self.observe(inner, exchange.status, (exchange.answered_at or time.monotonic()) - began)

    async def _wait_for_its_turn(self, scope: Scope, exchange: "Exchange") -> None:
        """Let requests begin a few at a time, in turn between addresses, and work on only so many of one address.

        Only what is read counts as worked on, until its answer begins: bodies that are waited for, writers, uploads and
        streams have bounds of their own. A sign of life waits behind others from its own address only, and readiness,
        which may wait for a broker, keeps no place from anybody.
        """
        address = neighbourhood(scope["client"][0] if scope.get("client") else None)
        sign_of_life = scope["path"].endswith(SIGN_OF_LIFE)
        if exchange.only_reads and not sign_of_life and not scope["path"].endswith(READINESS):
            await self._shares.enter(address)
            exchange.holds_place(partial(self._shares.leave, address))
        await self._turnstile.enter(f"{SIGN_OF_LIFE} {address}" if sign_of_life else address)


def body_limit(path: str, max_upload_bytes: int) -> int:
    """The largest body that an address has a use for."""
    if path == LOGIN:
        return MAX_LOGIN_BYTES
    return max_upload_bytes if path.endswith(UPLOADS) else MAX_BODY_BYTES


class Exchange:
    """One request and its response, watched from outside the application."""

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
        self._give_up: Callable[[], None] | None = None

    def holds_place(self, give_up: Callable[[], None]) -> None:
        """Say that it is being worked on, and what ends that."""
        self._give_up = give_up

    def give_up_its_place(self) -> None:
        """Let another request be worked on, if this one still was."""
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()

    def check_length(self) -> None:
        """Refuse a body that announces itself as too large."""
        if self._length is not None and self._length > self.max_body_bytes:
            raise self._too_large(self._length)

    def inner_scope(self) -> Scope:
        """The scope as the application sees it: HEAD as GET, and no Range (nothing here is served in parts)."""
        headers = [(name, value) for name, value in self.scope["headers"] if name not in (b"range", b"if-range")]
        method = "GET" if self.scope["method"] == "HEAD" else self.scope["method"]
        return {**self.scope, "headers": headers, "method": method}

    async def receive(self) -> Message:
        """The next part of the body, counted and with a deadline that moves with what has arrived."""
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
                f"{self._received:,} bytes of the body arrived in {BODY_GRACE_SECONDS:g} s and more",
                fix=f"send at {BODY_BYTES_PER_SECOND // 1000} kB/s or faster",
            ) from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._body_complete = not message.get("more_body", False)
            if self._received > self.max_body_bytes:
                raise self._too_large(self._received)
        return message

    async def send(self, message: Message) -> None:
        """Pass the response on, with the headers that every answer carries."""
        if self._finished:
            return
        if message["type"] == "http.response.start":
            self._started, self.status, self.answered_at = True, message["status"], time.monotonic()
            self.give_up_its_place()
            message = {**message, "headers": self._complete(message["headers"])}
        elif self.scope["method"] == "HEAD":
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._finished = True

    def _complete(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The response's headers and those that every answer carries; what is given stands."""
        headers = [(name.lower(), value) for name, value in given]
        names = {name for name, _ in headers}
        headers += [pair for pair in SECURITY_HEADERS if pair[0] not in names]
        if not self._body_complete:
            headers = [*(pair for pair in headers if pair[0] != b"connection"), (b"connection", b"close")]
        return headers

    async def fail(self, error: EpochalError) -> None:
        """Answer with a problem, or break off where an answer has begun."""
        if self._started:
            raise RuntimeError(f"the response had begun when this happened: {error.detail}") from error
        await problem_response(error)(self.scope, self._receive, self.send)

    def _too_large(self, num_bytes: int) -> TooLarge:
        return TooLarge(
            f"the body is {num_bytes:,} bytes or more; at most {self.max_body_bytes:,} are read",
            fix="send fewer or smaller images, or raise EPOCHAL_MAX_UPLOAD_MB"
            if self.scope["path"].endswith(UPLOADS)
            else "send no more than this address has a use for",
        )
