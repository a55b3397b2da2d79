"""POSTs messages to addresses that users gave, such that they reach the public internet and no private network.

The name is resolved here, its addresses are checked, and the connection is made to such an address and not by the name
again, which might resolve to another one by then (DNS rebinding). Host header, SNI and the certificate's check keep the
name. Redirects are not followed; no proxy is used, whatever the environment says.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from models.public_addresses import ALLOW, Address, is_public, written
from models.store.webhooks import Outcome

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
MAX_ANSWER_BYTES = 2000
MAX_ANSWER = 500
"""Characters of an answer that are kept."""
MOST_ADDRESSES = 4
"""The most addresses of a name that are tried."""
TROUBLE = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError, ValueError)
"""What connecting, TLS and HTTP raise."""
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

logging.getLogger("httpcore").setLevel(logging.WARNING)


class Refused(Exception):
    """The address is not one that webhooks may be sent to."""


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Network backend that connects to checked addresses only."""

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, and connect to the first address that answers. Raises Refused without one to try."""
        addresses = [ipaddress.ip_address(text) for text in dict.fromkeys(await self._resolve(host, port))]
        allowed = [one for one in addresses if self._allow_private or is_public(one)][:MOST_ADDRESSES]
        if not allowed:
            raise Refused(_refusal(host, addresses))
        trouble: Exception | None = None
        for address in allowed:
            try:
                return await self._plain.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
        assert trouble is not None
        raise trouble

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Raise Refused: no webhook is behind a socket's file."""
        raise Refused(f"{path} is a socket's file")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)


def _refusal(host: str, addresses: Sequence[Address]) -> str:
    if not addresses:
        return f"{host} has no address"
    named = ", ".join(map(str, addresses[:MOST_ADDRESSES]))
    return f"{host} is {named}, which is not on the public internet; {ALLOW}"


@cache
def _public_authorities() -> ssl.SSLContext:
    """The certificate authorities that everybody trusts; read once a process, as that takes 40 ms."""
    return httpx.create_ssl_context()


@dataclass(frozen=True)
class Connector:
    """Sends messages, each on a connection of its own."""

    allow_private: bool
    resolve: Resolve = resolve_host
    connect_seconds: float = CONNECT_SECONDS
    total_seconds: float = TOTAL_SECONDS
    ssl_context: ssl.SSLContext = field(default_factory=_public_authorities)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POST a body, and read the beginning of the answer. Never raises for what the other side does."""
        try:
            async with asyncio.timeout(self.total_seconds):
                return await self._post(url, headers, body)
        except TimeoutError:
            return _failed(f"no complete answer within {self.total_seconds:g} s")
        except httpcore.TimeoutException as error:
            what = "no connection" if isinstance(error, httpcore.ConnectTimeout) else "no answer"
            return _failed(f"{what} in time")
        except Refused as error:
            return _failed(str(error))
        except socket.gaierror as error:
            return _failed(f"the name cannot be resolved: {error.strerror or error}")
        except TROUBLE as error:
            return _failed(f"{type(error).__name__}: {error}")

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        parts = urlsplit(url)
        host = parts.hostname or ""
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        address = httpcore.URL(scheme=parts.scheme, host=host, port=parts.port, target=target)
        sent = {"Host": written(host) + (f":{parts.port}" if parts.port else ""), "Connection": "close", **headers}
        limits = {"connect": self.connect_seconds, "read": self.total_seconds, "write": self.total_seconds}
        backend = CheckedBackend(self.resolve, allow_private=self.allow_private)
        async with (
            httpcore.AsyncConnectionPool(self.ssl_context, network_backend=backend, retries=0) as pool,
            pool.stream(
                "POST", address, headers=list(sent.items()), content=body, extensions={"timeout": limits}
            ) as response,
        ):
            answer = b""
            async for chunk in response.aiter_stream():
                answer += chunk
                if len(answer) >= MAX_ANSWER_BYTES:
                    break
            found = {name.lower(): value for name, value in response.headers}
        return Outcome(
            delivered=200 <= response.status <= 299,
            status=response.status,
            answer=_text(answer[:MAX_ANSWER_BYTES]),
            gone=response.status == 410,
            retry_after_seconds=_retry_after(found.get(b"retry-after", b"")),
        )


def _failed(reason: str) -> Outcome:
    return Outcome(delivered=False, status=None, answer=reason[:MAX_ANSWER])


def _text(answer: bytes) -> str:
    """The beginning of an answer as text, without what a terminal or a database would stumble over."""
    text = answer.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:MAX_ANSWER].strip()


def _retry_after(value: bytes) -> float:
    """The seconds of a Retry-After header; 0 for none, and for a date."""
    return float(value) if value.isdigit() and len(value) < 10 else 0.0
